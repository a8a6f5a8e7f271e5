"""Scaled dot-product attention with an implementation per platform, and the attention layer of the networks."""

import contextlib
import contextvars

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from gen1_jax.models.layers import KERNEL, Linear

_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("attention_platform", default=None)


@contextlib.contextmanager
def attention_platform(platform: str):
    """Trace attention for "gpu", "tpu" or "cpu" instead of the default backend (to lower for absent hardware)."""
    token = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(token)


def _implementation(query: Array, key: Array) -> str:
    """cuDNN's fused kernel where it exists and pays; XLA's own fusion elsewhere. A TPU kernel would go here."""
    platform = _platform.get() or jax.default_backend()
    if platform != "gpu" or query.dtype not in (jnp.bfloat16, jnp.float16):
        return "xla"
    head_size, query_length, key_length = query.shape[-1], query.shape[1], key.shape[1]
    even = query_length % 2 == 0 and key_length % 2 == 0  # cuDNN has no gradient of odd lengths
    fused = even and head_size % 8 == 0 and head_size <= 256 and key_length > 64
    return "cudnn" if fused else "xla"  # over a handful of frames the batched product is faster


def attention(
    query: Float[Array, "b s heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    *,
    mask: Bool[Array, "#b #heads #s k"] | None = None,
    is_causal: bool = False,
) -> Float[Array, "b s heads d"]:
    """softmax(q kᵀ / sqrt(d)) v per head, softmax in float32. `mask` is True where a key may be seen."""
    if key.shape[1] == 1:  # one key has all the weight: content is usually a single token
        return jnp.broadcast_to(value, query.shape)
    implementation = _implementation(query, key) if mask is None else "xla"
    return jax.nn.dot_product_attention(
        query, key, value, mask=mask, is_causal=is_causal, implementation=implementation
    )


class Attention(nnx.Module):
    """Multi-head attention. Self-attention when no context is given.

    Args:
        features: width of the input and output.
        heads: number of heads; the inner width is heads * head_size.
        context_features: width of the context, `features` if None.
        head_size: width of a head, features / heads if None.
        bias: biases on the query, key and value projections (the output always has one).
        out_init: initialiser of the output projection.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        context_features: int | None = None,
        head_size: int | None = None,
        bias: bool = False,
        out_init=KERNEL,
    ):
        inner = heads * (head_size or features // heads)
        self.heads = heads
        self.to_q = Linear(features, inner, bias=bias)
        self.to_k = Linear(context_features or features, inner, bias=bias)
        self.to_v = Linear(context_features or features, inner, bias=bias)
        self.to_out = Linear(inner, features, init=out_init)

    def __call__(
        self,
        x: Float[Array, "b s c"],
        context: Float[Array, "b k e"] | None = None,
        *,
        mask: Bool[Array, "#b #heads #s k"] | None = None,
        is_causal: bool = False,
    ) -> Float[Array, "b s c"]:
        context = x if context is None else context
        query, key, value = (
            rearrange(y, "b s (heads d) -> b s heads d", heads=self.heads)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        out = attention(query, key, value, mask=mask, is_causal=is_causal)
        return self.to_out(rearrange(out, "b s heads d -> b s (heads d)"))
