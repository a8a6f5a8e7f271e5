"""What a run says of itself, what it counts as work, and the list of its fields."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.checkpoints.store import Checkpoints
from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.checkpoints.workdir import WorkFiles
from gen1_jax.cli import main
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.unet import UNetConfig
from gen1_jax.parallel.mesh import AXES, MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.training.checks import check_weights
from gen1_jax.training.config import TrainConfig
from gen1_jax.training.fields import REQUIRED, recipe_fields
from gen1_jax.training.optimizer import OptimizerConfig, ema_decays
from gen1_jax.training.overview import overview
from gen1_jax.training.recipe import read_recipe
from gen1_jax.training.run import Run
from gen1_jax.training.throughput import Throughput, model_flops

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"


def alone():
    return Layout(make_mesh(MeshConfig(), jax.devices()[:1]))


def test_every_field_of_a_recipe_says_what_it_means():
    fields = {field.name: field for field in recipe_fields()}
    assert all(field.meaning.strip() for field in fields.values()) and len(fields) > 90
    assert fields["optimizer.learning_rate"].default == OptimizerConfig().learning_rate
    assert fields["stages[i].steps"].default == fields["data.video.sources[i].path"].default == REQUIRED
    assert fields["data.image.batch_size"].default == 9216  # of the stream where it is, not of any
    assert "schedule.rescale_zero_terminal_snr" in fields  # of a part that is None by default


def test_every_field_of_a_recipe_is_listed_with_its_value():
    config = read_recipe(SMOKE, ["--config.optimizer.learning_rate=0.5"])
    fields = {field.name: field.value for field in recipe_fields(config)}
    assert fields["optimizer.learning_rate"] == 0.5 and fields["stages[1].steps"] == config.stages[1].steps
    plain = config.to_dict()
    for name, value in fields.items():
        found = plain
        for part in name.replace("[", ".").replace("]", "").split("."):
            found = found[int(part) if part.isdigit() else part]
        assert found == value, name


def test_show_lists_and_trains_nothing(capsys):
    assert main(["train", "--show"]) == 0
    assert "optimizer.learning_rate = " in capsys.readouterr().out
    assert main(["train", "--show", "--config", str(SMOKE), "--config.seed=7"]) == 0
    assert "\nseed = 7  (default: 0)\n    of initial weights and of every draw.\n" in capsys.readouterr().out
    assert main(["train", "--config", str(SMOKE)]) == 2
    assert "required: --workdir" in capsys.readouterr().err


def test_a_run_says_what_it_is():
    config = read_recipe(SMOKE, ["--config.seed=7"])
    learned = {"conv_in": {"kernel": np.zeros((3, 500))}, "conv_out": {"kernel": np.zeros(500)}, "bias": np.zeros(1)}
    frozen = {"vae": {"kernel": np.zeros(10**6)}}
    text = "\n".join(overview(config, alone(), learned, frozen, "goes on from step 5 of 16", UNetConfig()))
    assert "1 x cpu, mesh data=1, fsdp=1, tensor=1, context=1" in text
    assert "goes on from step 5 of 16" in text and "unet: 2.00 k in 3 arrays" in text and "vae: 1.00 M" in text
    assert "\n              conv_out         500\n" in text
    assert "seed = 7  (default: 0)" in text and "optimizer.beta1" not in text
    assert "not seen" not in text
    several = UNetConfig(structure_kinds=("edges", "depth", "flow"), structure_optional=True)
    assert any("not seen    edges, flow:" in x for x in overview(config, alone(), learned, frozen, "begins", several))


def test_an_axis_that_divides_no_weights_is_named():
    mesh = jax.sharding.AbstractMesh((1, 1, 2, 1), AXES)
    whole = {"conv_in": {"kernel": jax.ShapeDtypeStruct((3, 3, 128, 129), jnp.float32)}}
    with pytest.warns(UserWarning, match=r"mesh.tensor=2 divides no weights of the unet"):
        check_weights("unet", whole, Layout(mesh))
    with pytest.warns(UserWarning, match=r"mesh.fsdp=2 divides no weights of the unet"):
        check_weights("unet", {"bias": jax.ShapeDtypeStruct((8,), jnp.float32)}, Layout(_fsdp()))
    check_weights("unet", whole, Layout(_fsdp()))  # warnings are errors here


def _fsdp():
    return jax.sharding.AbstractMesh((1, 2, 1, 1), AXES)


@pytest.fixture
def run(tmp_path):
    """Of the tiny U-Net with recomputation, which is asked for its steps alone."""
    config = TrainConfig.from_dict(
        {
            "model": "tiny",
            "remat": True,
            "data": {"inputs": "latents", "image_probability": 0.0, "video": {"sources": ["none"], "frames": 4}},
            "stages": [{"name": "all", "steps": 2}],
        }
    )
    with WorkFiles(tmp_path) as files, Checkpoints(tmp_path) as checkpoints:
        yield Run(config, alone(), open_trained("tiny"), files, checkpoints)


def test_recomputation_is_no_work(run):
    """The rate that is reported is of the mathematics: recomputing would otherwise look like progress."""
    plain = run.train_step(0, counted=True)
    inputs = plain.objective.inputs(random_latents(run.family, "video", 1))
    counted, done = (model_flops(step, {}, inputs) for step in (plain, run.train_step(0)))
    without = dataclasses.replace(run.config, remat=False)
    assert counted < 0.9 * done
    run.config = without
    assert model_flops(run.train_step(0), {}, inputs) == counted


def test_a_step_that_compiles_counts_neither_as_time_nor_as_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    clock = Throughput()
    clock.without(lambda: passes(100))  # compiles, and does its first step
    clock.leave_out(0.0)
    assert clock.take() == {}
    for _ in range(2):
        passes(3)
        clock.add(8, lambda: 6 * 10**12, waited=1.0)
    taken = clock.take()
    assert (taken["step_seconds"], taken["examples_per_second"]) == (3, 8 / 3)
    assert (taken["tflop_per_second"], taken["data_wait_seconds"]) == (2, 1)


def test_each_stage_may_forget_at_its_own_pace():
    config = OptimizerConfig(ema_decay=0.9999)
    decay = ema_decays(config, [(3, None), (2, 0.5), (2, None)])
    assert np.allclose([decay(jnp.int32(step)) for step in range(7)], [0.9999] * 3 + [0.5] * 2 + [0.9999] * 2)
    assert ema_decays(config, [(3, None)])(jnp.int32(2)) == 0.9999
