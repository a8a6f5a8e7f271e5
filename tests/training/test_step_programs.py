"""A step as two programs: what they give together, and how often the second is compiled."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.module import initialise
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.sizes import TINY_DIT
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.optimizer import OptimizerConfig, learning_rates
from gen1_jax.training.programs import TRACING, Once
from gen1_jax.training.step import TrainStep, initial_state

OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup_steps=0)


def test_two_programs_are_the_step_and_the_second_is_that_of_all_shapes(monkeypatch):
    layout = Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    objective = DenoisingObjective(TINY_DIT, DenoisingConfig(content_dropout=0.0))
    step = TrainStep(objective, OPTIMIZER, learning_rates(OPTIMIZER, [(10, None)]), layout)
    begin = lambda: jax.device_put(
        jax.jit(initial_state, static_argnums=1)(initialise(objective.module, 0), OPTIMIZER), step.state_shardings
    )
    updates, jitted = [], TrainStep._jitted_update
    monkeypatch.setattr(TrainStep, "_jitted_update", lambda self, learns: updates.append(1) or jitted(self, learns))
    inputs_of = lambda *batch: jax.tree.map(jnp.asarray, objective.inputs(random_latents(TINY_DIT, *batch)))
    programs = [step.compile(begin(), {}, inputs_of(*batch)) for batch in (("video", 2), ("video", 4), ("image", 2))]
    assert len(updates) == 2  # pictures do not teach the layers between frames
    inputs = inputs_of("video", 2)
    (whole, metrics), (state, same) = step(begin(), {}, inputs), programs[0](begin(), {}, inputs)
    assert metrics.keys() == same.keys() and state.step == 1
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    parameters = sum(x.nbytes for x in jax.tree.leaves(state.params))
    assert programs[0].temporary_bytes > parameters and programs[0].state_bytes >= 4 * parameters


def test_a_batch_whole_and_one_in_parts_teach_the_same():
    """Of these gradients the first are bfloat16 between the two programs, the second, sums, float32."""
    layout = Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    objective = DenoisingObjective(TINY_DIT, DenoisingConfig(content_dropout=0.0), dtype=jnp.dtype(jnp.bfloat16))
    rates = learning_rates(OPTIMIZER, [(10, None)])
    step = TrainStep(objective, OPTIMIZER, rates, layout, dtype=jnp.dtype(jnp.bfloat16))
    begin = lambda: jax.jit(initial_state, static_argnums=1)(initialise(objective.module, 0), OPTIMIZER)
    inputs = jax.tree.map(jnp.asarray, objective.inputs(random_latents(TINY_DIT, "video", 2)))
    whole, parts = (step.compile(begin(), {}, inputs, number)(begin(), {}, inputs)[1] for number in (1, 2))
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose(whole[name][0], parts[name][0], rtol=0.02)


def test_a_program_is_traced_while_no_other_is_and_compiled_when_the_device_is_idle(monkeypatch):
    layout = Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    objective = DenoisingObjective(TINY_DIT, DenoisingConfig(content_dropout=0.0))
    step = TrainStep(objective, OPTIMIZER, learning_rates(OPTIMIZER, [(10, None)]), layout)
    inputs = layout.abstract_batch(objective.inputs(random_latents(TINY_DIT, "video", 2)))
    events, gradients, update = [], TrainStep._gradients_of_batch, TrainStep._update

    def noting(name, function):
        return lambda *args: events.append((name, TRACING.locked())) or function(*args)

    monkeypatch.setattr(TrainStep, "_gradients_of_batch", noting("gradients", gradients))
    monkeypatch.setattr(TrainStep, "_update", noting("update", update))
    both = threading.Barrier(2, timeout=60)

    def never_idle():
        both.wait()  # either program has come so far
        raise InterruptedError

    with pytest.raises(InterruptedError):
        step.compile(step.placed_state, {}, inputs, 1, never_idle)
    assert sorted(events) == [("gradients", True), ("update", True)]


def test_what_several_ask_for_is_made_once():
    once, made, begun = Once(), [], threading.Event()

    def make():
        begun.wait(5)
        made.append(1)
        return "it"

    waiting = [once("key", make) for _ in range(3)]
    begun.set()
    assert [wait() for wait in waiting] == ["it"] * 3 and made == [1]
    assert once("another", lambda: "else")() == "else"


def test_what_fails_fails_for_all_that_wait():
    once = Once()

    def fails():
        raise ValueError("no room")

    for _ in range(2):
        with pytest.raises(ValueError, match="no room"):
            once("key", fails)()
    assert once("key", lambda: "room")() == "room"
