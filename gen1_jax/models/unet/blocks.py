"""Levels of the space-time U-Net: residual blocks and transformers, each with its temporal part."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.layers import Conv, GroupNorm, Linear
from gen1_jax.models.partition import by_frame
from gen1_jax.models.unet.config import UNetConfig
from gen1_jax.models.unet.spatial import SpatialTransformer
from gen1_jax.models.unet.temporal import Place, Video, over_time, temporal_layer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockInputs:
    """What every block is told besides its activations.

    Attributes:
        time: (B, E), embedding of the timestep, float32.
        content: (B, N, D), tokens for cross-attention, in the dtype of the computation.
        still: which clips are seen frame by frame, see `Conditions.still`.
    """

    time: Float[Array, "b e"]
    content: Float[Array, "b n d"]
    still: tuple[bool, ...] = dataclasses.field(metadata={"static": True})


class ResnetBlock(nnx.Module):
    """Two convolutions, each followed by one over time, around the timestep's embedding."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int):
        groups = config.norm_num_groups
        self.norm1 = GroupNorm(groups, in_channels, epsilon=1e-5)
        self.conv1 = Conv(in_channels, out_channels)
        self.temporal_conv1 = temporal_layer(config, out_channels, "resnet")
        self.time_emb_proj = Linear(4 * config.block_out_channels[0], out_channels)
        self.norm2 = GroupNorm(groups, out_channels, epsilon=1e-5)
        self.conv2 = Conv(out_channels, out_channels)
        self.temporal_conv2 = temporal_layer(config, out_channels, "resnet")
        self.conv_shortcut = None if in_channels == out_channels else Conv(in_channels, out_channels, 1)

    def __call__(self, x: Video, given: BlockInputs) -> Float[Array, "b t h w d"]:
        x = by_frame(x)
        y = over_time(self.temporal_conv1, self.conv1(jax.nn.silu(self.norm1(x))), given.still)
        y = y + self.time_emb_proj(jax.nn.silu(given.time).astype(y.dtype))[:, None, None, None]
        y = over_time(self.temporal_conv2, self.conv2(jax.nn.silu(self.norm2(y))), given.still)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class SpaceTimeTransformer(nnx.Module):
    """A spatial transformer, then a temporal one."""

    def __init__(self, config: UNetConfig, channels: int, place: Place):
        self.spatial = SpatialTransformer(config, channels)
        self.temporal = temporal_layer(config, channels, place)

    def __call__(self, x: Video, given: BlockInputs) -> Video:
        return over_time(self.temporal, self.spatial(x, given.content), given.still)


def _transformers(config: UNetConfig, channels: int, count: int, enabled: bool) -> nnx.List:
    return nnx.List([SpaceTimeTransformer(config, channels, "attention") for _ in range(count if enabled else 0)])


class DownBlock(nnx.Module):
    """A level on the way down. Returns its output and every activation that the way up concatenates."""

    def __init__(self, config: UNetConfig, in_channels: int, channels: int, attend: bool, *, downsample: bool):
        layers = config.layers_per_block
        self.resnets = nnx.List([ResnetBlock(config, channels if i else in_channels, channels) for i in range(layers)])
        self.attentions = _transformers(config, channels, layers, attend)
        self.downsample = Conv(channels, channels, stride=2, padding=1) if downsample else None

    def __call__(self, x: Video, given: BlockInputs) -> tuple[Float[Array, "b t i j d"], list[Array]]:
        outputs = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, given)
            x = self.attentions[i](x, given) if self.attentions else x
            outputs.append(x)
        if self.downsample is not None:
            x = self.downsample(x)
            outputs.append(x)
        return x, outputs


class MidBlock(nnx.Module):
    """The coarsest level: residual block, transformers, residual block."""

    def __init__(self, config: UNetConfig, channels: int):
        self.resnets = nnx.List([ResnetBlock(config, channels, channels) for _ in range(2)])
        self.attentions = nnx.List([SpaceTimeTransformer(config, channels, "mid")])

    def __call__(self, x: Video, given: BlockInputs) -> Video:
        x = self.resnets[0](x, given)
        x = self.attentions[0](x, given)
        return self.resnets[1](x, given)


class UpBlock(nnx.Module):
    """A level on the way up; each residual block reads one skip connection. `upsample` is for the U-Net to apply."""

    def __init__(
        self, config: UNetConfig, in_channels: int, channels: int, skips: list[int], attend: bool, *, upsample: bool
    ):
        widths = [in_channels] + [channels] * (len(skips) - 1)
        self.resnets = nnx.List(
            [ResnetBlock(config, w + skip, channels) for w, skip in zip(widths, skips, strict=True)]
        )
        self.attentions = _transformers(config, channels, len(skips), attend)
        self.upsample = Conv(channels, channels) if upsample else None

    def __call__(self, x: Video, skips: list[Array], given: BlockInputs) -> Float[Array, "b t h w d"]:
        for i, (resnet, skip) in enumerate(zip(self.resnets, skips, strict=True)):
            x = resnet(jnp.concatenate([x, skip], axis=-1), given)
            x = self.attentions[i](x, given) if self.attentions else x
        return x
