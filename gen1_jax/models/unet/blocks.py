"""Levels of the space-time U-Net: residual blocks and transformers, each with its temporal part."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.alike import Alike
from gen1_jax.models.layers import Conv, Linear
from gen1_jax.models.norms import GroupNorm
from gen1_jax.models.over_time import Video, over_time
from gen1_jax.models.partition import by_frame
from gen1_jax.models.unet.config import UNetConfig
from gen1_jax.models.unet.spatial import Content, SpatialTransformer
from gen1_jax.models.unet.temporal import Place, temporal_layer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockInputs:
    """What every block is told besides its activations.

    Attributes:
        time: (B, E), embedding of the timestep, float32.
        content: what cross-attention reads.
        still: which clips are seen frame by frame, see `Conditions.still`.
        alike: runs the layers of this evaluation.
    """

    time: Float[Array, "b e"]
    content: Content
    still: tuple[bool, ...] = dataclasses.field(metadata={"static": True})
    alike: Alike = dataclasses.field(default_factory=Alike, metadata={"static": True})


class ResnetBlock(nnx.Module):
    """Two convolutions, each followed by one over time, around the timestep's embedding."""

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int):
        groups = config.norm_num_groups
        self.norm1 = GroupNorm(groups, in_channels, epsilon=1e-5, silu=True)
        self.conv1 = Conv(in_channels, out_channels)
        self.temporal_conv1 = temporal_layer(config, out_channels, "resnet")
        self.time_emb_proj = Linear(4 * config.block_out_channels[0], out_channels)
        self.norm2 = GroupNorm(groups, out_channels, epsilon=1e-5, silu=True)
        self.conv2 = Conv(out_channels, out_channels)
        self.temporal_conv2 = temporal_layer(config, out_channels, "resnet")
        self.conv_shortcut = None if in_channels == out_channels else Conv(in_channels, out_channels, 1)

    def __call__(self, x: Video, given: BlockInputs) -> Float[Array, "b t h w d"]:
        x = by_frame(x)
        y = over_time(self.temporal_conv1, self.conv1(self.norm1(x)), given.still)
        y = y + self.time_emb_proj(jax.nn.silu(given.time).astype(y.dtype))[:, None, None, None]
        y = over_time(self.temporal_conv2, self.conv2(self.norm2(y)), given.still)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class SpaceTimeTransformer(nnx.Module):
    """A spatial transformer, then a temporal one."""

    def __init__(self, config: UNetConfig, channels: int, place: Place):
        self.spatial = SpatialTransformer(config, channels)
        self.temporal = temporal_layer(config, channels, place)

    def __call__(self, x: Video, given: BlockInputs) -> Video:
        return over_time(self.temporal, self.spatial(x, given.content), given.still)


class Level(nnx.Module):
    """Layers of one level: each a residual block, a transformer where the level attends, a motion module if any."""

    def __init__(self, config: UNetConfig, widths: list[int], channels: int, attend: bool):
        attending = len(widths) if attend else 0
        self.resnets = nnx.List([ResnetBlock(config, width, channels) for width in widths])
        self.attentions = nnx.List([SpaceTimeTransformer(config, channels, "attention") for _ in range(attending)])
        self.motions = nnx.List([temporal_layer(config, channels, "layer") for _ in widths])

    def layer(self, i: int, x: Video, given: BlockInputs) -> Float[Array, "b t h w d"]:
        """The i-th of them."""
        x = given.alike(self.resnets[i], x, given)
        x = given.alike(self.attentions[i], x, given) if self.attentions else x
        motion = self.motions[i]
        return over_time(None if motion is None else partial(given.alike, motion), x, given.still)


class DownBlock(Level):
    """A level on the way down. Returns its output and every activation that the way up concatenates."""

    def __init__(self, config: UNetConfig, in_channels: int, channels: int, attend: bool, *, downsample: bool):
        super().__init__(config, [in_channels] + [channels] * (config.layers_per_block - 1), channels, attend)
        self.downsample = Conv(channels, channels, stride=2, padding=1) if downsample else None

    def __call__(self, x: Video, given: BlockInputs) -> tuple[Float[Array, "b t i j d"], list[Array]]:
        outputs = self.layers(x, given)
        x = outputs[-1]
        if self.downsample is not None:
            x = self.downsample(x)
            outputs.append(x)
        return x, outputs

    def layers(self, x: Video, given: BlockInputs) -> list[Array]:
        """What each of its layers gives, before the level below."""
        outputs = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, given)
            outputs.append(x)
        return outputs


class MidBlock(nnx.Module):
    """The coarsest level: residual block, transformers, residual block."""

    def __init__(self, config: UNetConfig, channels: int):
        self.resnets = nnx.List([ResnetBlock(config, channels, channels) for _ in range(2)])
        self.attentions = nnx.List([SpaceTimeTransformer(config, channels, "mid")])

    def __call__(self, x: Video, given: BlockInputs) -> Video:
        x = given.alike(self.resnets[0], x, given)
        x = given.alike(self.attentions[0], x, given)
        return given.alike(self.resnets[1], x, given)


class UpBlock(Level):
    """A level on the way up; each residual block reads one skip connection. `upsample` is for the U-Net to apply."""

    def __init__(
        self, config: UNetConfig, in_channels: int, channels: int, skips: list[int], attend: bool, *, upsample: bool
    ):
        below = [in_channels] + [channels] * (len(skips) - 1)
        super().__init__(config, [w + skip for w, skip in zip(below, skips, strict=True)], channels, attend)
        self.upsample = Conv(channels, channels) if upsample else None

    def __call__(self, x: Video, skips: list[Array], given: BlockInputs) -> Float[Array, "b t h w d"]:
        for i, skip in enumerate(skips):
            x = self.layer(i, jnp.concatenate([x, skip], axis=-1), given)
        return x
