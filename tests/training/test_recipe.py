"""Recipes: files, overrides, and what may change between two runs of one."""

import dataclasses
from pathlib import Path

import pytest

from gen1_jax.errors import UserError
from gen1_jax.models.unet import ControlConfig, UNetConfig
from gen1_jax.training.config import StageConfig, TrainConfig
from gen1_jax.training.denoising import DenoisingConfig
from gen1_jax.training.recipe import differences, read_recipe

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_shipped_recipes_are_whole(path):
    config = read_recipe(path)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.total_steps == config.first_step(len(config.stages))


@pytest.mark.parametrize("name", ["nano", "nano_vae", "nano_prior"])
def test_recipes_that_go_on_do_so_from_weights_and_refuse_other_words(name):
    config = read_recipe(f"{CONFIGS / name}.py:again")
    assert not config.from_scratch and [stage.name for stage in config.stages] == ["again"]
    assert differences(read_recipe(CONFIGS / f"{name}.py").to_dict(), config.to_dict())
    with pytest.raises(ValueError, match=f"{name}.py:agian: ValueError: after the colon") as told:
        read_recipe(f"{CONFIGS / name}.py:agian")
    assert "Traceback" not in str(told.value)


def test_stages_see_the_kinds_that_they_name():
    kinds = lambda structure: StageConfig(name="a", steps=1, structure=structure).kinds(("depth", "canny"))
    assert [kinds(s) for s in (True, False, ("canny",), ("canny", "depth"))] == [
        ("depth", "canny"),
        (),
        ("canny",),
        ("depth", "canny"),
    ]
    with pytest.raises(UserError, match="stage a: this model takes no structure of kind 'pose', only depth, canny"):
        kinds(("pose",))
    smoke = read_recipe(CONFIGS / "smoke.py").to_dict()
    stages = [{**smoke["stages"][0], "structure": ["depth"]}, *smoke["stages"][1:]]
    assert TrainConfig.from_dict({**smoke, "stages": stages}).stages[0].structure == ("depth",)
    with pytest.raises(UserError, match=r"stage images sees depth, .*data\.structure"):
        TrainConfig.from_dict({**smoke, "stages": stages, "data": {**smoke["data"], "inputs": "maps", "structure": ()}})


def test_of_inputs_that_a_model_can_do_without_a_stage_sees_those_of_the_data():
    """A recipe for a model of one structure is one for the same model with more."""
    recipe = read_recipe(CONFIGS / "own.py")
    several = UNetConfig(structure_kinds=("depth", "edges", "source"), structure_optional=True)
    needed = dataclasses.replace(several, structure_optional=False)
    stage = lambda structure: dataclasses.replace(recipe.stages[0], structure=structure)
    seen = lambda structure, unet: recipe.seen_kinds(stage(structure), unet)
    assert seen(True, several) == ("depth",) and seen(True, needed) == ("depth", "edges", "source")
    assert seen(False, several) == () and seen(("source", "depth"), several) == ("depth", "source")
    public = UNetConfig(structure_channels=0, controls=(ControlConfig(kind="canny"),))
    assert seen(True, public) == ("canny",)


@pytest.mark.parametrize(
    ("inputs", "structure", "expected"),
    [
        ("pixels", ("depth",), ("depth", "source", "normals")),  # all that a step can estimate, whatever is named
        ("depth", ("normals",), ("depth",)),
        ("maps", ("normals", "edges"), ("edges", "normals")),
        ("latents", ("source",), ("source",)),
    ],
)
def test_what_there_is_to_see_follows_from_what_batches_hold(inputs, structure, expected):
    pictures = read_recipe(CONFIGS / "pictures.py")
    unet = UNetConfig(structure_kinds=("depth", "source", "edges", "normals"), structure_optional=True, known=True)
    data = dataclasses.replace(pictures.data, inputs=inputs, structure=structure)
    recipe = dataclasses.replace(pictures, data=data)
    assert recipe.seen_kinds(recipe.stages[0], unet) == expected
    other = dataclasses.replace(recipe, component="vae", unet=DenoisingConfig())
    assert other.seen_kinds(other.stages[0], unet) == ()


def test_structure_that_a_recipe_asks_for_is_not_left_out_in_silence():
    nano2 = read_recipe(CONFIGS / "nano2.py")
    unet = UNetConfig(structure_kinds=nano2.data.structure, structure_optional=True, known=True)
    assert nano2.seen_kinds(nano2.stages[0], unet) == nano2.data.structure
    less = dataclasses.replace(nano2.data, structure=("depth", "edges"))
    with pytest.raises(UserError, match=r"sees flow \(unet\.inputs\), but batches have depth, edges \(data\.structure"):
        dataclasses.replace(nano2, data=less)
    none = dataclasses.replace(nano2.stages[0], structure=False)
    assert dataclasses.replace(nano2, data=less, stages=(none,)).seen_kinds(none, unet) == ()
    own = read_recipe(CONFIGS / "own.py")
    blind = UNetConfig(structure_kinds=("edges", "normals"), structure_optional=True)
    with pytest.raises(UserError, match=r"would see nothing: the model takes edges, normals, and batches have depth"):
        own.seen_kinds(own.stages[0], blind)


def test_the_papers_recipe():
    config = read_recipe(CONFIGS / "gen1.py")
    assert [stage.steps for stage in config.stages] == [15_000, 75_000, 25_000, 10_000]
    assert (config.data.image.batch_size, config.data.video.batch_size) == (9216, 1152)
    assert (config.data.image_probability, config.data.video.frames) == (0.125, 8)
    assert [stage.structure for stage in config.stages] == [False, False, True, True]
    assert [stage.structure_levels for stage in config.stages[2:]] == [(0, 0), (0, 7)]
    assert config.stage_data(0).image_probability == 1


def test_overrides_reach_every_field():
    config = read_recipe(
        CONFIGS / "smoke.py",
        [
            "--config.data.video.sources=('a', 'b')",
            "--config.mesh.fsdp=2",  # not in the file
            "--config.stages[1].steps=7",
            "--config.stages[1].learning_rate=0.5",  # None by default, as these two
            "--config.stages[0].structure_levels=(1, 2)",
            "--config.checkpoint.keep_every=5",
            "--config.optimizer.learning_rate=3",
            "--config.remat=true",
        ],
    )
    assert [source.path for source in config.data.video.sources] == ["a", "b"]
    assert (config.mesh.fsdp, config.stages[1].steps, config.checkpoint.keep_every) == (2, 7, 5)
    assert (config.stages[1].learning_rate, config.stages[0].structure_levels) == (0.5, (1, 2))
    assert config.stages[0].learning_rate is None
    assert (config.optimizer.learning_rate, config.remat) == (3.0, True)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("--config.optimizer.learning_rat=3", "^--config.optimizer.learning_rat: .*; did you mean learning_rate.*$"),
        ("--config.optimizer.learning_rate=x", "^--config.optimizer.learning_rate is a number, not 'x'$"),
        ("--config.dtype=int8", "dtype is 'int8', not one of bfloat16, float32$"),
        ("--config.prediction_type=noise", "not one of v_prediction, .*, flow_prediction$"),  # it may be None, too
        ("--config.optimizer.beta1=2", "beta1"),
        ("--config.foo=2", "a recipe has no field 'foo'; it has .*component"),
        ("--config.stages.0.stepz=2", r"stages\[0\] has no field 'stepz'; did you mean steps"),
        ("--config.stages.9.steps=2", "stages has 4 elements"),
        ("--config.seed=1.5", "^--config.seed is a whole number, not '1.5'$"),
        ("--config.seed.x=1", "seed has no fields"),
        ("--config.data.video=3", "data.video is a group of fields"),
        ("--config.remat=maybe", "remat is true or false"),
        ("--config.preview.prompts=('a'", "preview.prompts is a list"),
        ("--config.stages[0].structure_levels=(3,9)", "stage images: structure_levels 3 to 9"),
        ("--config.data.structure_levels=(2,1)", "structure_levels 2 to 1"),
        ("--config.stages[1].image_probability=2.0", "stage videos: image_probability"),
        ("--config.mesh.fsdp", "^--config.mesh.fsdp has no value: give --config.mesh.fsdp=VALUE$"),
        ("--config.checkpoint.every=0", "checkpoint.every"),
        ("--config.microbatches.video=0", "microbatches"),
        ("--config.preview.every=-1", "preview.every"),
        ("--config.vae.decoder_only=True", "weight_decay must be 0"),
    ],
)
def test_wrong_overrides_are_named_in_one_line(override, named):
    with pytest.raises(ValueError, match=named) as error:
        read_recipe(CONFIGS / "smoke.py", [override])
    assert "\n" not in str(error.value)


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_recipe(tmp_path / "none.py")
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(): return 1 / 0\n")
    with pytest.raises(ValueError, match="division by zero"):
        read_recipe(broken)


def test_stages_need_names_and_draw_other_batches():
    smoke = read_recipe(CONFIGS / "smoke.py")
    assert len({smoke.stage_data(stage).seed for stage in range(4)}) == 4
    with pytest.raises(ValueError, match="names of their own"):
        TrainConfig(data=smoke.data, stages=(StageConfig(name="a", steps=1), StageConfig(name="a", steps=1)))


def test_what_may_change_between_runs():
    smoke = read_recipe(CONFIGS / "smoke.py").to_dict()
    free = ["--config.mesh.fsdp=2", "--config.log_every=9", "--config.data.video.sources=('elsewhere',)"]
    assert not differences(smoke, read_recipe(CONFIGS / "smoke.py", free).to_dict())
    other = read_recipe(CONFIGS / "smoke.py", ["--config.optimizer.beta1=0.5"]).to_dict()
    assert "optimizer.beta1 is 0.9 there and 0.5 here" in differences(smoke, other)


def test_elements_are_named_with_or_without_brackets():
    config = read_recipe(CONFIGS / "smoke.py", ["--config.stages.1.steps=7", "--config.data.video.sources.0.stride=2"])
    assert config.stages[1].steps == 7 and config.data.video.sources[0].stride == 2


def test_what_a_record_is_too_old_to_say_is_the_default():
    smoke = read_recipe(CONFIGS / "smoke.py").to_dict()
    old = {name: value for name, value in smoke.items() if name not in ("prediction_type", "schedule")}
    old["stages"] = [{k: v for k, v in stage.items() if k != "ema_decay"} for stage in old["stages"]]
    assert not differences(old, smoke)
    harmless = ["--config.data.on_error=skip", "--config.data.in_memory=True"]
    assert not differences(old, read_recipe(CONFIGS / "smoke.py", harmless).to_dict())
