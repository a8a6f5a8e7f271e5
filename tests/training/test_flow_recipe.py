"""nano as a rectified flow, shrunk: the shipped recipe, and what comes of it in edits, exports and rivals."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY
from training_runs import make_latents

from gen1_jax import Gen1Pipeline
from gen1_jax.cli import main
from gen1_jax.diffusion import NoiseSchedule, TimestepDensity, training_target
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.sampling import Known
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.evaluation.info import describe, render
from gen1_jax.evaluation.methods import methods
from gen1_jax.models.module import initialise
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import AssembledModel, ModelFolder
from gen1_jax.training.consistency import ConsistencyObjective, distilled
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.loop import train
from gen1_jax.training.metrics import read_log
from gen1_jax.training.recipe import read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
FLOW = NoiseSchedule(use_flow_sigmas=True)
FAMILY = dataclasses.replace(
    TINY, unet=dataclasses.replace(TINY.unet, prediction_type="flow_prediction"), schedule=FLOW, sampler="euler"
)
FRAMES = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def recipe(tiny_model, tmp_path_factory):
    """The recipe that ships, in two steps."""
    latents = make_latents(tmp_path_factory.mktemp("latents") / "noise", tiny_model, clips=4)
    fields = (
        *(f"model={tiny_model}", "dtype=float32", "preview.every=0", "data.image_probability=0.0"),
        *(f"data.video.sources=('{latents}',)", "data.video.buckets=((16, 16),)", "data.video.batch_size=2"),
        *("data.video.frames=2", "unet.prior_probability=0.0", "stages[0].steps=2", "optimizer.warmup_steps=0"),
    )
    return read_recipe(CONFIGS / "nano_flow.py", [f"--config.{field}" for field in fields])


@pytest.fixture(scope="module")
def folder(recipe, tmp_path_factory):
    """The model folder of its run."""
    workdir = tmp_path_factory.mktemp("runs") / "flow"
    train(recipe, workdir)
    losses = {name: x for entry in read_log(workdir) for name, x in entry.items() if name.startswith("loss")}
    assert np.isfinite(losses["loss"]) and any(name == "loss_t1-250" for name in losses)
    assert main(["export", "--model", str(workdir), "-o", str(workdir / "folder")]) == 0
    return workdir / "folder"


@pytest.fixture(scope="module")
def pipeline(folder):
    return Gen1Pipeline.from_pretrained(folder)


def test_the_recipe_makes_a_family_of_flow(recipe, folder):
    config = ModelFolder(folder).config
    assert config == recipe.family(TINY) == FAMILY == Gen1Config.from_dict(FAMILY.to_dict())
    assert "rectified flow: 50 steps of euler, shift 1" in render(describe(str(folder)))
    back = dataclasses.replace(recipe, prediction_type="v_prediction", schedule=TINY.schedule)
    assert back.family(config) == TINY
    with pytest.raises(UserError, match=r"is v_prediction, but with use_flow_sigmas it is one of flow_pred"):
        dataclasses.replace(recipe, prediction_type=None).family(TINY)
    with pytest.raises(UserError, match=r"is flow_prediction, but without use_flow_sigmas"):
        dataclasses.replace(recipe, schedule=None).family(TINY)
    with pytest.raises(UserError, match="unknown sampler 'ddim'; choose one of: euler, midpoint"):
        dataclasses.replace(FAMILY, sampler="ddim")


def test_a_unet_takes_its_noise_along(tiny_model, folder):
    tiny, flow = ModelFolder(tiny_model), ModelFolder(folder)
    assert AssembledModel(tiny, {"unet": flow}).config == flow.config
    assert AssembledModel(flow, {"unet": tiny}).config == tiny.config
    assert AssembledModel(tiny, {"vae": flow}).config == tiny.config


def test_the_loss_is_that_of_the_velocity_at_timesteps_of_the_density():
    """A model that answers nothing has the mean square of eps - x_0 as its loss, and counts it where it belongs."""
    settings = DenoisingConfig(timesteps=TimestepDensity(density="logit_normal", logit_mean=9.0, logit_std=0.1))
    objective = DenoisingObjective(FAMILY, settings)
    params = jax.tree.map(jnp.zeros_like, initialise(objective.module, 0))
    inputs = jax.tree.map(jnp.asarray, objective.inputs(random_latents(FAMILY, "video", 4)))
    keys = jax.random.split(jax.random.key(0), 4)
    losses, by_noise = jax.jit(objective.loss)(params, {}, inputs, keys)
    given = jax.jit(objective.prepare)(params, {}, inputs, keys)
    assert given.timestep.tolist() == [1000] * 4
    target = training_target("flow_prediction", given.latents, given.noise, *FLOW.alpha_sigma(given.timestep))
    np.testing.assert_allclose(losses, jnp.square(given.noise - given.latents).mean((1, 2, 3, 4)), rtol=1e-5)
    np.testing.assert_array_equal(target, given.noise - given.latents)
    assert list(by_noise) == ["loss_t1-250", "loss_t251-500", "loss_t501-750", "loss_t751-1000"]
    np.testing.assert_array_equal(by_noise["loss_t751-1000"], losses)


@pytest.mark.parametrize("sampler", ["euler", "midpoint"])
def test_edits_of_all_kinds(pipeline, sampler):
    """Longer than the window, from the input, under guidance in a part of the steps, and under a mask."""
    edit = lambda frames=FRAMES, **options: pipeline.edit(
        frames, **{"prompt": "a golden car", "sampler": sampler, "num_inference_steps": 4} | options
    )
    one = edit()
    assert one.frames.shape == FRAMES.shape
    np.testing.assert_array_equal(edit().frames, one.frames)
    if sampler == "midpoint":
        long = edit(np.concatenate([FRAMES, FRAMES]), temporal_guidance_scale=1.5, guidance_interval=(0.25, 0.75))
        assert long.frames.shape == (6, 16, 16, 3)
    assert (edit(strength=0.75).frames != one.frames).any()
    mask = np.zeros((16, 16), np.float32)
    mask[:, 8:] = 1
    masked = edit(mask=mask, mask_feather=0.0).frames
    np.testing.assert_array_equal(masked[:, :, :6], FRAMES[:, :, :6])
    assert (masked[:, :, 10:] != FRAMES[:, :, 10:]).any()
    if sampler == "midpoint":
        assert (edit(sampler="euler").frames != one.frames).any()


def test_what_is_known_is_kept_by_every_step_and_the_rest_by_none(pipeline):
    settings = EditSettings(num_inference_steps=3).of(pipeline.config)
    told, maps = pipeline.encode_content("a car", [], settings), pipeline.read_structure(FRAMES, settings)
    left = jnp.zeros((1, 3, 8, 8, 1)).at[:, :, :, :4].set(1.0)
    given = KnownLatents(jnp.full((1, 3, 8, 8, 4), 0.3), left)
    seen = []
    watch = lambda step, steps, latents: seen.append(np.asarray(latents))
    pipeline.sample(told, maps, settings, frames=FRAMES, given=given, watch=watch)
    spread = [(x[:, :, :, :4].std(), x[:, :, :, 4:].std()) for x in seen]
    # the path of what is known is straight to it: noise falls to 2 / 3, 1 / 3 and 0
    np.testing.assert_allclose([kept for kept, _ in spread], [2 / 3, 1 / 3, 0], atol=0.06)
    np.testing.assert_allclose(seen[-1][:, :, :, :4], 0.3, atol=1e-5)
    assert spread[-1][1] > 0.1
    conditions = dataclasses.replace(told, structure=pipeline.encode_structure(maps, settings))
    run = lambda known: pipeline.sampler(settings)(
        (1, 3, 8, 8, 4), 0, conditions, settings.guidance(TINY.unet), known=known
    )
    free = Known(jnp.full((1, 3, 8, 8, 4), 9.0), jnp.ones((1, 3, 8, 8, 1)))  # where all may change nothing is held
    np.testing.assert_array_equal(run(free), run(None))


def test_what_makes_no_sense_is_refused_in_one_line(pipeline, recipe):
    refused = {
        "unknown sampler 'ddim'; choose one of: euler, midpoint": lambda: pipeline.edit(
            FRAMES, prompt="a car", sampler="ddim"
        ),
        "objective consistency: LCM is for variance": lambda: distilled(FAMILY, DenoisingConfig().consistency),
        "objective consistency has timesteps of its own": lambda: ConsistencyObjective(
            distilled(TINY, DenoisingConfig().consistency), recipe.unet
        ),
        "min_snr and a density": lambda: dataclasses.replace(recipe.unet, weighting="min_snr"),
    }
    for message, make in refused.items():
        with pytest.raises(UserError, match=message):
            make()


def test_the_benchmark_compares_samplers_of_flow():
    names = lambda config: [m.name for m in methods(EditSettings().of(config), config)]
    flow, usual = names(FAMILY), names(TINY)
    assert [n for n in flow if n.startswith("sampler")] == ["sampler=midpoint"]
    assert [n for n in usual if n.startswith("sampler")] == ["sampler=dpm++"]
    assert {n for n in usual if "friendly" not in n} - {"sampler=dpm++"} == set(flow) - {"sampler=midpoint"}
    assert any("friendly" in n for n in usual)
