"""Layers within a frame, which images and videos share. They see (b t) pictures."""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.attended import attending
from gen1_jax.models.attention import AdaptedAttention, Attention
from gen1_jax.models.layers import FeedForward, Linear
from gen1_jax.models.norms import GroupNorm, LayerNorm
from gen1_jax.models.partition import fold, unfold
from gen1_jax.models.unet.config import UNetConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What cross-attention reads, in the dtype of the computation.

    Attributes:
        tokens: (B, N, D), of the model's main kind.
        image: (B, M, D), of a picture beside them, for models with an adapter; or None.
        weight: (B,), how much the picture counts; None without one.
    """

    tokens: Float[Array, "b n d"]
    image: Float[Array, "b m d"] | None = None
    weight: Float[Array, " b"] | None = None


def _plain(layer: Attention, *seen: Array, **picture: Array) -> Array:
    return layer(*seen, **picture)


class TransformerBlock(nnx.Module):
    """Self-attention, attention to a context (or to itself again), feed-forward; each a pre-norm residual.

    Args:
        features: width of the input and output.
        heads: of both attentions.
        context_features: width of the context; None for none.
        adapter: whether the second attention reads a picture, too, see `AdaptedAttention`.
    """

    def __init__(self, features: int, heads: int, context_features: int | None = None, *, adapter: bool = False):
        self.norm1, self.attn1 = LayerNorm(features), Attention(features, heads)
        self.norm2 = LayerNorm(features)
        second = AdaptedAttention if adapter else Attention
        self.attn2 = second(features, heads, context_features=context_features)
        self.norm3, self.ff = LayerNorm(features), FeedForward(features)

    def __call__(
        self,
        x: Float[Array, "b s c"],
        *context: Float[Array, "b n d"],
        positions: Float[Array, "s c"] | None = None,
        first: Callable[..., Float[Array, "b s c"]] = _plain,
        second: Callable[..., Float[Array, "b s c"]] = _plain,
        **picture: Array,
    ) -> Float[Array, "b s c"]:
        """The output.

        Args:
            x: positions, or frames.
            context: of the second attention.
            positions: added to what both attentions look at.
            first: how the first attention is computed: of the layer and what it looks at.
            second: how the second one is, of the context, too.
            picture: for an `AdaptedAttention`.
        """
        at = (lambda y: y) if positions is None else (lambda y: y + positions.astype(y.dtype))
        x = x + first(self.attn1, at(self.norm1(x)))
        x = x + second(self.attn2, at(self.norm2(x)), *context, **picture)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nnx.Module):
    """Attention among the positions of each frame, and from each position to the content."""

    def __init__(self, config: UNetConfig, channels: int):
        self.norm = GroupNorm(config.norm_num_groups, channels, epsilon=1e-6)
        self.proj_in = Linear(channels, channels)
        self.block = TransformerBlock(
            channels, config.num_attention_heads, config.cross_attention_dim, adapter=config.image_adapter
        )
        self.proj_out = Linear(channels, channels)

    def __call__(self, x: Float[Array, "b t h w c"], content: Content) -> Float[Array, "b t h w c"]:
        batch, frames, height, width, _ = x.shape
        y = rearrange(self.proj_in(self.norm(x)), "b t h w c -> b t (h w) c")
        a_frame = lambda told: fold(jnp.broadcast_to(told[:, None], (batch, frames, *told.shape[1:])))
        picture = {} if content.image is None else {"image": a_frame(content.image), "weight": a_frame(content.weight)}
        how = attending()
        ways = {} if how is None else {"first": how.to_positions, "second": how.to_content}
        ways = {name: partial(way, clips=batch) for name, way in ways.items()}
        y = unfold(self.block(fold(y), a_frame(content.tokens), **ways, **picture), batch)
        y = rearrange(y, "b t (h w) c -> b t h w c", h=height, w=width)
        return x + self.proj_out(y)
