"""Distilling few steps: one step of training, a whole run of the shipped recipe, and what comes of it.

What is compiled is of a transformer, which takes a third of the time of a U-Net.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, TINY_PUBLIC, save_tiny_model
from training_runs import make_latents

from gen1_jax import Gen1Pipeline
from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.cli import main
from gen1_jax.diffusion import Guidance, guided_denoiser
from gen1_jax.diffusion.density import TimestepDensity
from gen1_jax.diffusion.distillation import ConsistencyConfig
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.evaluation.info import describe, render
from gen1_jax.models.denoiser_inputs import conditions_of
from gen1_jax.models.growing import grow
from gen1_jax.models.low_rank import LowRankConfig
from gen1_jax.models.module import Bound, abstract_parameters, flatten, initialise
from gen1_jax.pretrained.folder import AssembledModel, ModelFolder
from gen1_jax.pretrained.sizes import TINY_DIT
from gen1_jax.training.consistency import ConsistencyObjective, distilled
from gen1_jax.training.denoising import DenoisingConfig
from gen1_jax.training.learned import WholeNetwork
from gen1_jax.training.loop import train
from gen1_jax.training.metrics import read_log
from gen1_jax.training.objective import Context
from gen1_jax.training.recipe import read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
SETTINGS = DenoisingConfig(content_dropout=0.0)
BY_DATA = ConsistencyConfig(teacher=False, parts=4, teacher_steps=40)
FAMILY, FAMILY_DIT = (distilled(base, SETTINGS.consistency) for base in (TINY, TINY_DIT))


@pytest.fixture(scope="module")
def teacher():
    """A network none of whose parameters is 0, with zeros for what it is told of guidance."""
    rng = np.random.default_rng(0)
    params = initialise(TINY_DIT.build("unet", np.float32), 0)
    params = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), params)
    return jax.tree.map(jnp.asarray, grow(params, TINY_DIT.unet, FAMILY_DIT.unet))


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "teacher", TINY_DIT)


@pytest.fixture(scope="module")
def recipe(teacher_folder, tmp_path_factory):
    """The recipe that ships, shrunk, in two stages alike."""
    latents = make_latents(tmp_path_factory.mktemp("latents") / "noise", teacher_folder, clips=4)
    fields = (
        *(f"model={teacher_folder}", "dtype=float32", "preview.every=0", "data.image_probability=0.0"),
        *(f"data.video.sources=('{latents}',)", "data.video.buckets=((16, 16),)", "data.video.batch_size=2"),
        *("data.video.frames=2", "unet.prior_probability=0.0", "optimizer.schedule=constant", "stages[0].steps=6"),
        *("optimizer.learning_rate=3e-3", "optimizer.warmup_steps=0"),
    )
    recipe = read_recipe(CONFIGS / "nano_fast.py", [f"--config.{field}" for field in fields])
    stages = tuple(dataclasses.replace(recipe.stages[0], name=name) for name in ("one", "two"))
    return dataclasses.replace(recipe, stages=stages)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The workdir of all of it."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    train(recipe, workdir)
    return workdir


def predictions(params, *scales):
    """Of one clip, told each of these (w, w_t)."""
    rng, params = np.random.default_rng(1), jax.tree.map(jnp.asarray, params)
    latents, depth = (jnp.asarray(rng.normal(size=(1, 3, 4, 4, 4)), jnp.float32) for _ in range(2))
    told = conditions_of(FAMILY_DIT.unet, jnp.ones((1, 1, 16)), depth, jnp.array([0]))
    unet = Bound(FAMILY_DIT.build("unet", np.float32), params)
    return [np.asarray(unet.denoise(latents, jnp.array([700]), told.with_guidance(*each))[0]) for each in scales]


def test_a_run_teaches_the_student_both_scales(teacher, whole):
    losses = [entry["loss"] for entry in read_log(whole) if "loss" in entry]
    assert losses and np.isfinite(losses).all() and min(losses) > 0
    scales = (1.0, 1.0), (3.0, 1.0), (1.0, 0.6)
    one, *others = predictions(teacher, *scales)
    assert all(np.array_equal(one, other) for other in others)
    one, *others = predictions(open_trained(whole).parameters("unet"), *scales)
    assert all(np.abs(one - other).max() > 1e-4 for other in others)


def test_the_target_is_the_running_mean_and_the_teacher_is_guided(teacher, monkeypatch):
    objective, frozen = ConsistencyObjective(FAMILY_DIT, SETTINGS), {"unet": teacher}
    inputs = jax.tree.map(jnp.asarray, objective.inputs(random_latents(TINY_DIT, "video", 4)))
    keys, guided = jax.random.split(jax.random.key(0), 4), []
    monkeypatch.setattr(
        "gen1_jax.training.consistency.guided_denoiser",
        lambda model, told, guidance: guided.append(guidance) or guided_denoiser(model, told, guidance),
    )

    @jax.jit
    def loss(frozen, ema):
        total = lambda *given: objective.loss(teacher, given[0], inputs, keys, Context(given[1]))[0].sum()
        return jax.value_and_grad(total, (0, 1))(frozen, ema)

    total, slopes = loss(frozen, teacher)
    assert total > 0 and not any(x.any() for x in jax.tree.leaves(slopes))
    moved = jax.tree.map(lambda x: 1.01 * x, teacher)
    assert loss(frozen, moved)[0] != total and loss({"unet": moved}, teacher)[0] != total
    (guidance,) = guided
    assert guidance.branches == Guidance.of(3.0, 1.2).branches and guidance.guidance_scale.shape == (4,)


@pytest.mark.parametrize("parts", [1, 4])
def test_of_several_parts_the_loss_is_told_where_each_ends(monkeypatch, parts):
    settings = dataclasses.replace(
        SETTINGS, consistency=ConsistencyConfig(parts=parts, teacher_steps=50 if parts == 1 else 40)
    )
    objective, told = ConsistencyObjective(FAMILY, settings), []
    inputs = jax.tree.map(jnp.asarray, objective.inputs(random_latents(TINY, "video", 4)))
    monkeypatch.setattr(
        "gen1_jax.training.consistency.consistency_loss",
        lambda *, end, now, **_: told.append(end) or jnp.zeros(len(now)),
    )
    keys = jax.random.split(jax.random.key(0), 4)
    unet = abstract_parameters(objective.module)
    jax.eval_shape(lambda unet: objective.loss(unet, {"unet": unet}, inputs, keys, Context(unet)), unet)
    assert told[0] is None if parts == 1 else told[0].shape == (4,)


def test_without_a_teacher_the_network_is_its_own_target_ever_nearer(teacher):
    settings = dataclasses.replace(SETTINGS, consistency=BY_DATA, timesteps=TimestepDensity(density="logit_normal"))
    family = distilled(TINY_DIT, BY_DATA)
    objective = ConsistencyObjective(family, settings)
    assert objective.frozen == () and isinstance(objective.learned, WholeNetwork)
    inputs = jax.tree.map(jnp.asarray, objective.inputs(random_latents(TINY_DIT, "video", 4)))
    weights = {name: x for name, x in teacher.items() if name != "guidance_embedding"}
    keys = jax.random.split(jax.random.key(0), 4)
    loss = jax.jit(lambda ema, step: objective.loss(weights, {}, inputs, keys, Context(ema, step))[0].sum())
    first, later = loss(weights, 0), loss(weights, 5000)
    assert first > 2 * later > 0 and loss(jax.tree.map(jnp.zeros_like, weights), 0) == first


def test_a_family_without_a_teacher_is_guided_as_before():
    one, four = distilled(TINY, ConsistencyConfig(teacher=False)), distilled(TINY, BY_DATA)
    assert one.unet == TINY.unet and one.guidance_scale == TINY.guidance_scale
    assert [(each.sampler, each.num_inference_steps) for each in (one, four)] == [("lcm", 4), ("ddim", 4)]
    own = EditSettings().of(one)
    assert (own.num_inference_steps, own.guidance_scale) == (4, TINY.guidance_scale)
    assert EditSettings(sampler="lcm").of(four).num_inference_steps == 6  # as of any model that has another


def test_an_adapter_is_a_student_too():
    """A low-rank change of the teacher, of the projection of guidance as well; at first it is the teacher."""
    lora = LowRankConfig(rank=2, targets=("attention", r"^guidance_embedding\."))
    objective = ConsistencyObjective(FAMILY, dataclasses.replace(SETTINGS, lora=lora))
    base = jax.tree.map(jnp.asarray, initialise(objective.module, 0))
    learned = objective.learned.initial(base, 0)
    assert "guidance_embedding" in learned and flatten(learned).keys() != flatten(base).keys()
    weights = objective.learned.weights(objective.learned.frozen(base), learned)
    assert jax.tree.all(jax.tree.map(np.array_equal, weights, base))
    assert isinstance(ConsistencyObjective(FAMILY, SETTINGS).learned.learned, WholeNetwork)


def test_a_distilled_family():
    assert (FAMILY.sampler, FAMILY.num_inference_steps, FAMILY.guidance_interval) == ("lcm", 4, (0.0, 1.0))
    assert FAMILY.guidance_scale == 4 < TINY.guidance_scale  # as near as was learned
    assert distilled(FAMILY, SETTINGS.consistency) == FAMILY == type(FAMILY).from_dict(FAMILY.to_dict())
    parts = distilled(TINY, ConsistencyConfig(parts=4, teacher_steps=40))
    assert (parts.sampler, parts.num_inference_steps, parts.guidance_scale) == ("ddim", 4, 4)
    assert distilled(TINY, ConsistencyConfig(guidance_scale=2.5)).guidance_scale == 2.5
    with pytest.raises(UserError, match="guidance_scale is 5, not in guidance_scales, 1 to 4"):
        ConsistencyConfig(guidance_scale=5.0)
    with pytest.raises(UserError, match="zero terminal SNR"):
        schedule = dataclasses.replace(TINY.schedule, rescale_zero_terminal_snr=False)
        distilled(dataclasses.replace(TINY, schedule=schedule), ConsistencyConfig(parts=2))
    with pytest.raises(UserError, match="without controls"):
        distilled(TINY_PUBLIC, ConsistencyConfig())
    with pytest.raises(UserError, match="min_snr"):
        ConsistencyObjective(FAMILY, dataclasses.replace(SETTINGS, weighting="min_snr"))


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_same_bit_for_bit(recipe, whole, tmp_path):
    train(recipe, tmp_path / "broken", last_stage=0)
    train(recipe, tmp_path / "broken")
    first, second = (flatten(open_trained(place).parameters("unet")) for place in (tmp_path / "broken", whole))
    assert all(np.array_equal(first[path], second[path]) for path in second)


def test_what_is_exported_edits_in_four_steps_and_teaches_nobody(teacher_folder, recipe, whole, tmp_path):
    assert main(["export", "--model", str(whole), "-o", str(tmp_path / "fast")]) == 0
    assert "distilled for w 1 to 4, w_t 0.5 to 1.5: 4 steps of ddim" in render(describe(str(tmp_path / "fast")))
    teacher, fast = ModelFolder(teacher_folder), ModelFolder(tmp_path / "fast")
    assert fast.config == open_trained(whole).config == distilled(teacher.config, recipe.unet.consistency)
    assert AssembledModel(teacher, {"unet": fast}).config == fast.config
    assert AssembledModel(fast, {"unet": teacher}).config == teacher.config
    pipeline, frames = Gen1Pipeline.from_pretrained(tmp_path / "fast"), np.zeros((2, 16, 16, 3), np.uint8)
    edit = lambda **scales: pipeline.edit(frames, prompt="a golden car", **scales).frames
    for scales in ({"guidance_scale": 1.0}, {"temporal_guidance_scale": 0.6}):
        assert (edit(**scales) != edit()).any()
    for scales in ({"guidance_scale": 4.5}, {"temporal_guidance_scale": 0.4}):
        with pytest.raises(UserError, match="was distilled for"):
            edit(**scales)
    with pytest.raises(UserError, match="was distilled for few steps"):
        train(dataclasses.replace(recipe, model=str(tmp_path / "fast")), tmp_path / "again")
    assert not (tmp_path / "again").exists()
