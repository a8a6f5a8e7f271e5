"""Layers that are built alike are traced once."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gen1_jax.models.alike import Alike
from gen1_jax.models.attended import Attending, attending_by
from gen1_jax.models.layers import Linear
from gen1_jax.models.module import flatten, initialise, unflatten
from gen1_jax.training.gradients import learning


class Layer(nnx.Module):
    traces = 0

    def __init__(self, features: int, power: int = 1):
        self.linear, self.power = Linear(features, features), power

    def __call__(self, x, *, times: float = 1.0):
        Layer.traces += 1
        return x + times * self.linear(x) ** self.power


class Network(nnx.Module):
    def __init__(self, layers):
        self.layers = nnx.List(layers)

    def __call__(self, x):
        alike = Alike()
        for layer in self.layers:
            x = alike(layer, x)
        return x

    def one_by_one(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def run(network, how="__call__"):
    """A function of parameters, those of `network`, and an input."""
    graph, state = nnx.split(network)
    names = nnx.to_pure_dict(state)
    values = jax.tree.map(jnp.asarray, unflatten(flatten(initialise(network, 0))))
    state = jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(values))
    assert len(jax.tree.leaves(names)) == len(jax.tree.leaves(values))
    return lambda state, x: getattr(nnx.merge(graph, state), how)(x), state, jnp.ones((2, 4))


def traces(function, *args) -> int:
    before = Layer.traces
    jax.jit(function).trace(*args)
    return Layer.traces - before


def test_layers_of_one_form_are_traced_once():
    function, state, x = run(Network([Layer(4) for _ in range(5)]))
    assert traces(function, state, x) == 1


def test_other_settings_are_other_layers():
    function, state, x = run(Network([Layer(4), Layer(4, power=2), Layer(4), Layer(4, power=2)]))
    assert traces(function, state, x) == 2


def test_what_a_layer_is_told_beside_arrays_tells_it_apart():
    alike, layers = Alike(), [Layer(4) for _ in range(2)]
    state = nnx.split(Network(layers))[1]
    values = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), state)

    def function(state, x):
        first, second = nnx.merge(nnx.split(Network(layers))[0], state).layers
        return alike(first, x, times=2.0), alike(second, x, times=3.0)

    twice, thrice = jax.jit(function)(values, jnp.ones((2, 4)))
    np.testing.assert_allclose(twice, 1 + 2 * 5, rtol=1e-6)
    np.testing.assert_allclose(thrice, 1 + 3 * 5, rtol=1e-6)


def test_values_and_gradients_are_those_of_layers_one_by_one():
    layers = [Layer(4, power=1 + i % 2) for i in range(4)]
    shared, state, x = run(Network(layers))
    single, _, _ = run(Network(layers), "one_by_one")
    total = lambda function: jax.jit(jax.value_and_grad(lambda state: (function(state, x) ** 2).sum()))(state)
    for ours, theirs in zip(*map(jax.tree.leaves, (total(shared), total(single))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_nothing_is_shared_where_each_layer_may_attend_otherwise():
    function, state, x = run(Network([Layer(4) for _ in range(3)]))
    with attending_by(Attending()):
        assert traces(function, state, x) == 3


def test_nothing_is_compiled_outside_of_a_trace():
    function, state, x = run(Network([Layer(4) for _ in range(3)]))
    before = Layer.traces
    function(state, x)
    assert Layer.traces - before == 3


def test_what_learns_is_seen_inside_of_calls():
    call = jax.jit(lambda x: (jnp.zeros(3), 2 * x))
    gradients = jax.jit(lambda params: ({"nothing": call(params["nothing"])[0], "some": call(params["some"])[1]}, None))
    learns, _ = learning(gradients, {"nothing": jnp.ones(3), "some": jnp.ones(3)})
    assert learns == {"nothing": False, "some": True}
