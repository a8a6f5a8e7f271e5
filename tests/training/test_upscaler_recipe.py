"""An upscaler, which goes on from a model that is told of depth, by the same rows."""

from pathlib import Path

import numpy as np
import pytest
from tiny import TINY
from training_runs import make_latents

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.cli import main
from gen1_jax.errors import UserError
from gen1_jax.models.growing import with_structures
from gen1_jax.models.module import flatten
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.growing import grown
from gen1_jax.training.denoising import DenoisingConfig
from gen1_jax.training.metrics import read_log
from gen1_jax.training.recipe import read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS = ("low_resolution",)


def test_the_rows_of_depth_become_those_of_the_small_video(tiny_model):
    shipped = read_recipe(CONFIGS / "nano_upscaler.py")
    model = ModelFolder(tiny_model)
    unet = shipped.family(model.config).unet
    assert unet.structures == unet.required == KINDS and unet.in_channels == model.config.unet.in_channels
    begun, had = (flatten(source.parameters("unet")) for source in (grown(model, unet), model))
    assert begun.keys() == had.keys()
    for name, value in had.items():
        np.testing.assert_array_equal(begun[name], value)
    assert shipped.seen_kinds(shipped.stages[0], unet) == KINDS


@pytest.mark.slow  # a step is compiled, as in other tests of recipes
def test_an_upscaler_is_trained_and_exported_as_a_model_folder(tiny_model, tmp_path):
    latents = make_latents(tmp_path / "latents", tiny_model, clips=4, frames=3, kinds=("depth", *KINDS))
    fields = (
        *("dtype=float32", "log_every=1", "preview.every=0", "data.image_probability=0.0", "stages[0].steps=1"),
        *(f"data.video.sources=('{latents}',)", "data.video.buckets=((16, 16),)", "data.video.batch_size=2"),
        *("data.video.frames=2", "optimizer.warmup_steps=1", "unet.prior_probability=0.0", f"model={tiny_model}"),
    )
    config, workdir = str(CONFIGS / "nano_upscaler.py"), tmp_path / "run"
    overrides = [f"--config.{field}" for field in fields]
    assert main(["train", "--config", config, "--workdir", str(workdir), "--json", *overrides]) == 0
    assert np.isfinite(read_log(workdir)[-1]["loss"])
    assert main(["export", "--model", str(workdir), "-o", str(tmp_path / "model")]) == 0
    assert ModelFolder(tmp_path / "model").config.unet == open_trained(workdir).config.unet
    assert open_trained(workdir).config.unet.structures == KINDS


def test_what_cannot_be_told_in_the_place_of_another_is_refused():
    with pytest.raises(UserError, match=r"as many as the model's own \(depth\), not edges, source"):
        with_structures(TINY.unet, ("edges", "source"))
    with pytest.raises(UserError, match="give one"):
        DenoisingConfig(inputs=("depth", "edges"), structure_dropout=0.5, structure_kinds=("edges",))
    with pytest.raises(UserError, match=r"sees low_resolution \(unet.structure_kinds\), but batches have depth"):
        read_recipe(CONFIGS / "nano_upscaler.py", ["--config.data.structure=('depth',)"])
