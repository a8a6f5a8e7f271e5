"""ControlNet: a copy of the way down that follows a picture of a structure (https://arxiv.org/abs/2302.05543).

    z_t ─► conv_in ─┬─ + ─► down ─► middle
    hint features ──┘       │ skips  │
                          1x1 each  1x1 ─► times the weight of the signal ─► added to the U-Net's

It has no layers between frames: each frame of a video has a hint of its own.
"""

import dataclasses
import itertools

import jax
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.models.conditions import Signal
from gen1_jax.models.layers import ZEROS, Conv
from gen1_jax.models.unet.blocks import BlockInputs
from gen1_jax.models.unet.config import ControlConfig, UNetConfig
from gen1_jax.models.unet.control import Injection
from gen1_jax.models.unet.down_path import DownPath
from gen1_jax.models.unet.spatial import Content


class ControlNet(DownPath):
    """Terms of the U-Net's skip connections and of its middle.

    Args:
        config: of the U-Net.
        control: what differs.
        dtype: dtype of the computation.
        remat: see `DownPath`.
    """

    def __init__(self, config: UNetConfig, control: ControlConfig, *, dtype: DTypeLike, remat: bool = False):
        alone = dataclasses.replace(config, temporal="none", structure_channels=0, image_adapter=False, controls=())
        super().__init__(alone, dtype=dtype, remat=remat)
        self.pooled = control.pooled
        self.hint = Hint(control.hint_channels, self.skip_widths[0])
        self.down_zero = nnx.List([Conv(width, width, 1, init=ZEROS) for width in self.skip_widths])
        self.mid_zero = Conv(self.skip_widths[-1], self.skip_widths[-1], 1, init=ZEROS)

    def __call__(
        self,
        latents: Float[Array, "b t h w c"],
        timesteps: Int[Array, " b"],
        signal: Signal,
        content: Content,
        *,
        finest: bool = False,
    ) -> Injection:
        """What it adds.

        Args:
            latents: z_t.
            timesteps: of each clip.
            signal: features of its hint, see `Hint`.
            content: of which it reads the main tokens alone.
            finest: whether to evaluate no more than it adds to the skip connections of the finest level.
        """
        given = BlockInputs(time=self.time_embedding(timesteps), content=Content(tokens=content.tokens), still=(False,))
        x = self.conv_in(latents.astype(self.dtype)) + signal.maps.astype(self.dtype)
        x, skips = (None, self.finest(x, given)) if finest else self.descend(x, given)
        weight = signal.at(timesteps).weight[:, None, None, None, None]

        def term(zero: Conv, y: Array) -> Array:
            y = zero(y) * weight.astype(y.dtype)
            return y.mean((2, 3), keepdims=True) if self.pooled else y

        return Injection(
            skips=tuple(term(zero, skip) for zero, skip in zip(list(self.down_zero)[: len(skips)], skips, strict=True)),
            middle=None if finest else term(self.mid_zero, self._run(self.mid_block, x, given)),
        )


class Hint(nnx.Module):
    """A picture of the structure as features of latent size; they depend on neither noise nor timestep.

    Args:
        widths: see `ControlConfig.hint_channels`; each but the first halves height and width.
        features: of the first convolution of the U-Net.
    """

    def __init__(self, widths: tuple[int, ...], features: int):
        self.conv_in = Conv(3, widths[0])
        blocks = []
        for width, wider in itertools.pairwise(widths):
            blocks += [Conv(width, width), Conv(width, wider, stride=2, padding=1)]
        self.blocks = nnx.List(blocks)
        self.conv_out = Conv(widths[-1], features, init=ZEROS)

    def __call__(self, pictures: Float[Array, "b t H W 3"]) -> Float[Array, "b t h w c"]:
        """Features of pictures in [0, 1]."""
        x = jax.nn.silu(self.conv_in(pictures))
        for block in self.blocks:
            x = jax.nn.silu(block(x))
        return self.conv_out(x)
