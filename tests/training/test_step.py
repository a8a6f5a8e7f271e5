"""The step: what it learns, skips, accumulates and averages. The U-Net of the tiny family on random latents."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import relative_error
from tiny import TINY

from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.module import Bound, flatten, initialise
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.metrics import MeanMetrics
from gen1_jax.training.optimizer import OptimizerConfig, ema_rate, learning_rates, make_optimizer
from gen1_jax.training.step import TrainStep, initial_state
from gen1_jax.training.throughput import model_flops

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, ema_decay=0.9)
INITIAL = jax.jit(initial_state, static_argnums=1)


def layout():
    return Layout(make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.fixture(scope="module")
def step():
    objective = DenoisingObjective(TINY, DenoisingConfig(content_dropout=0.0))
    return TrainStep(objective, OPTIMIZER, learning_rates(OPTIMIZER, [(100, None)]), layout())


def begin(step, params=None):
    """The state before the first step, where a step leaves it: anywhere else it would be compiled twice."""
    params = initialise(step.objective.module, 0) if params is None else params
    return jax.device_put(INITIAL(params, OPTIMIZER), step.state_shardings)


def at(state, number):
    """The same before another step."""
    return state._replace(step=jax.device_put(np.int32(number), state.step.sharding))


@pytest.fixture
def state(step):
    return begin(step)


@pytest.fixture(scope="module")
def inputs(step):
    return jax.tree.map(jnp.asarray, step.objective.inputs(random_latents(TINY, "video", 4)))


def take(metrics):
    means = MeanMetrics()
    means.add("video", metrics)
    return means.take()


def test_overfits_a_fixed_batch(step, state, inputs):
    """One batch with one draw of noise: the loss falls below a fifth."""
    losses = []
    for _ in range(60):
        state, metrics = step(at(state, 0), {}, inputs)
        losses.append(take(metrics)["loss"])
    assert losses[-1] < 0.2 * losses[0]


def test_accumulation_changes_nothing_but_rounding(step, inputs):
    (whole, metrics), (parts, of_parts) = step(begin(step), {}, inputs), step(begin(step), {}, inputs, 4)
    gradients, of_sum = (state.optimizer[1].mu for state in (whole, parts))
    errors = jax.tree.map(lambda a, b: float(relative_error(a, b)) if a.any() else 0.0, gradients, of_sum)
    assert max(jax.tree.leaves(errors)) < 1e-4
    one, other = take(metrics), take(of_parts)
    assert one.keys() == other.keys()
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_what_a_batch_cannot_teach_stays_as_it_is(step, state):
    """Images reach no temporal layer, one content token no query or key: no decay, and no moments that fade."""
    images = jax.tree.map(jnp.asarray, step.objective.inputs(random_latents(TINY, "image", 4)))
    moved = lambda tree: jax.tree.map(lambda x: np.asarray(x) + np.float32(0.5), tree)
    adam = state.optimizer[1]._replace(mu=moved(state.optimizer[1].mu), nu=moved(state.optimizer[1].nu))
    state = at(state, 50)._replace(
        params=moved(state.params), optimizer=(state.optimizer[0], adam, *state.optimizer[2:])
    )
    before, state = jax.tree.map(np.asarray, state), jax.device_put(state, step.state_shardings)
    after, _ = step(state, {}, images)
    of = lambda state: [flatten(tree) for tree in (state.params, state.optimizer[1].mu, state.optimizer[1].nu)]
    unreached = re.compile(r"temporal|\.spatial\.block\.(norm2|attn2\.to_[qk])\.")
    for old, new in zip(of(before), of(after), strict=True):
        for name, value in old.items():
            assert np.array_equal(value, new[name]) == bool(unreached.search(name)), name


class LowRank:
    """A product of two small matrices beside one kernel of a frozen network; for the test alone."""

    uses_base = True
    in_float32 = False

    def initial(self, base, seed):
        inputs, outputs = base["time_embedding"]["linear_1"]["kernel"].shape
        rng = np.random.default_rng(seed)
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
        return {"a": {"kernel": draw(inputs, 2)}, "b": {"kernel": jnp.zeros((2, outputs))}}

    def weights(self, base, learned):
        linear = base["time_embedding"]["linear_1"]
        adapted = linear | {"kernel": linear["kernel"] + learned["a"]["kernel"] @ learned["b"]["kernel"]}
        return base | {"time_embedding": base["time_embedding"] | {"linear_1": adapted}}


def test_a_few_parameters_beside_a_frozen_network_are_trained(inputs):
    objective = DenoisingObjective(TINY, DenoisingConfig(content_dropout=0.0))
    objective.learned = LowRank()
    step = TrainStep(objective, OPTIMIZER, learning_rates(OPTIMIZER, [(100, None)]), layout())
    assert step.frozen == ("unet",)
    base = jax.tree.map(jnp.asarray, initialise(objective.module, 0))
    base["conv_out"]["kernel"] = base["conv_out"]["kernel"] + 0.1
    state = begin(step, objective.learned.initial(base, 0))
    losses = []
    for _ in range(5):
        state, metrics = step(at(state, 0), {"unet": base}, inputs)
        losses.append(take(metrics)["loss"])
    assert losses[-1] < losses[0]
    assert flatten(state.params).keys() == {"a.kernel", "b.kernel"} and state.params["b"]["kernel"].any()


def test_a_step_that_is_not_finite_changes_nothing(step, state, inputs):
    poisoned = inputs | {"content": jnp.full_like(inputs["content"], jnp.nan)}
    before = jax.tree.map(np.asarray, state)
    after, metrics = step(state, {}, poisoned)
    assert take(metrics)["skipped"] == 1
    assert int(after.step) == 1 and int(after.skipped) == 1 and int(after.skipped_in_a_row) == 1
    for part in ("params", "ema", "optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, part), getattr(after, part))
    good, _ = step(after, {}, inputs)
    assert int(good.skipped) == 1 and int(good.skipped_in_a_row) == 0
    assert np.abs(np.asarray(good.params["conv_out"]["bias"])).max() > 0


def test_draws_depend_on_the_step_alone(step, state, inputs):
    def loss(number):
        fresh = at(jax.tree.map(jnp.copy, state), number)
        return take(step(fresh, {}, inputs)[1])["loss"]

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_stages_before_structure_do_not_see_it(state, inputs):
    without = DenoisingObjective(TINY, DenoisingConfig(content_dropout=0.0), structure=False)
    assert set(without.inputs(random_latents(TINY, "video", 2))) == {"moments", "content"}
    keys = jax.random.split(jax.random.key(0), 4)
    kept = {name: inputs[name] for name in ("moments", "content")}
    loss = lambda first, others: without.loss(others | {"conv_in": first}, {}, kept, keys)[0].mean()
    rows = jax.jit(jax.grad(loss))(state.params["conv_in"], state.params)["kernel"]
    assert np.abs(rows[:, :, :4]).max() > 0
    assert np.abs(rows[:, :, 4:8]).max() == 0  # structure is zero


def test_the_null_content_is_zero_content(state, inputs):
    keys = jax.random.split(jax.random.key(0), 4)
    dropped = DenoisingObjective(TINY, DenoisingConfig(content_dropout=1.0))
    kept = DenoisingObjective(TINY, DenoisingConfig(content_dropout=0.0))
    zero = inputs | {"content": jnp.zeros_like(inputs["content"])}
    one = jax.jit(lambda p: dropped.loss(p, {}, inputs, keys)[0])(state.params)
    other = jax.jit(lambda p: kept.loss(p, {}, zero, keys)[0])(state.params)
    np.testing.assert_array_equal(one, other)


def test_the_first_update_is_adamw(state):
    """Against the closed form: after one step the bias-corrected update is the sign of the gradient."""
    config = OptimizerConfig(weight_decay=0.1, max_gradient_norm=1e9)
    params = {"a": {"kernel": jnp.array([[2.0, -3.0]]), "bias": jnp.array([5.0])}}
    grads = {"a": {"kernel": jnp.array([[0.5, -0.25]]), "bias": jnp.array([-4.0])}}
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"]["kernel"], [[1.2, -1.3]], rtol=1e-5)
    np.testing.assert_allclose(updates["a"]["bias"], [-1.0], rtol=1e-5)  # biases do not decay


def test_long_gradients_are_clipped():
    optimizer = make_optimizer(OptimizerConfig(max_gradient_norm=1.0))
    params = {"a": {"kernel": jnp.zeros((2, 2))}}
    grads = {"a": {"kernel": jnp.full((2, 2), 50.0)}}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    assert float(optax.tree.norm(state[1].mu)) == pytest.approx(0.1, rel=1e-5)  # (1 - beta1) times a unit vector


def test_learning_rates():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, schedule="linear", final_fraction=0.5)
    rate = learning_rates(config, [(10, None), (10, 2.0)])
    at = lambda step: float(rate(jnp.int32(step)))
    assert at(0) == pytest.approx(0.25)
    assert at(3) == pytest.approx(1 - 0.5 * 3 / 20)
    assert at(10) == pytest.approx(2 * 0.25 * 0.75)  # warms up again
    assert at(19) == pytest.approx(2 * (1 - 0.5 * 19 / 20))


def test_ema_forgets_faster_early_on():
    move = lambda step: float(ema_rate(jnp.int32(step), 0.99))
    assert move(1) == pytest.approx(1 - 2 / 11)
    assert move(100_000) == pytest.approx(0.01)


def test_operations_are_three_forward_passes(step):
    """A matrix product has two in its backward pass; the first layer's input needs none."""
    inputs = step.objective.inputs(random_latents(TINY, "video", 2))
    unet = Bound(step.objective.module, step.abstract_state.params)
    from gen1_jax.models.flops import count_flops

    latents = jax.ShapeDtypeStruct((2, 4, 8, 8, 4), jnp.float32)
    integers = jax.ShapeDtypeStruct((2,), jnp.int32)
    content = jax.ShapeDtypeStruct((2, 1, 16), jnp.float32)
    forward = count_flops(unet.apply, unet.params, latents, integers, content, latents, integers)
    assert model_flops(step, {}, inputs) == pytest.approx(3 * forward, rel=0.05)
