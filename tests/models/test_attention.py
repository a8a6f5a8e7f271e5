from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core
from oracle import relative_error

from gen1_jax.models.attention import (
    AttentionDevice,
    attention,
    attention_platform,
    compute_capability,
    packed_attention,
)
from gen1_jax.models.flops import inner_jaxprs
from gen1_jax.models.tpu_attention import block_size, tpu_attention
from gen1_jax.pretrained.family import FULL

GPUS = dict(T4=7.5, A100=8.0, RTX3090=8.6, L4=8.9, H100=9.0, B200=10.0)


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


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("head_size", [40, 64, 80, 128, 160, 256])
@pytest.mark.parametrize("gpu", GPUS)
def test_cudnn_is_chosen_where_the_gpu_has_it(gpu, head_size, dtype):
    largest = {7: 0, 8: 128, 9: 256, 10: 256}[int(GPUS[gpu])]
    choose = partial(
        AttentionDevice(platform="gpu", compute_capability=GPUS[gpu]).implementation, dtype=dtype, head_size=head_size
    )
    fused = "cudnn" if head_size <= largest and dtype != jnp.float32 else "xla"
    assert choose(queries=1792, keys=1792) == choose(queries=112, keys=112) == fused
    few = "packed" if fused == "cudnn" else "xla"
    assert (
        choose(queries=8, keys=8, sequences=32) == choose(queries=64, keys=64, sequences=2) == few
    )  # frames of a clip
    assert (
        choose(queries=8, keys=8, sequences=24) == choose(queries=7, keys=7, sequences=128) == "xla"
    )  # do not fill it
    assert choose(queries=4, keys=4, sequences=32) == choose(queries=16, keys=8, sequences=32) == "xla"
    assert choose(queries=257, keys=257) == "xla"  # CLIP's patches and their class: cuDNN has no gradient of these


def test_other_devices_have_their_own_choices():
    choose = partial(AttentionDevice(platform="tpu").implementation, dtype=jnp.bfloat16)
    assert [choose(head_size=size, queries=1792, keys=1792) for size in (40, 160, 512)] == ["pallas", "pallas", "xla"]
    assert [choose(head_size=40, queries=n, keys=n) for n in (8, 112, 448)] == ["xla", "xla", "pallas"]
    float32 = dict(dtype=jnp.float32, head_size=40, queries=1792, keys=1792)
    assert AttentionDevice(platform="tpu").implementation(**float32) == "xla"
    assert AttentionDevice(platform="cpu").implementation(**float32 | dict(dtype=jnp.bfloat16)) == "xla"
    assert AttentionDevice.present() == AttentionDevice(platform="cpu")  # where tests run
    assert list(map(compute_capability, ("8.9", "12.0", "gfx942", None))) == [8.9, 12.0, 0.0, 0.0]


@pytest.mark.parametrize("keys", [8, 64])
def test_sequences_that_share_a_call_see_themselves_alone(keys):
    query, key, value = (np.random.default_rng(i).normal(size=(32, keys, 2, 8)) for i in range(3))
    arrays = [jnp.asarray(x, jnp.float32) for x in (query, key, value)]
    packed = jax.jit(partial(packed_attention, implementation="xla"))
    assert relative_error(packed(*arrays), by_hand(query, key, value)) < 1e-5
    slopes = lambda attend: jax.jit(jax.grad(lambda *x: jnp.sin(attend(*x)).sum(), (0, 1, 2)))(*arrays)
    for one, other in zip(slopes(packed), slopes(attention), strict=True):
        assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize("queries, masked, is_causal", [(12, False, False), (13, True, True)])
def test_chunks_of_queries_change_nothing(queries, masked, is_causal):
    arrays = heads(queries), heads(13, 1), heads(13, 2)
    mask = jnp.arange(13) % 5 != 3 if masked else None
    if masked:
        mask = jnp.broadcast_to(mask, (3, 1, 1, 13)) if is_causal else jnp.broadcast_to(mask, (1, 2, queries, 13))

    def run(scores_bytes):
        def loss(*arrays):
            out = attention(*arrays, mask=mask, is_causal=is_causal)
            return jnp.square(out).sum(), out

        with attention_platform("cpu", scores_bytes=scores_bytes):
            return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*arrays)

    whole, parts = run(None), run(4 * 3 * 2 * 5 * 13)  # five queries at once
    assert all(relative_error(a, b) < 1e-5 for a, b in zip(*map(jax.tree.leaves, (parts, whole)), strict=True))


def outputs(jaxpr: core.Jaxpr):
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for inner in inner_jaxprs(equation):
            yield from outputs(inner)


@pytest.mark.parametrize("gpu", ["T4", "A100", "L4"])
def test_full_size_layers_are_traced_for_gpus_that_are_not_there(gpu, monkeypatch):
    """Of the U-Net's attentions at 448x256, and their gradients: the heads of 160 stopped all but the H100."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, "check_compute_capability", lambda least: float(least) <= GPUS[gpu])
    monkeypatch.setattr(cudnn, "is_cuda_compute_capability_equal", lambda capability: False)
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    unet, limit = FULL.unet, 2**26
    for level, keys in enumerate((1792, 448, 112)):
        shape = (24, keys, unet.num_attention_heads, unet.block_out_channels[level] // unet.num_attention_heads)
        x = jax.ShapeDtypeStruct(shape, jnp.float16 if gpu == "T4" else jnp.bfloat16)
        loss = lambda *arrays: attention(*arrays).astype(jnp.float32).sum()
        with attention_platform("gpu", GPUS[gpu], scores_bytes=limit):
            jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(x, x, x).jaxpr
        scores = [4 * y.size for y in outputs(jaxpr) if y.ndim == 4 and y.shape[-1] == keys]
        assert max(scores, default=0) <= limit
        assert bool(scores) == (gpu == "T4" or level == 2)  # fused kernels write none
        frames = jax.ShapeDtypeStruct((8 * keys, 8, *shape[2:]), x.dtype)
        with attention_platform("gpu", GPUS[gpu]):
            jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(frames, frames, frames).jaxpr
        packed = [y for y in outputs(jaxpr) if y.shape[1:3] == (128, 8)]
        assert bool(packed) == (gpu != "T4" and level < 2)


@pytest.mark.parametrize("length, size", [(256, 256), (448, 512), (1792, 896), (1793, 1024), (4096, 1024), (577, 640)])
def test_blocks_of_the_tpu_kernel_are_few_and_equal(length, size):
    assert block_size(length) == size


@pytest.mark.parametrize("queries, keys", [(70, 150)])
def test_the_tpu_kernel_is_attention(queries, keys):
    arrays = [heads(n, seed, heads=1, size=8, dtype=jnp.bfloat16)[:1] for seed, n in enumerate((queries, keys, keys))]

    def run(function, arrays):
        def loss(*arrays):
            out = function(*arrays)
            return jnp.square(out.astype(jnp.float32)).sum(), out

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(*arrays)

    ours = run(partial(tpu_attention, interpret=True), arrays)
    exact = run(attention, [x.astype(jnp.float32) for x in arrays])
    for one, other in zip(*map(jax.tree.leaves, (ours, exact)), strict=True):
        assert relative_error(one.astype(jnp.float32), other) < 2e-2  # bfloat16's
