"""A transformer in the place of the U-Net, from its recipe to edits and exports, by the code of all denoisers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from training_runs import make_latents, state

import gen1_jax
from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.cli import main
from gen1_jax.errors import UserError
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.growing import grown
from gen1_jax.pretrained.sizes import TINY_DIT
from gen1_jax.training.config import StageConfig
from gen1_jax.training.loop import train
from gen1_jax.training.metrics import read_log
from gen1_jax.training.recipe import read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory):
    """nano_dit of the smallest sizes: a step on images, two on clips with structure."""
    shipped = read_recipe(CONFIGS / "nano_dit.py")
    latents = make_latents(tmp_path_factory.mktemp("latents"), tiny_model, clips=4)
    source = dataclasses.replace(shipped.data.video.sources[0], path=str(latents))
    image, video = (
        dataclasses.replace(stream, sources=(source,), buckets=((16, 16),), batch_size=2)
        for stream in (shipped.data.image, shipped.data.video)
    )
    return dataclasses.replace(
        shipped,
        model=str(tiny_model),
        unet=dataclasses.replace(shipped.unet, size="tiny-dit"),
        data=dataclasses.replace(shipped.data, image=image, video=dataclasses.replace(video, frames=2)),
        stages=(
            dataclasses.replace(shipped.stages[0], steps=1),
            StageConfig(name="levels", steps=2, image_probability=0.0, structure_levels=(0, 7)),
        ),
        checkpoint=dataclasses.replace(shipped.checkpoint, every=1, keep=5),
        preview=dataclasses.replace(shipped.preview, every=0),
        dtype="float32",
        log_every=1,
    )


@pytest.fixture(scope="module")
def workdir(recipe, tmp_path_factory):
    """Of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "dit"
    assert train(recipe, workdir).step == 3
    return workdir


def test_a_run_that_was_broken_off_goes_on_bit_by_bit(recipe, workdir, tmp_path):
    assert train(recipe, tmp_path / "run", last_stage=0).step == 1
    assert train(recipe, tmp_path / "run").step == 3
    whole, broken = state(workdir, 3), state(tmp_path / "run", 3)
    assert whole.keys() == broken.keys() and any("temporal" in name for name in whole)
    for name, value in whole.items():
        np.testing.assert_array_equal(broken[name], value, err_msg=name)
    assert all(np.isfinite(entry["loss"]) for entry in read_log(workdir) if "loss" in entry)


def test_what_was_trained_edits_clips_and_is_exported_as_a_model_folder(workdir, tmp_path, capsys):
    folder = tmp_path / "model"
    assert main(["export", "--model", str(workdir), "-o", str(folder)]) == 0
    model = ModelFolder(folder)
    assert model.config.unet == TINY_DIT.unet == open_trained(workdir).config.unet
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    how = dict(image=frames[0], num_inference_steps=2, temporal_guidance_scale=1.5, guidance_interval=(0.0, 1.0))
    edits = [gen1_jax.Gen1Pipeline.from_pretrained(place).edit(frames, **how) for place in (folder, workdir)]
    assert edits[0].frames.shape == frames.shape
    np.testing.assert_array_equal(edits[0].frames, edits[1].frames)
    capsys.readouterr()
    assert main(["info", "--model", str(folder)]) == 0 and "depth" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["diffusers", "torch"])
def test_formats_of_unets_refuse_it_in_a_line(workdir, tmp_path, capsys, form):
    assert main(["export", "--model", str(workdir), "--format", form, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == f"gen1: the {form} format is of a U-Net, and this model's denoiser is a dit"
    assert not (tmp_path / "out").exists()


def test_the_second_part_goes_on_from_the_first_and_another_size_only_begins(recipe, workdir):
    again = read_recipe(CONFIGS / "nano_dit.py:again")
    trained = open_trained(workdir).config
    assert again.family(trained).unet == trained.unet and not again.from_scratch
    with pytest.raises(UserError, match="from_scratch=True"):
        dataclasses.replace(recipe, from_scratch=False).family(trained)
    with pytest.raises(UserError, match="size is 'huge'"):
        dataclasses.replace(recipe.unet, size="huge").network(trained.unet)
    source = ModelFolder(recipe.model)
    assert grown(source, source.config.unet) is source
    assert grown(source, recipe.family(source.config).unet).config.unet == TINY_DIT.unet  # as previews have it
