"""Flash attention on TPUs: jax's own Pallas kernel "splash attention", fitted to any length and to small heads.

The kernel keeps blocks of scores on chip, so that HBM sees queries, keys, values and results alone
(https://arxiv.org/abs/2205.14135). Sequences lie along the lanes ("SEQ_MINOR"): of heads of 40 or 80 features the
lanes would otherwise be padded to 128.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LANES = 128
_LARGEST_BLOCK = 1024
"""Queries, and keys, of a block. Fewer blocks move fewer bytes; scores of 1024 by 1024 fit on a v5e's chip."""


def block_size(length: int) -> int:
    """The size of the blocks of a sequence: a multiple of 128, blocks as equal as that allows."""
    blocks = math.ceil(length / _LARGEST_BLOCK)
    return _LANES * math.ceil(length / blocks / _LANES)


def tpu_attention(
    query: Float[Array, "b s heads d"],
    key: Float[Array, "b k heads d"],
    value: Float[Array, "b k heads d"],
    *,
    interpret: bool = False,
) -> Float[Array, "b s heads d"]:
    """softmax(q kᵀ / sqrt(d)) v per head, of arrays that lie on one device.

    Args:
        query: bfloat16; s and k may differ, and need not be multiples of anything.
        key: as query.
        value: as query.
        interpret: run the kernel's Python on any device, slowly, for tests.
    """
    # imported here, for it takes a second, and other devices have no use for it
    from jax.experimental.pallas.ops.tpu import splash_attention as splash
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import QKVLayout

    queries, keys, heads = query.shape[1], key.shape[1], query.shape[2]
    block_q, block_k = block_size(queries), block_size(keys)
    padded_queries, padded_keys = (block * math.ceil(n / block) for n, block in ((queries, block_q), (keys, block_k)))

    def fitted(x, length):
        return jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, length - x.shape[1]), (0, 0)))

    segments = None
    if padded_keys > keys:  # keys of the padding are a segment of their own, which no query of ours sees
        ours = lambda length, n: (jnp.arange(length) >= n).astype(jnp.int32)
        segments = splash.SegmentIds(ours(padded_queries, queries), ours(padded_keys, keys))
    layout = QKVLayout.SEQ_MINOR
    kernel = splash.make_splash_mha_single_device(
        splash.MultiHeadMask([splash.FullMask((padded_queries, padded_keys))] * heads),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_k,
            block_kv_compute=block_k,
            block_q_dkv=block_q,
            block_kv_dkv=block_k,
            block_kv_dkv_compute=block_k,
            use_fused_bwd_kernel=True,
            q_layout=layout,
            k_layout=layout,
            v_layout=layout,
        ),
        interpret=interpret,
    )
    query = query * query.shape[-1] ** -0.5  # the kernel does not scale
    out = jax.vmap(lambda *heads: kernel(*heads, segment_ids=segments))(
        fitted(query, padded_queries), fitted(key, padded_keys), fitted(value, padded_keys)
    )
    return out[:, :, :queries].swapaxes(1, 2)
