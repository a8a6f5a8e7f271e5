"""A picture as tokens of cross-attention, beside those of the text: the projections of IP-Adapters.

    base   embedding of the picture (b p) ─► linear ─► 4 tokens ─► norm
    plus   states of its patches (b n c) ─► 16 learnt queries that look at them, layer by layer ─► projection ─► norm
    full   states of its patches (b n c) ─► MLP of each ─► norm

"IP-Adapter", https://arxiv.org/abs/2308.06721; plus is a Perceiver resampler, https://arxiv.org/abs/2103.03206.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.errors import UserError
from gen1_jax.models.attention import attention
from gen1_jax.models.layers import EMBEDDING, Linear, parameter
from gen1_jax.models.module import Bound
from gen1_jax.models.norms import LayerNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTokensConfig:
    """Shape of an `ImageTokens`. The defaults are ip-adapter-plus_sd15's; its last four fields are for "plus" alone.

    Attributes:
        kind: "base" reads the embedding of a picture, "plus" and "full" the states of its patches.
        tokens: of a picture; as many as it reads for "full".
        embedding_dim: width of what it reads.
        cross_attention_dim: width of a token.
        width: of the queries.
        depth: layers.
        heads: of every attention.
        head_size: width of a head.
    """

    kind: Literal["base", "plus", "full"] = "plus"
    tokens: int = 16
    embedding_dim: int = 1280
    cross_attention_dim: int = 768
    width: int = 768
    depth: int = 4
    heads: int = 12
    head_size: int = 64

    @property
    def reads(self) -> Literal["embed", "states"]:
        """The method of `ImageEncoder` that gives what it reads."""
        return "embed" if self.kind == "base" else "states"


class Embedded(nnx.Module):
    """The tokens of "base": one product gives all of them."""

    def __init__(self, config: ImageTokensConfig):
        self.count = config.tokens
        self.proj = Linear(config.embedding_dim, config.tokens * config.cross_attention_dim)
        self.norm = LayerNorm(config.cross_attention_dim)

    def __call__(self, embedding: Float[Array, "b p"]) -> Float[Array, "b k d"]:
        return self.norm(rearrange(self.proj(embedding), "b (k d) -> b k d", k=self.count))


class Projected(nnx.Module):
    """The tokens of "full": each of the states through two layers."""

    def __init__(self, config: ImageTokensConfig):
        self.fc1 = Linear(config.embedding_dim, config.embedding_dim)
        self.fc2 = Linear(config.embedding_dim, config.cross_attention_dim)
        self.norm = LayerNorm(config.cross_attention_dim)

    def __call__(self, states: Float[Array, "b n c"]) -> Float[Array, "b n d"]:
        return self.norm(self.fc2(jax.nn.gelu(self.fc1(states), approximate=False)))


class ResamplerLayer(nnx.Module):
    """Queries that look at the states and at each other, then a feed-forward of theirs. No biases but of the norms."""

    def __init__(self, config: ImageTokensConfig):
        width, inner = config.width, config.heads * config.head_size
        self.heads = config.heads
        self.norm_states, self.norm_queries = LayerNorm(width), LayerNorm(width)
        self.to_q = Linear(width, inner, bias=False)
        self.to_kv = Linear(width, 2 * inner, bias=False)
        self.to_out = Linear(inner, width, bias=False)
        self.ff_norm = LayerNorm(width)
        self.fc1, self.fc2 = Linear(width, 4 * width, bias=False), Linear(4 * width, width, bias=False)

    def __call__(self, queries: Float[Array, "b k c"], states: Float[Array, "b n c"]) -> Float[Array, "b k c"]:
        normed = self.norm_queries(queries)
        keys, values = jnp.split(self.to_kv(jnp.concatenate([self.norm_states(states), normed], axis=1)), 2, axis=-1)
        by_head = lambda x: rearrange(x, "b s (heads d) -> b s heads d", heads=self.heads)
        seen = attention(by_head(self.to_q(normed)), by_head(keys), by_head(values))
        queries = queries + self.to_out(rearrange(seen, "b k heads d -> b k (heads d)"))
        return queries + self.fc2(jax.nn.gelu(self.fc1(self.ff_norm(queries)), approximate=False))


class Resampler(nnx.Module):
    """The tokens of "plus"."""

    def __init__(self, config: ImageTokensConfig):
        self.latents = parameter((1, config.tokens, config.width), EMBEDDING)
        self.proj_in = Linear(config.embedding_dim, config.width)
        self.layers = nnx.List([ResamplerLayer(config) for _ in range(config.depth)])
        self.proj_out = Linear(config.width, config.cross_attention_dim)
        self.norm_out = LayerNorm(config.cross_attention_dim)

    def __call__(self, states: Float[Array, "b n c"]) -> Float[Array, "b k d"]:
        x = self.proj_in(states)
        queries = jnp.broadcast_to(self.latents[...].astype(x.dtype), (len(x), *self.latents.shape[1:]))
        for layer in self.layers:
            queries = layer(queries, x)
        return self.norm_out(self.proj_out(queries))


_PROJECTIONS = {"base": Embedded, "plus": Resampler, "full": Projected}


class ImageTokens(nnx.Module):
    """What an image encoder gives of pictures, as tokens that a U-Net reads.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
    """

    def __init__(self, config: ImageTokensConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.projection = _PROJECTIONS[config.kind](config)

    def __call__(self, features: Float[Array, "b p"] | Float[Array, "b n c"]) -> Float[Array, "b k d"]:
        """The tokens of each picture, float32.

        Args:
            features: what the method `config.reads` of the encoder gives.

        Raises:
            ValueError: features of another width or number than `config` says.
        """
        config, expected = self.config, 2 if self.config.kind == "base" else 3
        if features.ndim != expected or features.shape[-1] != config.embedding_dim:
            raise UserError(f"features of a picture are {features.shape}, not {config.embedding_dim} wide")
        if config.kind == "full" and features.shape[1] != config.tokens:
            raise UserError(f"{features.shape[1]} states of a picture, but {config.tokens} tokens")
        return self.projection(features.astype(self.dtype)).astype(jnp.float32)


def picture_tokens(encoder: Bound, tokens: Bound, pixels: Float[Array, "pictures s s 3"]) -> Float[Array, "1 m d"]:
    """The m tokens of one or several pictures that are to be followed together, one picture after the other.

    Args:
        encoder: an `ImageEncoder`.
        tokens: an `ImageTokens`.
        pixels: from the encoder's `preprocess`.
    """
    features = getattr(encoder, tokens.config.reads)(pixels)
    return rearrange(tokens(features), "pictures k d -> 1 (pictures k) d")


def null_tokens(encoder: Bound, tokens: Bound, pictures: int = 1) -> Float[Array, "1 m d"]:
    """The tokens that say nothing, as many as `picture_tokens` gives for so many pictures.

    They are not zero: those of an embedding of zeros ("base"), or of a picture whose preprocessed pixels are zeros, the
    mean colour. This is how IP-Adapters are used, see their authors' pipelines and diffusers'.
    """
    if tokens.config.kind == "base":
        features = jnp.zeros((1, tokens.config.embedding_dim))
    else:
        size = encoder.config.image_size
        features = encoder.states(jnp.zeros((1, size, size, 3)))
    return jnp.tile(tokens(features), (1, pictures, 1))
