"""Layers within a frame, which images and videos share. They see (b t) pictures."""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.attention import Attention
from gen1_jax.models.layers import FeedForward, GroupNorm, LayerNorm, Linear
from gen1_jax.models.partition import fold, unfold
from gen1_jax.models.unet.config import UNetConfig


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

    def __init__(self, config: UNetConfig, channels: int):
        self.norm = GroupNorm(config.norm_num_groups, channels, epsilon=1e-6)
        self.proj_in = Linear(channels, channels)
        self.block = TransformerBlock(channels, config.num_attention_heads, config.cross_attention_dim)
        self.proj_out = Linear(channels, channels)

    def __call__(self, x: Float[Array, "b t h w c"], content: Float[Array, "b n d"]) -> Float[Array, "b t h w c"]:
        batch, frames, height, width, _ = x.shape
        y = rearrange(self.proj_in(self.norm(x)), "b t h w c -> b t (h w) c")
        content = jnp.broadcast_to(content[:, None], (batch, frames, *content.shape[1:]))
        y = unfold(self.block(fold(y), fold(content)), batch)
        y = rearrange(y, "b t (h w) c -> b t h w c", h=height, w=width)
        return x + self.proj_out(y)
