"""What structure adds to the U-Net: further input channels, or terms of its skip connections and of its middle."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.models.conditions import Conditions, Maps, PerClip, Signal, Tokens
from gen1_jax.models.layers import timestep_embedding
from gen1_jax.models.unet.config import KNOWN, UNetConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Injection:
    """What a control gives the U-Net.

    Attributes:
        first: (B, T, h, w, k), channels of conv_in after those of the latents; Gen-1's way.
        given: the inputs that `first` has; of those that lack, whose channels would be zeros, conv_in sums nothing.
        skips: (B, T, h_i, w_i, c_i), added to the skip connections, the first of conv_in, then in the order of the way
            down; a ControlNet's way (https://arxiv.org/abs/2302.05543).
        middle: added to what the middle gives.
    """

    first: Float[Array, "b t h w k"] | None = None
    given: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})
    skips: tuple[Array, ...] = ()
    middle: Float[Array, "b t i j c"] | None = None

    def __add__(self, other: "Injection") -> "Injection":
        """Of both: terms are summed. Of channels only one may have some."""
        if not self.skips:
            return dataclasses.replace(other, first=self.first, given=self.given)
        skips = tuple(a + b for a, b in zip(self.skips, other.skips, strict=True))
        return dataclasses.replace(self, skips=skips, middle=self.middle + other.middle)


def concatenated(
    config: UNetConfig, conditions: Conditions, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"]
) -> Injection:
    """Gen-1's control: each structure and the embedding of its t_s as channels beside z_t (arXiv 2302.03011, 3.2).

    The cosines of the embedding of t_s 0 are 1, so that a structure which is given is told from one which is not: all
    channels of that are zero. What is known brings its mask.

    Args:
        config: names the structures.
        conditions: has all of them, or some, where the model can do without the others.
        latents: of the shape that the channels get.
        timesteps: of each clip.
    """
    channels, given = [], tuple(name for name in config.inputs if name in conditions.structure)
    for name in given:
        signal = conditions.structure[name].at(timesteps)
        channels.append(signal.weighted_maps.astype(latents.dtype))
        if name != KNOWN:
            level = timestep_embedding(signal.level, config.structure_level_channels, config.structure_level_period)
            level = (level * signal.weight[:, None])[:, None, None, None]
            level = jnp.broadcast_to(level, (*latents.shape[:-1], level.shape[-1]))
            channels.append(level.astype(latents.dtype))
    return Injection(first=jnp.concatenate(channels, axis=-1) if channels else None, given=given)


def known_signal(latents: Float[Array, "b t h w c"], mask: Float[Array, "b t h w 1"]) -> Signal:
    """The signal `KNOWN` of latents that are given where the mask is 1; what they are elsewhere does not matter."""
    return Signal.of(jnp.concatenate([latents * mask, mask.astype(latents.dtype)], axis=-1))


def conditions_of(
    config: UNetConfig,
    content: Tokens,
    structure: Maps | None = None,
    structure_level: PerClip | None = None,
) -> Conditions:
    """The conditions of a model with one structure.

    Args:
        config: names the kinds.
        content: (B, N, D) tokens.
        structure: (B, T, h, w, c), encoded (of the first kind that it can follow); None for none.
        structure_level: (B,), t_s; 0 if None.
    """
    kind = config.kinds[0] if config.kinds else config.structure_kinds[0]
    signals = {} if structure is None else {kind: Signal.of(structure, structure_level)}
    return Conditions(content={config.content_kind: content}, structure=signals)


def abstract_conditions(config: UNetConfig, shape: tuple[int, ...], tokens: int, dtype: DTypeLike) -> Conditions:
    """Shapes of the conditions of an edit that follows every structure that a model can follow.

    Args:
        config: names the kinds.
        shape: (B, T, h, w, C), of the latents.
        tokens: of the content.
        dtype: of the features of hints.
    """
    array, clips = jax.ShapeDtypeStruct, shape[:1]
    maps = {kind: array((*shape[:-1], config.structure_channels), jnp.float32) for kind in config.structures}
    maps |= {KNOWN: array((*shape[:-1], config.inputs[KNOWN]), jnp.float32)} if config.known else {}
    features = (*shape[:-1], config.block_out_channels[0])
    maps |= {control.kind: array(features, dtype) for control in config.controls}
    level, weight = array(clips, jnp.int32), array(clips, jnp.float32)
    return Conditions(
        content={config.content_kind: array((*clips, tokens, config.cross_attention_dim), jnp.float32)},
        structure={kind: Signal(x, level, weight) for kind, x in maps.items()},
    )
