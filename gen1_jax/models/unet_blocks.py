"""Blocks of the space-time U-Net: residual blocks and transformers, each with its temporal part.

Spatial layers see (b t) pictures, temporal ones (b h w) sequences of frames. Every temporal layer is a residual whose
last projection starts at zero, so a fresh video model is its image model on each frame (arXiv 2302.03011, figure 3).
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.attention import Attention
from gen1_jax.models.layers import (
    EMBEDDING,
    ZEROS,
    Conv,
    FeedForward,
    GroupNorm,
    LayerNorm,
    Linear,
    parameter,
)
from gen1_jax.models.partition import by_frame, by_position, fold, unfold

Video = Float[Array, "b t h w c"]


class TemporalConv(nnx.Module):
    """x + conv(x) over three neighbouring frames; the identity for an image and at initialisation."""

    def __init__(self, channels: int):
        self.conv = Conv(channels, channels, (3, 1), init=ZEROS)

    def __call__(self, x: Video) -> Video:
        batch, frames, height, width, channels = x.shape
        if frames == 1:
            return x
        y = self.conv(by_position(x.reshape(batch, frames, height * width, channels)))
        return x + by_frame(by_position(y).reshape(x.shape))


class ResnetBlock(nnx.Module):
    """Two convolutions, each followed by one over time, around the timestep's embedding."""

    def __init__(self, config, in_channels: int, out_channels: int):
        groups = config.norm_num_groups
        self.norm1 = GroupNorm(groups, in_channels, epsilon=1e-5)
        self.conv1 = Conv(in_channels, out_channels)
        self.temporal_conv1 = TemporalConv(out_channels)
        self.time_emb_proj = Linear(4 * config.block_out_channels[0], out_channels)
        self.norm2 = GroupNorm(groups, out_channels, epsilon=1e-5)
        self.conv2 = Conv(out_channels, out_channels)
        self.temporal_conv2 = TemporalConv(out_channels)
        self.conv_shortcut = None if in_channels == out_channels else Conv(in_channels, out_channels, 1)

    def __call__(self, x: Video, time: Float[Array, "b e"]) -> Float[Array, "b t h w d"]:
        x = by_frame(x)
        y = self.temporal_conv1(self.conv1(jax.nn.silu(self.norm1(x))))
        y = y + self.time_emb_proj(jax.nn.silu(time).astype(x.dtype))[:, None, None, None]
        y = self.temporal_conv2(self.conv2(jax.nn.silu(self.norm2(y))))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class TransformerBlock(nnx.Module):
    """Self-attention, attention to a context (or to itself again), feed-forward; each a pre-norm residual."""

    def __init__(self, features: int, heads: int, context_features: int | None = None):
        self.norm1, self.attn1 = LayerNorm(features), Attention(features, heads)
        self.norm2 = LayerNorm(features)
        self.attn2 = Attention(features, heads, context_features=context_features)
        self.norm3, self.ff = LayerNorm(features), FeedForward(features)

    def __call__(self, x: Float[Array, "b s c"], context: Float[Array, "b n d"] | None = None) -> Float[Array, "b s c"]:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nnx.Module):
    """Attention among the positions of each frame, and from each position to the content."""

    def __init__(self, config, channels: int):
        self.norm = GroupNorm(config.norm_num_groups, channels, epsilon=1e-6)
        self.proj_in = Linear(channels, channels)
        self.block = TransformerBlock(channels, config.num_attention_heads, config.cross_attention_dim)
        self.proj_out = Linear(channels, channels)

    def __call__(self, x: Video, content: Float[Array, "b n d"]) -> Video:
        batch, frames, height, width, _ = x.shape
        y = rearrange(self.proj_in(self.norm(x)), "b t h w c -> b t (h w) c")
        content = jnp.broadcast_to(content[:, None], (batch, frames, *content.shape[1:]))
        y = unfold(self.block(fold(y), fold(content)), batch)
        y = rearrange(y, "b t (h w) c -> b t h w c", h=height, w=width)
        return x + self.proj_out(y)


class TemporalTransformer(nnx.Module):
    """Attention among the frames at each position, with learnable positions of the frame index.

    Mirrors the spatial transformer: both attentions look at the frames.
    """

    def __init__(self, config, channels: int):
        self.norm = GroupNorm(config.norm_num_groups, channels, epsilon=1e-6)
        self.proj_in = Linear(channels, channels)
        self.frame_positions = parameter((config.max_frames, channels), EMBEDDING)
        self.block = TransformerBlock(channels, config.num_attention_heads)
        self.proj_out = Linear(channels, channels, init=ZEROS)

    def __call__(self, x: Video) -> Video:
        batch, frames, height, width, _ = x.shape
        if frames == 1:
            return x
        y = by_frame(self.proj_in(self.norm(x)))  # the norm is over whole frames
        y = by_position(rearrange(y, "b t h w c -> b t (h w) c"))
        y = fold(rearrange(y, "b t p c -> b p t c"))
        y = self.proj_out(self.block(y + self.frame_positions[...][:frames].astype(y.dtype)))
        y = by_position(rearrange(unfold(y, batch), "b p t c -> b t p c"))
        return x + by_frame(rearrange(y, "b t (h w) c -> b t h w c", h=height, w=width))


class SpaceTimeTransformer(nnx.Module):
    """A spatial transformer, then a temporal one."""

    def __init__(self, config, channels: int):
        self.spatial = SpatialTransformer(config, channels)
        self.temporal = TemporalTransformer(config, channels)

    def __call__(self, x: Video, content: Float[Array, "b n d"]) -> Video:
        return self.temporal(self.spatial(x, content))


def _transformers(config, channels: int, count: int, enabled: bool) -> nnx.List:
    return nnx.List([SpaceTimeTransformer(config, channels) for _ in range(count if enabled else 0)])


class DownBlock(nnx.Module):
    """A level on the way down. Returns its output and every activation that the way up concatenates."""

    def __init__(self, config, in_channels: int, channels: int, attend: bool, *, downsample: bool):
        layers = config.layers_per_block
        self.resnets = nnx.List([ResnetBlock(config, channels if i else in_channels, channels) for i in range(layers)])
        self.attentions = _transformers(config, channels, layers, attend)
        self.downsample = Conv(channels, channels, stride=2, padding=1) if downsample else None

    def __call__(self, x: Video, time: Float[Array, "b e"], content: Float[Array, "b n d"]):
        outputs = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, time)
            x = self.attentions[i](x, content) if self.attentions else x
            outputs.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            outputs.append(x)
        return x, outputs


class MidBlock(nnx.Module):
    """The coarsest level: residual block, transformers, residual block."""

    def __init__(self, config, channels: int):
        self.resnets = nnx.List([ResnetBlock(config, channels, channels) for _ in range(2)])
        self.attentions = _transformers(config, channels, 1, True)

    def __call__(self, x: Video, time: Float[Array, "b e"], content: Float[Array, "b n d"]) -> Video:
        x = self.resnets[0](x, time)
        x = self.attentions[0](x, content)
        return self.resnets[1](x, time)


class UpBlock(nnx.Module):
    """A level on the way up; each residual block reads one skip connection. `upsample` is for the U-Net to apply."""

    def __init__(self, config, in_channels: int, channels: int, skips: list[int], attend: bool, *, upsample: bool):
        widths = [in_channels] + [channels] * (len(skips) - 1)
        self.resnets = nnx.List(
            [ResnetBlock(config, w + skip, channels) for w, skip in zip(widths, skips, strict=True)]
        )
        self.attentions = _transformers(config, channels, len(skips), attend)
        self.upsample = Conv(channels, channels) if upsample else None

    def __call__(self, x: Video, skips: list[Array], time: Float[Array, "b e"], content: Float[Array, "b n d"]):
        for i, (resnet, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            x = resnet(jnp.concatenate([x, skip], axis=-1), time)
            x = self.attentions[i](x, content) if self.attentions else x
        return x
