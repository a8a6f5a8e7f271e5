"""Layers that are built alike are traced once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gen1_jax.models.alike import Alike
from gen1_jax.models.attended import Attending, attending_by
from gen1_jax.models.layers import Linear
from gen1_jax.models.module import Bound, initialise
from gen1_jax.training.gradients import learning


class Layer(nnx.Module):
    traces = 0

    def __init__(self, features: int, power: int = 1):
        self.linear, self.power = Linear(features, features), power

    def __call__(self, x, *, times: float = 1.0):
        Layer.traces += 1
        return x + times * self.linear(x) ** self.power


class Network(nnx.Module):
    config = None

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

    def told_numbers(self, x):
        alike = Alike()
        return [alike(layer, x, times=float(i)) for i, layer in enumerate(self.layers)]


X = jnp.ones((2, 4))


def network(*powers: int) -> Bound:
    module = Network([Layer(4, power) for power in powers])
    return Bound(module, initialise(module, 0))


def traces(net: Bound) -> int:
    before = Layer.traces
    jax.jit(net.apply).trace(net.params, X)
    return Layer.traces - before


def test_layers_of_one_form_are_traced_once():
    assert traces(network(1, 1, 1, 1, 1)) == 1


def test_other_settings_are_other_layers():
    assert traces(network(1, 2, 1, 2)) == 2


def test_what_a_layer_is_told_beside_arrays_tells_it_apart():
    net = network(1, 1, 1)
    ones = jax.tree.map(jnp.ones_like, net.params)
    results = jax.jit(partial(net.apply, method="told_numbers"))(ones, X)
    for i, y in enumerate(results):
        np.testing.assert_allclose(y, 1 + i * 5, rtol=1e-6)


def test_values_and_gradients_are_those_of_layers_one_by_one():
    net = network(1, 2, 1, 2)

    def total(method):
        return jax.jit(jax.value_and_grad(lambda params: (net.apply(params, X, method=method) ** 2).sum()))(net.params)

    for ours, theirs in zip(*map(jax.tree.leaves, (total("__call__"), total("one_by_one"))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_nothing_is_shared_where_each_layer_may_attend_otherwise():
    with attending_by(Attending()):
        assert traces(network(1, 1, 1)) == 3


def test_nothing_is_compiled_outside_of_a_trace():
    net, before = network(1, 1, 1), Layer.traces
    net.apply(net.params, X)
    assert Layer.traces - before == 3


def test_what_learns_is_seen_inside_of_calls():
    call = jax.jit(lambda x: (jnp.zeros(3), 2 * x))
    gradients = jax.jit(lambda params: ({"nothing": call(params["nothing"])[0], "some": call(params["some"])[1]}, None))
    learns, _ = learning(gradients, {"nothing": jnp.ones(3), "some": jnp.ones(3)})
    assert learns == {"nothing": False, "some": True}
