"""A learned split of a clip: a code of few bits for each frame, its structure, and one token for all, its content.

    latents of a frame ─► tower ─► g x g ─► N groups of b bits each ─► back to their size ─► maps   (structure)
    latents of all frames ─► tower ─► a few queries that look at them ─► one token                   (content)

The maps take the place of encoded depth, the token that of CLIP's embedding. What the two may share is bounded by the
code alone: g² N b bits a frame. After "Bitrate-Controlled Diffusion" (https://arxiv.org/abs/2509.08376), which learns
its codebooks; here they are the corners of a grid, finite scalar quantisation (https://arxiv.org/abs/2309.15505): as
good, the paper says, and there is no codebook that could collapse, no entry to restart and no loss of commitment.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from gen1_jax.errors import UserError
from gen1_jax.models.attention import Attention
from gen1_jax.models.layers import EMBEDDING, Conv, Linear, parameter
from gen1_jax.models.norms import GroupNorm, LayerNorm
from gen1_jax.models.partition import by_frame, fold, unfold
from gen1_jax.models.vae import Pictures, ResnetBlock

MOST_BITS = 12
"""Of a group: entries in use are counted, and a code that needs more is better in more groups."""

_BITS_OF_A_NUMBER = 3  # 8 steps at most, as in the paper's codes of 2^8 entries: 8, 6 and 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shape of a `Split`.

    Attributes:
        grid: g, cells of the code along each side of a frame, whatever its shape.
        groups: N, of each cell.
        bits: b, of each group: its codebook has 2^b entries.
        latent_channels: of the autoencoder; maps have as many.
        cross_attention_dim: width of the token of content.
        width: channels of both towers.
        layers: residual blocks before the code and after it, and before the content.
        queries: that look at all frames.
        heads: of their attention.
        norm_num_groups: of the group norms.
    """

    grid: int = 8
    groups: int = 1
    bits: int = 8
    latent_channels: int = 4
    cross_attention_dim: int = 768
    width: int = 96
    layers: int = 2
    queries: int = 4
    heads: int = 4
    norm_num_groups: int = 8

    def __post_init__(self):
        for name in ("grid", "groups", "bits", "width", "layers", "queries", "heads", "norm_num_groups"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"split.{name} is {value}, not at least 1")
        if self.bits > MOST_BITS:
            raise UserError(f"split.bits is {self.bits}, more than {MOST_BITS}: take more groups (split.groups)")
        for name in ("heads", "norm_num_groups"):
            if self.width % (value := getattr(self, name)):
                raise UserError(f"split.width is {self.width}, not a multiple of split.{name}, {value}")

    @property
    def bits_per_frame(self) -> int:
        """What a code can tell of a frame: g² N b."""
        return self.grid**2 * self.groups * self.bits

    @property
    def levels(self) -> tuple[int, ...]:
        """Into how many steps each number of a group is rounded; their product is 2^b."""
        numbers = -(-self.bits // _BITS_OF_A_NUMBER)
        each, more = divmod(self.bits, numbers)
        return tuple(2 ** (each + (number < more)) for number in range(numbers))


class Code(NamedTuple):
    """What a split keeps of the structure of clips.

    Attributes:
        maps: as the denoiser takes them, float32.
        entries: of each cell and group, 0 to 2^b - 1: all that the maps are made of.
    """

    maps: Float[Array, "b t h w c"]
    entries: Int[Array, "b t g g n"]


class Split(nnx.Module):
    """Structure and content of clips by their latents alone.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms, softmax and rounding use float32.
    """

    def __init__(self, config: SplitConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        channels, numbers = config.latent_channels, config.groups * len(config.levels)
        self.structure_tower = Tower(channels, config)
        self.to_code = Linear(config.width, numbers)
        self.from_code = Tower(numbers, config)
        self.to_maps = Conv(config.width, channels)
        self.content_tower = Tower(channels, config)
        self.pooling = Pooling(config)

    def encode(self, latents: Float[Array, "b t h w c"]) -> Code:
        """The structure of each frame by itself.

        Args:
            latents: clean, as the denoiser's.
        """
        config, pictures = self.config, fold(by_frame(latents.astype(self.dtype)))
        cells = _resized(self.structure_tower(pictures), (config.grid, config.grid))
        numbers = rearrange(self.to_code(cells), "n i j (g d) -> n i j g d", g=config.groups)
        rounded = round_to_levels(numbers, config.levels)
        code = rearrange(rounded, "n i j g d -> n i j (g d)").astype(self.dtype)
        maps = self.to_maps(self.from_code(_resized(code, pictures.shape[1:3])))
        maps, entries = (unfold(x, len(latents)) for x in (maps, entries_of(rounded, config.levels)))
        return Code(maps.astype(jnp.float32), entries)

    def content(
        self, latents: Float[Array, "b t h w c"], seen: Bool[Array, "b t"] | None = None
    ) -> Float[Array, "b 1 d"]:
        """What all frames of a clip look like together, float32.

        Args:
            latents: clean; t = 1 is a picture.
            seen: which frames are looked at, at least one of each clip; None for all.
        """
        features = unfold(self.content_tower(fold(by_frame(latents.astype(self.dtype)))), len(latents))
        count = features.shape[2] * features.shape[3]
        mask = None if seen is None else jnp.repeat(seen, count, axis=1)[:, None, None]
        return self.pooling(rearrange(features, "b t h w c -> b (t h w) c"), mask).astype(jnp.float32)


class Tower(nnx.Module):
    """Features of pictures, of their size."""

    def __init__(self, channels: int, config: SplitConfig):
        width, groups = config.width, config.norm_num_groups
        self.conv_in = Conv(channels, width)
        self.blocks = nnx.List([ResnetBlock(width, width, groups) for _ in range(config.layers)])
        self.norm_out = GroupNorm(groups, width, epsilon=1e-6, silu=True)

    def __call__(self, x: Pictures) -> Float[Array, "n h w d"]:
        x = self.conv_in(x)
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x)


class Pooling(nnx.Module):
    """One token of many features, by queries that look at them; of unit variance, so that zeros say nothing."""

    def __init__(self, config: SplitConfig):
        self.queries = parameter((config.queries, config.width), EMBEDDING)
        self.attention = Attention(config.width, config.heads)
        self.proj = Linear(config.queries * config.width, config.cross_attention_dim)
        self.norm = LayerNorm(config.cross_attention_dim)

    def __call__(
        self, features: Float[Array, "b s c"], mask: Bool[Array, "b 1 1 s"] | None = None
    ) -> Float[Array, "b 1 d"]:
        queries = jnp.broadcast_to(self.queries[...].astype(features.dtype), (len(features), *self.queries.shape))
        seen = self.attention(queries, features, mask=mask)
        return self.norm(self.proj(rearrange(seen, "b q c -> b 1 (q c)")))


def round_to_levels(numbers: Float[Array, "*batch d"], levels: Sequence[int]) -> Float[Array, "*batch d"]:
    """Finite scalar quantisation: each number to one of so many steps, gradients as if it was bounded alone.

    Args:
        numbers: of any size; tanh bounds them.
        levels: of each, even.

    Returns:
        float32, the middles of equal parts of -1 to 1. Source: https://arxiv.org/abs/2309.15505, section 3.1, whose
        steps for even levels lie half a step lower: there two levels have next to no gradient at 0.
    """
    half = np.asarray(levels) // 2
    bounded = jnp.tanh(numbers.astype(jnp.float32)) * half
    steps = jnp.clip(jnp.floor(bounded), -half, half - 1) + 0.5
    return (bounded + jax.lax.stop_gradient(steps - bounded)) / half


def entries_of(rounded: Float[Array, "*batch d"], levels: Sequence[int]) -> Int[Array, "*batch"]:
    """Which entry of the codebook rounded numbers are, 0 to the product of the levels - 1."""
    half = np.asarray(levels) // 2
    steps = jnp.floor(rounded * half).astype(jnp.int32) + half
    return (steps * np.cumprod([1, *levels[:-1]])).sum(-1)


def _resized(pictures: Pictures, size: tuple[int, int]) -> Float[Array, "n i j c"]:
    """Bilinear; antialiased where it shrinks."""
    return jax.image.resize(pictures, (len(pictures), *size, pictures.shape[-1]), "linear")
