"""Layers between frames. Each is a residual whose last projection starts at zero, and which images pass by.

Temporal layers see (b h w) sequences of frames. A fresh video model is its image model on each frame (arXiv 2302.03011,
figure 3).
"""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.layers import EMBEDDING, ZEROS, Conv, Linear, parameter
from gen1_jax.models.norms import GroupNorm
from gen1_jax.models.over_time import Video, along_time
from gen1_jax.models.partition import by_frame, by_position
from gen1_jax.models.unet.config import UNetConfig
from gen1_jax.models.unet.spatial import TransformerBlock

Place = Literal["resnet", "attention", "layer", "mid"]
"""Where a temporal layer stands: after a convolution of a residual block, after a spatial transformer of a level, after
a residual block and what follows it in a level, or after the spatial transformer of the middle."""


class TemporalConv(nnx.Module):
    """x + conv(x) over three neighbouring frames; the identity at initialisation."""

    def __init__(self, channels: int):
        self.conv = Conv(channels, channels, (3, 1), init=ZEROS)

    def __call__(self, x: Video) -> Video:
        batch, frames, height, width, channels = x.shape
        y = self.conv(by_position(x.reshape(batch, frames, height * width, channels)))
        return x + by_frame(by_position(y).reshape(x.shape))


class TemporalTransformer(nnx.Module):
    """Attention among the frames at each position, with learnable positions of the frame index.

    Mirrors the spatial transformer: both attentions look at the frames.
    """

    def __init__(self, config: UNetConfig, channels: int):
        self.norm = GroupNorm(config.norm_num_groups, channels, epsilon=1e-6)
        self.proj_in = Linear(channels, channels)
        self.frame_positions = parameter((config.max_frames, channels), EMBEDDING)
        self.block = TransformerBlock(channels, config.num_attention_heads)
        self.proj_out = Linear(channels, channels, init=ZEROS)

    def __call__(self, x: Video) -> Video:
        y = by_frame(self.proj_in(self.norm(x)))  # the norm is over whole frames
        positions = self.frame_positions[...][: x.shape[1]]
        return x + along_time(lambda y: self.proj_out(self.block(y + positions.astype(y.dtype))), y)


class MotionModule(nnx.Module):
    """AnimateDiff's temporal transformer (https://arxiv.org/abs/2307.04725).

    Its positions are sinusoids, added to the normalised input of both attentions. As it was trained, its group
    normalisation is over each frame by itself.

    Args:
        channels: of the activations.
        heads: of both attentions.
        groups: of the group normalisation.
    """

    def __init__(self, channels: int, heads: int, groups: int):
        self.norm = GroupNorm(groups, channels, epsilon=1e-6)
        self.proj_in = Linear(channels, channels)
        self.block = TransformerBlock(channels, heads)
        self.proj_out = Linear(channels, channels, init=ZEROS)

    def __call__(self, x: Video) -> Video:
        y = by_frame(self.proj_in(self.norm(x)))
        positions = sinusoids(x.shape[1], x.shape[-1])
        return x + along_time(lambda y: self.proj_out(self.block(y, positions=positions)), y)


def sinusoids(length: int, features: int) -> Float[Array, "t c"]:
    """Sine and cosine in turn of p / 10,000^(2i / c), of positions p from 0 on (https://arxiv.org/abs/1706.03762)."""
    frequencies = jnp.exp(-jnp.log(10_000.0) * jnp.arange(0, features, 2, dtype=jnp.float32) / features)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(length, features)


def temporal_layer(config: UNetConfig, channels: int, place: Place) -> nnx.Module | None:
    """The temporal layer of a place, or None where there is none.

    Gen-1 has a convolution after each spatial one and a transformer after each spatial one; AnimateDiff has a
    transformer after each layer of a level, whether it attends or not, and in later versions one in the middle.
    """
    if config.temporal == "gen1" and place != "layer":
        return TemporalConv(channels) if place == "resnet" else TemporalTransformer(config, channels)
    if config.temporal == "animatediff" and (place == "layer" or (place == "mid" and config.motion_mid_block)):
        return MotionModule(channels, config.num_attention_heads, config.norm_num_groups)
    return None
