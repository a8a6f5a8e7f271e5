"""A learned split, from its recipe to edits by a picture or a clip, and a folder of its own.

What is trained is a transformer, which compiles in a third of the time of a U-Net.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, TINY_SPLIT, save_tiny_model
from training_runs import make_latents, state

from gen1_jax import Gen1Pipeline
from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.cli import main
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.media import save_video
from gen1_jax.models.module import Joint, flatten, initialise
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.sizes import TINY_DIT
from gen1_jax.training.denoising import DenoisingConfig
from gen1_jax.training.loop import train
from gen1_jax.training.recipe import read_recipe
from gen1_jax.training.split import SplitObjective, SplitTrainingConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPE = SplitTrainingConfig(grid=4, groups=2, bits=4, width=8)
FAMILY = SHAPE.family(TINY_DIT)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "base", TINY_DIT)


@pytest.fixture(scope="module")
def recipe(base, tmp_path_factory):
    """The recipe that ships, shrunk."""
    latents = make_latents(tmp_path_factory.mktemp("latents") / "noise", base, clips=4)
    fields = (
        *(f"model={base}", "dtype=float32", "data.image_probability=0.0", "optimizer.warmup_steps=0"),
        *(f"data.video.sources=('{latents}',)", "data.video.buckets=((16, 16),)", "data.video.batch_size=2"),
        *("data.video.frames=2", "split.grid=4", "split.groups=2", "split.bits=4", "split.width=8"),
        *("optimizer.learning_rate=3e-3", "stages[0].steps=2", "checkpoint.every=1"),
    )
    return read_recipe(CONFIGS / "nano_split.py", [f"--config.{field}" for field in fields])


@pytest.fixture(scope="module")
def workdir(recipe, tmp_path_factory):
    """Of all of it."""
    workdir = tmp_path_factory.mktemp("runs") / "split"
    assert train(recipe, workdir).step == 2
    return workdir


@pytest.fixture(scope="module")
def folder(workdir):
    folder = workdir.with_name("model")
    assert main(["export", "--model", str(workdir), "-o", str(folder)]) == 0
    return folder


def test_both_networks_learn_and_the_unet_begins_as_that_of_the_model(recipe, workdir, base):
    model, base = open_trained(workdir, ema=False), ModelFolder(base)
    assert model.config == FAMILY and model.components == ("unet", "split") and model.words is None
    networks = {name: FAMILY.build(name, np.float32) for name in model.components}
    begun = {"unet": base.parameters("unet"), "split": initialise(Joint(**networks), recipe.seed)["split"]}
    for name in model.components:
        now, then = flatten(model.parameters(name)), flatten(begun[name])
        assert now.keys() == then.keys()
        far = {path: np.abs(now[path] - then[path]).max() for path in now}
        assert 0 < max(far.values()) < 0.02, name  # two steps of Adam
    learned = {path.split(".")[0] for path in now if far[path] > 0}
    assert learned == {"structure_tower", "to_code", "from_code", "to_maps", "content_tower", "pooling"}
    np.testing.assert_array_equal(*(flatten(x.parameters("vae"))["quant_conv.bias"] for x in (model, base)))


def test_a_run_goes_on_from_both(recipe, workdir):
    before = state(workdir, 2)
    assert train(recipe, workdir).step == 2  # restored, and there is nothing left to do
    assert {name.split("'")[1] for name in before if name.startswith("params")} == {"unet", "split"}
    longer = dataclasses.replace(recipe, split=dataclasses.replace(recipe.split, bits=3))
    with pytest.raises(UserError, match=r"split\.bits"):
        train(longer, workdir)


def test_its_folder_edits_by_a_picture_or_a_clip(workdir, folder, tmp_path, capsys):
    assert ModelFolder(folder).config == FAMILY
    rng = np.random.default_rng(0)
    clip, other = (rng.integers(0, 255, (3, *size, 3), np.uint8) for size in ((16, 16), (12, 24)))
    for name in ("unet", "split"):
        jax.tree.map(
            np.testing.assert_array_equal, *(x.parameters(name) for x in (ModelFolder(folder), open_trained(workdir)))
        )
    pipeline = Gen1Pipeline.from_pretrained(folder)
    told = [pipeline.content.of_frames(frames).content["split"] for frames in (clip, clip[:1])]
    assert np.abs(told[0] - told[1]).max() > 1e-3
    files = [tmp_path / name for name in ("in.mp4", "other.mp4", "out.mp4")]
    for frames, file in zip((clip, other), files, strict=False):
        save_video(frames, file, 8)
    edit = ["edit", str(files[0]), "-o", str(files[2]), "--model", str(folder), "--steps", "2"]
    assert main([*edit, "--image", str(files[1])]) == 0 and files[2].exists()
    capsys.readouterr()
    assert main([*edit, "--prompt", "a clay world"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said == ["gen1: model reads no text, its content is learned: show it a picture or a clip"]


def test_what_is_said_of_it_and_where_it_does_not_fit(tmp_path, capsys):
    """Of a U-Net: formats that have no place for a transformer say that of it."""
    folder = save_tiny_model(tmp_path / "model", TINY_SPLIT)
    capsys.readouterr()
    assert main(["info", "--model", str(folder)]) == 0
    assert "4 x 4 cells, 2 groups of 4 bits, 128 bits a frame" in capsys.readouterr().out
    for form in ("diffusers", "torch", "stablehlo"):
        assert main(["export", "--model", str(folder), "--format", form, "-o", str(tmp_path / "out")]) == 2
        assert f"the {form} format has no place for a learned split" in capsys.readouterr().err
    data = ["--data", "worlds:1", "--model", str(folder), "--out", str(tmp_path / "latents")]
    assert main(["precompute", *data, "--structure", "split"]) == 2
    assert "nothing to precompute" in capsys.readouterr().err


def test_the_code_is_of_the_pair_and_gradients_reach_both_halves():
    split = dataclasses.replace(SHAPE, paired=1.0)
    objective = SplitObjective(TINY_SPLIT, DenoisingConfig(content_dropout=0.0), split)
    batch = random_latents(TINY, "video", 2)
    with pytest.raises(UserError, match="no source: name it in data"):
        objective.inputs(batch)
    batch = dataclasses.replace(batch, structure={"source": batch.structure["depth"]})
    inputs = jax.tree.map(jnp.asarray, objective.inputs(batch))
    assert set(inputs) == {"moments", "source"}
    weights = initialise(objective.module, 0)
    rng = np.random.default_rng(0)  # a U-Net whose last layers are zeros would hide what it is told
    unet = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), weights["unet"])
    keys = jax.random.split(jax.random.key(0), 2)

    @jax.jit
    def loss(split, unet, inputs):
        total = lambda split: objective.loss({"unet": unet, "split": split}, {}, inputs, keys)[0].sum()
        return jax.value_and_grad(total)(split)

    total, slopes = loss(weights["split"], unet, inputs)
    norms = {name: sum(np.abs(x).sum() for x in jax.tree.leaves(part)) for name, part in slopes.items()}
    assert all(norm > 0 for norm in norms.values()), norms
    swapped = loss(weights["split"], unet, inputs | {"source": inputs["source"][::-1] * 3})[0]
    assert abs(swapped - total) > 1e-4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["preview.every=10"], "preview.every"),
        (["split.paired=2.0"], "split.paired is 2.0"),
        (["split.bits=20"], "split.bits is 20"),
        (["split.grid=2"], "a split of another shape"),
    ],
)
def test_recipes_that_cannot_be_are_refused_in_a_line(recipe, fields, said):
    with pytest.raises(UserError, match=said):
        read_recipe(CONFIGS / "nano_split.py:pairs", [f"--config.{field}" for field in fields]).family(TINY_SPLIT)
    for wrong in (dict(trained=("motion",)), dict(prior_probability=0.5)):
        with pytest.raises(UserError, match=f"unet.{next(iter(wrong))} is not for the objective split"):
            SplitObjective(TINY_SPLIT, DenoisingConfig(**wrong), SHAPE, tokenizer=lambda: None)
