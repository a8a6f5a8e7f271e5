"""Previews: looked at before a run begins, taken after the checkpoint, never worth a run, and nothing stays of them."""

import dataclasses
import gc
import io
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event
from tiny import TINY, save_tiny_model
from training_runs import STEPS

from gen1_jax.checkpoints.store import Checkpoints
from gen1_jax.cli import main
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.preview import EditPreview, _Pipeline, _WithUNet
from gen1_jax.media import open_video
from gen1_jax.models.selection import Selection
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.planning.plan import make_plan
from gen1_jax.planning.report import render
from gen1_jax.planning.topology import parse_topology
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.training.config import PreviewConfig, TrainConfig
from gen1_jax.training.learned import Selected, WholeNetwork
from gen1_jax.training.loop import train
from gen1_jax.training.metrics import read_log
from gen1_jax.training.preview import Shown
from gen1_jax.training.recipe import read_recipe

CLIP = np.random.default_rng(0).integers(0, 256, (3, 16, 32, 3), np.uint8)


def test_a_preview_comes_after_the_checkpoint_and_may_fail(prior, tmp_path):
    saved, seen = [], []

    def preview(step, ema, *, structures):
        with Checkpoints(tmp_path) as checkpoints:
            saved.append((step, checkpoints.steps[-1] if checkpoints.steps else None))
        seen.append(structures)
        if step == 2:
            raise OSError("the disk\nis gone")
        return Shown(frames=CLIP, frame_rate=Fraction(8), measures={"preview/frame_consistency": 0.5})

    def waiting(self, step, state, record, save=Checkpoints.save):
        save(self, step, state, record)
        self.wait()

    recipe = ["--config.preview.every=1", "--config.stages[0].structure=False"]
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="preview of step 2 failed"):
        patch.setattr(Checkpoints, "save", waiting)
        outcome = train(read_recipe(prior.recipe, recipe), tmp_path, last_stage=0, preview=preview)
    assert (outcome.exit_code, outcome.step) == (0, STEPS)
    assert saved == [(step, step) for step in range(1, STEPS + 1)] and seen == [()] * STEPS
    entries = [entry for entry in read_log(tmp_path) if entry.keys() & {"preview", "preview_error"}]
    assert entries[0] == {"step": 1, "preview": "0000001.mp4", "preview/frame_consistency": 0.5}
    assert entries[1] == {"step": 2, "preview_error": "the disk is gone"}
    with open_video(tmp_path / "previews" / "0000003.mp4") as reader:
        assert len(list(reader)) == 3

    images = dict(_images(next((tmp_path / "tensorboard").iterdir()).read_bytes()))
    assert images.keys() == {"preview", "preview/frames"}
    assert images["preview"].n_frames == 3 and images["preview"].size == (32, 16)
    assert images["preview/frames"].size == (32, 48)


def _images(events):
    """Tags and pictures of an event file: length, its checksum, an event, its checksum, again and again."""
    while events:
        size = int.from_bytes(events[:8], "little")
        for value in Event.FromString(events[12 : 12 + size]).summary.value:
            if value.HasField("image"):
                yield value.tag, Image.open(io.BytesIO(value.image.encoded_image_string))
        events = events[16 + size :]


def test_nothing_stays_on_the_device(tiny_model):
    source = ModelFolder(tiny_model)
    config = PreviewConfig(every=1, frames=2, num_inference_steps=1, prompts=("gold", "ice"))
    preview = EditPreview(config, source, "float32")
    replicated = Layout(make_mesh(MeshConfig(data=1), jax.devices()[:1])).replicated()
    ema = jax.device_put(source.parameters("unet"), replicated)
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays())
    shown = preview(1, ema, structures=("depth",))
    gc.collect()
    assert (
        sum(array.nbytes for array in jax.live_arrays()) - before < 1000 < sum(x.nbytes for x in jax.tree.leaves(ema))
    )
    views = 4  # the clip, its structure and an edit of each prompt, with three strips of four pixels between
    frames, height, width, _ = shown.frames.shape
    assert frames == 2 and (width - 3 * 4) % views == 0 and height == preview._frames.shape[1]
    assert shown.measures.keys() == {"preview/frame_consistency", "preview/prompt_consistency"}


def test_a_stage_without_structure_is_previewed_without(tiny_model):
    source = ModelFolder(tiny_model)
    maps = {"depth": np.linspace(-1, 1, 2 * 16 * 16, dtype=np.float32).reshape(2, 16, 16, 1)}
    settings = EditSettings().of(source.config)
    unet = _WithUNet(source, source.parameters("unet"), WholeNetwork())
    pipelines = [_Pipeline(unet, jnp.dtype("float32"), sees=sees) for sees in (("depth",), ())]
    seen, blind = (np.asarray(pipeline.encode_structure(maps, settings)["depth"].maps) for pipeline in pipelines)
    assert seen.shape == blind.shape and seen.any() and not blind.any()


def test_parameters_that_stay_are_the_models_own(tiny_model):
    """Of a network of which a part is trained, that part is all that a preview is given."""
    source = ModelFolder(tiny_model)
    start, learned = source.parameters("unet"), {"conv_out": {"bias": jnp.full(4, 7.0)}}
    unet = _WithUNet(source, learned, Selected(Selection(("^conv_out.bias",)))).parameters("unet")
    assert jax.tree.structure(unet) == jax.tree.structure(start)
    assert (unet["conv_out"]["bias"] == 7).all()
    np.testing.assert_array_equal(unet["conv_out"]["kernel"], start["conv_out"]["kernel"])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (("preview.video=none.mp4",), "none.mp4"),
        (("preview.video=text.mp4",), "text.mp4"),
        (("preview.image=text.mp4",), "text.mp4"),
        (("model=mute",), "preview.image"),
        (("preview.prompts=()",), "preview.prompts"),
        (("preview.prompt= ",), "preview.prompts"),
    ],
)
def test_a_run_that_cannot_be_previewed_does_not_begin(fields, named, prior, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_tiny_model(tmp_path / "mute", dataclasses.replace(TINY, prior=None))
    (tmp_path / "text.mp4").write_text("no video")
    overrides = [f"--config.{field}" for field in ("component=unet", "preview.every=1", *fields)]
    assert main(["train", f"--config={prior.recipe}", "--workdir=run", *overrides]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gen1: ") and named in line
    assert not (tmp_path / "run").exists()


def test_recipes_of_before_name_one_prompt(prior):
    plain = read_recipe(prior.recipe).to_dict()
    before = {"every": 5, "prompt": "gold", "guidance_scale": 7.5}
    config = TrainConfig.from_dict(plain | {"preview": before}).preview
    assert config.asked == ("gold",) and config.guidance_scale == 7.5
    assert PreviewConfig().guidance_scale is None
    two = read_recipe(prior.recipe, ["--config.preview.prompts=('gold', 'ice')"]).preview
    assert two.asked == ("gold", "ice")


def test_the_plan_counts_previews(prior):
    machine = parse_topology("gpu:h200:1")
    options = dict(programs=[], estimate_only=True)
    recipe = read_recipe(prior.recipe, ["--config.component=unet", "--config.preview.every=5"])
    (*_, stages) = make_plan(recipe, machine, **options)
    parameters = sum(
        x.size * 4 for c in TINY.components for x in jax.tree.leaves(ModelFolder(recipe.model).parameters(c))
    )
    assert stages["preview"]["loaded_bytes"] == parameters and stages["preview"]["fits"]
    assert "a preview every 5 steps needs" in render(stages)
    none = dataclasses.replace(recipe, preview=PreviewConfig())
    assert list(make_plan(none, machine, **options))[-1]["preview"] is None
    small = dataclasses.replace(machine, chip=dataclasses.replace(machine.chip, hbm_bytes=float(parameters)))
    assert "does not fit" in render(list(make_plan(recipe, small, **options))[-1])
