"""What structure adds to the U-Net: further input channels, or terms of its skip connections and of its middle."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_inputs import input_channels
from gen1_jax.models.unet.config import UNetConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Injection:
    """What a control gives the U-Net.

    Attributes:
        first: (B, T, h, w, k), channels of conv_in after those of the latents; Gen-1's way.
        given: the inputs that `first` has, None for all; of the others, which would be zeros, conv_in sums nothing.
        skips: (B, T, h_i, w_i, c_i), added to the skip connections, the first of conv_in, then in the order of the way
            down; a ControlNet's way (https://arxiv.org/abs/2302.05543). Those of the finest level alone where no others
            are evaluated.
        middle: added to what the middle gives; None for nothing, or where it is not evaluated.
    """

    first: Float[Array, "b t h w k"] | None = None
    given: tuple[str, ...] | None = dataclasses.field(default=None, metadata={"static": True})
    skips: tuple[Array, ...] = ()
    middle: Float[Array, "b t i j c"] | None = None

    def __add__(self, other: "Injection") -> "Injection":
        """Of both: terms are summed. Of channels only one may have some."""
        if not self.skips:
            return dataclasses.replace(other, first=self.first, given=self.given)
        skips = tuple(a + b for a, b in zip(self.skips, other.skips, strict=True))
        middle = None if self.middle is None else self.middle + other.middle
        return dataclasses.replace(self, skips=skips, middle=middle)


def concatenated(
    config: UNetConfig, conditions: Conditions, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"]
) -> Injection:
    """Gen-1's control: each structure and the embedding of its t_s as channels beside z_t (arXiv 2302.03011, 3.2).

    Arguments are those of `input_channels`.
    """
    channels, given = input_channels(config, conditions, latents, timesteps)
    return Injection(first=channels, given=given)
