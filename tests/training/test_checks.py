"""What is refused or warned of before a run begins."""

import dataclasses
import warnings
from pathlib import Path

import pytest
from tiny import TINY

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.errors import UserError
from gen1_jax.training.checks import check_batches, check_sources
from gen1_jax.training.recipe import read_recipe

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"
ALONE = dict(data=1, fsdp=1, tensor=1, context=1)


@pytest.mark.parametrize(
    ("overrides", "mesh", "named"),
    [
        (["--config.microbatches.video=3"], {}, "8 videos .* 3 parts .*microbatches.video"),  # of a later stage
        (["--config.data.image.batch_size=6"], dict(data=2, fsdp=2), "6 images .* 4 devices .*data.image.batch_size"),
    ],
)
def test_batches_of_every_stage_are_checked(overrides, mesh, named):
    with pytest.raises(UserError, match=named):
        check_batches(read_recipe(SMOKE, overrides), ALONE | mesh)


def test_an_axis_that_divides_nothing_is_named():
    config = read_recipe(SMOKE)
    with pytest.warns(UserWarning, match="mesh.context=8 does not divide 4 frames"):
        check_batches(config, ALONE | dict(context=8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_batches(config, ALONE | dict(context=4))


def test_data_that_are_not_there_are_named(tmp_path):
    (tmp_path / "worlds").mkdir()
    source = [f"--config.data.image.sources=('{tmp_path}/worlds',)"]
    with pytest.raises(UserError, match=r"^nowhere: no such file or folder \(data.video.sources\)"):
        check_sources(read_recipe(SMOKE, [*source, "--config.data.video.sources=('nowhere',)"]))
    check_sources(read_recipe(SMOKE, [*source, f"--config.data.video.sources=('{tmp_path}/w*',)"]))


def test_the_recipe_says_what_is_predicted():
    unet, schedule = dataclasses.replace(TINY.unet, prediction_type="epsilon"), NoiseSchedule()
    base = dataclasses.replace(TINY, unet=unet, schedule=schedule)
    asked = ["--config.prediction_type=v_prediction"]
    config = dataclasses.replace(
        read_recipe(SMOKE, asked), schedule=dataclasses.replace(TINY.schedule, rescale_zero_terminal_snr=True)
    )
    family = config.family(base)
    assert family.unet.prediction_type == "v_prediction" and family.schedule.rescale_zero_terminal_snr
    assert read_recipe(SMOKE).family(base) == base
    with pytest.raises(UserError, match=r"prediction_type and schedule: .*zero terminal"):
        dataclasses.replace(config, prediction_type="epsilon").family(base)
    with pytest.raises(UserError, match="component is vae"):
        read_recipe(SMOKE, [*asked, "--config.component=vae"])
