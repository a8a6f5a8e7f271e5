"""Kernels of eight bits: how far they are from what they were, and that layers compute with what they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen1_jax.models.depth_layers import PatchUpsample
from gen1_jax.models.layers import Conv, Linear
from gen1_jax.models.module import Bound, initialise
from gen1_jax.models.quantized import LARGEST, Quantized, is_quantizable, quantise, widened


@given(st.integers(0, 2**32 - 1), st.integers(-30, 30), st.sampled_from([(7, 5), (3, 3, 4, 6), (1, 1)]))
@settings(max_examples=50, deadline=None)
def test_every_weight_is_within_half_a_step(seed, exponent, shape):
    rng = np.random.default_rng(seed)
    kernel = (rng.standard_normal(shape) * 2.0**exponent * rng.lognormal(0, 3, shape[-1])).astype(np.float32)
    held = quantise(kernel)
    assert held.values.dtype == np.int8 and held.scale.dtype == np.float32 and held.scale.shape == shape[-1:]
    assert np.abs(held.values.astype(int)).max() == LARGEST
    error = np.abs(held.weights().astype(np.float64) - kernel)
    rounding = 2 * LARGEST * np.finfo(np.float32).eps  # of a float32 quotient and a product, in steps
    assert (error <= (0.5 + rounding) * held.scale).all()
    again = quantise(held.weights())
    np.testing.assert_array_equal(again.values, held.values)


@pytest.mark.parametrize("size", [0.0, 1e-44, 3e38])
def test_channels_of_zeros_and_of_extremes(size):
    kernel = np.array([[0, size], [0, -size], [0, size / 4]], np.float32)
    held = quantise(kernel)
    assert (held.scale > 0).all() and np.isfinite(held.scale).all()
    assert (np.abs(held.weights() - kernel) <= held.scale * 0.51).all()


def test_which_parameters_are_held_in_eight_bits():
    for path in ("down_blocks.0.resnets.0.conv1.kernel", "layers.0.attention.to_q.kernel", "reassemble.0.conv.kernel"):
        assert is_quantizable(path, (3, 4))
    for path in ("norm.scale", "to_q.bias", "token_embedding.embedding", "clip_mean", "conv_in.kernel"):
        assert not is_quantizable(path, (3, 4))
    for path in ("decoder.conv_out.kernel", "time_embedding.linear_1.kernel", "head.conv1.kernel"):
        assert not is_quantizable(path, (3, 4))
    assert not is_quantizable("some.kernel", (3,))


LAYERS = {
    "matrix": (Linear(6, 8), "__call__", (2, 5, 6)),
    "halves": (Linear(6, 8), "halves", (2, 6)),
    "convolution": (Conv(6, 8), "__call__", (2, 4, 4, 6)),
    "upsampling": (PatchUpsample(6, 2), "__call__", (1, 3, 3, 6)),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_with_what_the_numbers_stand_for(name, dtype):
    layer, method, shape = LAYERS[name]
    layer.config = None
    params = initialise(layer, 0) | {"kernel": quantise(initialise(layer, 0)["kernel"])}
    x = jax.random.normal(jax.random.key(0), shape).astype(dtype)
    run = lambda weights: jax.jit(lambda p: Bound(layer, p).apply(p, x, method=method))(weights)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
                 run(params), run(widened(params)))  # fmt: skip
    assert {leaf.dtype for leaf in jax.tree.leaves(run(params))} == {jnp.dtype(dtype)}


def test_a_loop_carries_the_narrow_kernel():
    """Else XLA widens it in front of the loop, and both are in memory as long as it runs."""
    layer = Linear(64, 64)
    layer.config = None
    params = initialise(layer, 0) | {"kernel": quantise(initialise(layer, 0)["kernel"])}
    bound = Bound(layer, params)
    run = jax.jit(lambda params, x, n: jax.lax.fori_loop(0, n, lambda i, x: jnp.tanh(bound.apply(params, x)), x))
    text = run.lower(params, jnp.ones((2, 64)), 3).compile().as_text()
    loops = [line for line in text.splitlines() if " while(" in line]
    assert loops and all("s8[64,64]" in line and "f32[64,64]" not in line for line in loops)
    expected = jnp.ones((2, 64))
    for _ in range(3):
        expected = jnp.tanh(bound.apply(params, expected))
    np.testing.assert_allclose(run(params, jnp.ones((2, 64)), 3), expected, rtol=1e-5)


def test_it_is_a_tree_of_two_arrays():
    leaves, structure = jax.tree.flatten(quantise(np.ones((3, 2), np.float32)))
    assert [leaf.shape for leaf in leaves] == [(3, 2), (2,)]
    assert isinstance(jax.tree.unflatten(structure, leaves), Quantized)
