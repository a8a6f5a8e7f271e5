import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax.models.attention import _implementation, attention, attention_platform


def heads(length, seed=0, heads=2, size=8, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), (3, length, heads, size), dtype)


def by_hand(query, key, value, visible=True):
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(np.where(visible, scores, -np.inf) - scores.max())
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("keys", [1, 7])
def test_attention_is_softmax_of_scaled_products(keys):
    query, key, value = heads(5), heads(keys, 1), heads(keys, 2)
    assert relative_error(attention(query, key, value), by_hand(query, key, value)) < 1e-5


def test_masks_hide_keys():
    query, key, value = heads(6), heads(6, 1), heads(6, 2)
    causal = np.tril(np.ones((6, 6), bool))
    assert relative_error(attention(query, key, value, is_causal=True), by_hand(query, key, value, causal)) < 1e-5
    mask = np.arange(6) < 4
    masked = attention(query, key, value, mask=jnp.broadcast_to(mask, (1, 1, 6, 6)))
    assert relative_error(masked, by_hand(query, key, value, mask)) < 1e-5


def test_each_platform_has_its_implementation():
    long, short, wide = (heads(n, dtype=jnp.bfloat16, size=size) for n, size in ((128, 64), (8, 64), (128, 512)))
    assert _implementation(long, long) == "xla"  # tests run on the CPU
    with attention_platform("gpu"):
        assert _implementation(long, long) == "cudnn"
        assert _implementation(short, short) == "xla"  # frames of a clip
        assert _implementation(wide, wide) == "xla"  # the autoencoder's single head
        odd = heads(65, dtype=jnp.bfloat16, size=64)
        assert _implementation(odd, odd) == "xla"  # CLIP's patches and their class: cuDNN has no gradient of these
        assert _implementation(heads(128), heads(128)) == "xla"  # float32
    with attention_platform("tpu"):
        assert _implementation(long, long) == "xla"
