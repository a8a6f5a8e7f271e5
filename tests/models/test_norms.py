"""Group normalisation and GEGLU against their definitions in float64, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf

from gen1_jax.models.layers import FeedForward
from gen1_jax.models.module import Bound, initialise
from gen1_jax.models.norms import GroupNorm

GROUPS, CHANNELS, EPSILON = 4, 12, 1e-5


def group_norm(params, x, silu: bool):
    """As its paper has it, in the precision of x."""
    y = x.reshape(*x.shape[:-1], GROUPS, -1)
    axes = (-4, -3, -1)
    y = (y - y.mean(axes, keepdims=True)) / jnp.sqrt(y.var(axes, keepdims=True) + EPSILON)
    y = y.reshape(x.shape) * params["scale"] + params["bias"]
    return y / (1 + jnp.exp(-y)) if silu else y


def feed_forward(params, x):
    """As diffusers has it: one product, of which half is a gate."""
    y = x @ params["proj_in"]["kernel"] + params["proj_in"]["bias"]
    value, gate = jnp.split(y, 2, axis=-1)
    y = value * gate * (1 + erf(gate / jnp.sqrt(2))) / 2
    return y @ params["proj_out"]["kernel"] + params["proj_out"]["bias"]


def bound(module) -> Bound:
    """The layer and parameters that are all of them different."""
    module.config = None
    rng = np.random.default_rng(0)
    return Bound(module, jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape), initialise(module, 0)))


def assert_same(layer: Bound, definition, x: np.ndarray, tolerance: float) -> None:
    """The answer in float32 and the gradients of everything are the definition's in float64."""
    rng = np.random.default_rng(1)
    x32 = x.astype(np.float32)  # what is lost of x itself is none of the layer's
    found, back = jax.vjp(layer.apply, jax.tree.map(np.float32, layer.params), x32)
    direction = rng.normal(size=x.shape)
    with jax.enable_x64(True):
        wanted, back64 = jax.vjp(definition, jax.tree.map(np.float64, layer.params), x32.astype(np.float64))
        wanted = wanted, back64(direction)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()),
        (found, back(direction.astype(np.float32))),
        wanted,
    )


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("mean", "tolerance"), [(0.0, 2e-6), (5.0, 5e-6), (300.0, 3e-4)])
def test_group_norm_is_its_definition_wherever_the_mean_is(mean, tolerance, silu):
    spread = np.random.default_rng(2).uniform(0.5, 2, CHANNELS)
    x = np.random.default_rng(3).normal(mean, spread, (2, 3, 6, 5, CHANNELS))
    layer = bound(GroupNorm(GROUPS, CHANNELS, epsilon=EPSILON, silu=silu))
    assert_same(layer, lambda params, x: group_norm(params, x, silu), x, tolerance)


def test_group_norm_of_a_picture_does_not_see_the_next():
    layer = bound(GroupNorm(GROUPS, CHANNELS, epsilon=EPSILON))
    x = np.random.default_rng(0).normal(size=(1, 3, 4, 4, CHANNELS)).astype(np.float32)
    other = np.concatenate([x[:, :1], 7 * x[:, 1:]], axis=1)
    np.testing.assert_array_equal(layer(x)[:, 0], layer(other)[:, 0])


def test_group_norm_of_a_constant_is_its_bias():
    layer = bound(GroupNorm(GROUPS, CHANNELS, epsilon=EPSILON))
    np.testing.assert_allclose(
        layer(jnp.full((1, 4, 4, CHANNELS), 1e3)), np.broadcast_to(layer.params["bias"], (1, 4, 4, CHANNELS)), atol=1e-3
    )


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8)])
def test_feed_forward_is_its_definition(shape):
    assert_same(bound(FeedForward(8)), feed_forward, np.random.default_rng(0).normal(size=shape), 5e-6)


def test_the_gradient_of_a_feed_forward_keeps_its_products_and_nothing_of_their_size_beside():
    layer = bound(FeedForward(8))
    x = jnp.ones((6, 8))
    saved = jax.eval_shape(lambda p, x: jax.vjp(layer.apply, p, x)[1], layer.params, x)
    wide = [leaf for leaf in jax.tree.leaves(saved) if leaf.shape == (6, 32)]
    assert len(wide) == 3  # both products, and what the last one reads
