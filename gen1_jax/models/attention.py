"""Scaled dot-product attention, by what the device can do, and the attention layer of the networks.

GPU from compute capability 8.0 on   cuDNN's fused kernel   ┐ scores are never written; short sequences share a call
TPU                                  a Pallas kernel        ┘
anything else                        XLA, in chunks of queries where the scores would be large
"""

import contextlib
import contextvars
import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from gen1_jax.models.layers import KERNEL, ZEROS, Linear
from gen1_jax.models.partition import per_shard, shards
from gen1_jax.models.tpu_attention import tpu_attention

CUDNN_HEAD_SIZES = ((9.0, 256), (8.0, 128))
"""From which compute capability on cuDNN has fused attention in half precision, and up to which head size: 9.0 is
Hopper (H100, H200), 8.x are Ampere and Ada (A100, A10, RTX 30, RTX 40, L4). Turing, 7.5 (T4), has none.
Source: jax/_src/cudnn/fused_attention_stablehlo.py, `check_is_flash_attention`."""

CUDNN_KEYS = 65
"""Over fewer keys the batched product is faster on an H100."""

PACKED_KEYS, PACKED_LENGTH = 8, 128
"""Sequences of so many keys or more, such as the frames of a clip, are put one after the other into one of this length,
in which each sees itself alone. On an H200 8 frames take 0.53 to 0.62 of the batched product's time so, and their
gradients 0.83 to 0.98 of it; fewer have not been timed."""

TPU_HEAD_SIZE, TPU_KEYS = 256, 256
"""Largest head size and smallest number of keys of the Pallas kernel. Compiled for a v5e, forward and backward of the
U-Net's attentions at 448x256 move 21 times fewer bytes with it at 1792 keys and 16 times fewer at 448."""

SCORES_BYTES = 512 * 2**20
"""Float32 scores that one device may hold at once where they are written; more of them are computed in chunks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionDevice:
    """What attention is traced for.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        compute_capability: of an NVIDIA GPU, as 8.6; 0 for anything else.
        scores_bytes: `SCORES_BYTES`; None for no chunks, however large.
    """

    platform: str
    compute_capability: float = 0.0
    scores_bytes: int | None = SCORES_BYTES

    @classmethod
    def present(cls) -> "AttentionDevice":
        """The default device."""
        said = getattr(jax.devices()[0], "compute_capability", None)
        return cls(platform=jax.default_backend(), compute_capability=compute_capability(said))

    def implementation(
        self, *, dtype: DTypeLike, head_size: int, queries: int, keys: int, sequences: int = 1
    ) -> Literal["cudnn", "packed", "pallas", "xla"]:
        """What computes attention without a mask, of so many sequences on a device."""
        half = dtype in (jnp.bfloat16, jnp.float16)
        if self.platform == "gpu" and half:
            largest = next((size for since, size in CUDNN_HEAD_SIZES if self.compute_capability >= since), 0)
            fused = head_size % 8 == 0 and head_size <= largest
            if fused and keys >= CUDNN_KEYS and queries % 2 == 0:  # no gradient of odd lengths; keys are filled up
                return "cudnn"
            even = PACKED_LENGTH % keys == 0 and sequences % (PACKED_LENGTH // keys) == 0
            if fused and queries == keys >= PACKED_KEYS and even:
                return "packed"
        flash = self.platform == "tpu" and dtype == jnp.bfloat16 and head_size % 8 == 0
        if flash and head_size <= TPU_HEAD_SIZE and keys >= TPU_KEYS:
            return "pallas"
        return "xla"


def compute_capability(text: str | None) -> float:
    """What a device says of itself as a number, such as 8.6; 0 where it is no NVIDIA GPU (AMD's say "gfx942")."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


_device: contextvars.ContextVar[AttentionDevice | None] = contextvars.ContextVar("attention_device", default=None)


@contextlib.contextmanager
def attention_platform(platform: str, compute_capability: float = 0.0, *, scores_bytes: int | None = SCORES_BYTES):
    """Trace attention for a device that need not be there; the arguments are `AttentionDevice`'s."""
    device = AttentionDevice(platform=platform, compute_capability=compute_capability, scores_bytes=scores_bytes)
    token = _device.set(device)
    try:
        yield
    finally:
        _device.reset(token)


def attention(
    query: Float[Array, "b s heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    *,
    mask: Bool[Array, "#b #heads #s k"] | None = None,
    is_causal: bool = False,
) -> Float[Array, "b s heads d"]:
    """softmax(q kᵀ / sqrt(d)) v per head, scores and softmax in float32. `mask` is True where a key may be seen."""
    batch, queries, heads, head_size = query.shape
    keys = key.shape[1]
    if keys == 1:  # one key has all the weight: content is usually a single token
        return jnp.broadcast_to(value, query.shape)
    device = _device.get() or AttentionDevice.present()
    if mask is None and not is_causal:
        sizes = dict(head_size=head_size, queries=queries, keys=keys, sequences=batch // shards(batch))
        implementation = device.implementation(dtype=query.dtype, **sizes)
        if implementation == "pallas":
            return per_shard(tpu_attention, query, key, value)
        if implementation == "cudnn":
            return _cudnn(query, key, value)
        if implementation == "packed":
            return per_shard(packed_attention, query, key, value)
    scores_bytes = 4 * heads * queries * keys * batch // shards(batch)
    if device.scores_bytes is not None and scores_bytes > device.scores_bytes:
        chunks = min(queries, math.ceil(scores_bytes / device.scores_bytes))
        return _in_chunks(query, key, value, mask, is_causal, chunks)
    return _written(query, key, value, mask, is_causal)


def _cudnn(query: Array, key: Array, value: Array) -> Array:
    """cuDNN's fused attention. An odd number of keys, such as a text's 77, is filled up by one that none sees."""
    batch, keys = key.shape[:2]
    if keys % 2 == 0:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (key, value))
    seen = jnp.full(batch, keys, jnp.int32)
    return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=seen, implementation="cudnn")


def packed_attention(
    query: Float[Array, "n s heads d"],
    key: Float[Array, "n s heads d"],
    value: Float[Array, "n s heads d"],
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "n s heads d"]:
    """Attention of short sequences, as many at once as `PACKED_LENGTH` holds; they and s must divide it and n."""
    length = query.shape[1]
    packed = (x.reshape(-1, PACKED_LENGTH, *x.shape[2:]) for x in (query, key, value))
    of = jnp.arange(PACKED_LENGTH) // length
    itself = (of[:, None] == of)[None, None]
    out = jax.nn.dot_product_attention(*packed, mask=itself, implementation=implementation)
    return out.reshape(query.shape)


def _written(query: Array, key: Array, value: Array, mask: Array | None, is_causal: bool = False) -> Array:
    """Attention whose scores are written. Only GPUs have float16 products that are summed in float32."""
    dtype, device = query.dtype, _device.get() or AttentionDevice.present()
    if dtype == jnp.float16 and device.platform != "gpu":
        query, key, value = (x.astype(jnp.float32) for x in (query, key, value))
    out = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=is_causal, implementation="xla")
    return out.astype(dtype)


def _in_chunks(query: Array, key: Array, value: Array, mask: Array | None, is_causal: bool, chunks: int) -> Array:
    """Attention of one chunk of queries after the other; the backward pass computes the scores of each again."""
    queries, keys = query.shape[1], key.shape[1]
    size = math.ceil(queries / chunks)
    chunks = math.ceil(queries / size)
    missing = chunks * size - queries  # queries of zeros at the end, whose answers are dropped

    @jax.checkpoint
    def one(chunk):
        first, query, mask = chunk
        if is_causal:
            seen = first + jnp.arange(size)[:, None] >= jnp.arange(keys)
            mask = seen if mask is None else mask & seen
        return _written(query, key, value, mask)

    query = jnp.pad(query, ((0, 0), (0, missing), (0, 0), (0, 0)))
    query = rearrange(query, "b (chunks s) heads d -> chunks b s heads d", chunks=chunks)
    if mask is not None:
        rows = jnp.broadcast_to(mask, (*mask.shape[:2], queries, keys))
        rows = jnp.pad(rows, ((0, 0), (0, 0), (0, missing), (0, 0)), constant_values=True)
        mask = rearrange(rows, "b heads (chunks s) k -> chunks b heads s k", chunks=chunks)
    out = jax.lax.map(one, (size * jnp.arange(chunks), query, mask))
    return rearrange(out, "chunks b s heads d -> b (chunks s) heads d")[:, :queries]


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
        return self.output(attention(*self.projected(x, context), mask=mask, is_causal=is_causal))

    def projected(
        self, x: Float[Array, "b s c"], context: Float[Array, "b k e"] | None = None
    ) -> tuple[Float[Array, "b s heads d"], Float[Array, "b k heads d"], Float[Array, "b k heads d"]]:
        """Queries of x, keys and values of the context, or of x if there is none."""
        context = x if context is None else context
        return self._heads(self.to_q(x)), self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def output(self, attended: Float[Array, "b s heads d"]) -> Float[Array, "b s c"]:
        """What the layer makes of what its heads have seen."""
        return self.to_out(rearrange(attended, "b s heads d -> b s (heads d)"))

    def _heads(self, x: Float[Array, "b s c"]) -> Float[Array, "b s heads d"]:
        return rearrange(x, "b s (heads d) -> b s heads d", heads=self.heads)


class AdaptedAttention(Attention):
    """Attention to a context and, by keys and values of its own, to a picture (https://arxiv.org/abs/2308.06721).

    Two softmaxes whose results are added, the picture's times its weight; without a picture `Attention`.

    Args:
        features: see `Attention`.
        heads: see `Attention`.
        context_features: width of the context, and of a token of the picture.
    """

    def __init__(self, features: int, heads: int, *, context_features: int):
        super().__init__(features, heads, context_features=context_features)
        self.to_k_image = Linear(context_features, features, bias=False)
        self.to_v_image = Linear(context_features, features, bias=False, init=ZEROS)

    def __call__(
        self,
        x: Float[Array, "b s c"],
        context: Float[Array, "b k e"],
        *,
        image: Float[Array, "b m e"] | None = None,
        weight: Float[Array, " b"] | None = None,
    ) -> Float[Array, "b s c"]:
        if image is None:
            return super().__call__(x, context)
        query, key, value = self.projected(x, context)
        seen = attention(query, *map(self._heads, (self.to_k_image(image), self.to_v_image(image))))
        return self.output(attention(query, key, value) + weight.astype(seen.dtype)[:, None, None, None] * seen)
