"""A subject learned from a few pictures: adapters as what is learned, their files, and the command."""

import argparse
import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from tiny import TINY, TINY_PUBLIC, save_tiny_model

from gen1_jax.checkpoints.trained import TrainedModel
from gen1_jax.cli import main
from gen1_jax.commands.customise import add_options, options_of
from gen1_jax.data.sources import open_source
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation import customised as benchmark
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.evaluation.preview import _WithUNet
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.models.low_rank import TARGETS, LowRankConfig, changed, target_kernels
from gen1_jax.models.module import abstract_parameters, flatten, initialise
from gen1_jax.models.selection import Selection
from gen1_jax.models.unet import ControlConfig, UNetConfig
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.lora import WithLoRA
from gen1_jax.pretrained.lora_file import lora_of
from gen1_jax.pretrained.lora_names import SPELLINGS, Targets
from gen1_jax.pretrained.lora_write import deltas_of, write_lora
from gen1_jax.pretrained.subject import Subject, caption_of, embedding_of, mean_embedding
from gen1_jax.synthetic import make_content
from gen1_jax.training.adapters import LowRank
from gen1_jax.training.customise import Captioned, CustomiseOptions, _crops, _seen, make_recipe
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.gradients import learning
from gen1_jax.training.learned import WholeNetwork
from gen1_jax.training.optimizer import OptimizerConfig, learning_rates
from gen1_jax.training.step import TrainStep

KEYS = jax.random.split(jax.random.key(0), 2)
ALL = LowRankConfig(rank=2, targets=tuple(set(TARGETS) - {"motion"}), scale=0.5)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    params = initialise(TINY.build("unet", np.float32), 0)
    return jax.tree.map(lambda x: np.asarray(x + 0.1 * rng.normal(size=x.shape), np.float32), params)


@pytest.fixture(scope="module")
def factors(params):
    """Of every target, none of them zero."""
    rng = np.random.default_rng(1)
    drawn = LowRank(ALL, TINY.unet).initial(params, 0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), drawn)


def test_nothing_changes_at_the_start_and_only_the_targets_do(params, factors):
    adapter = LowRank(ALL, TINY.unet)
    start = adapter.initial(params, 0)
    same = adapter.weights(params, start)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(params), strict=True))
    after, before = flatten(adapter.weights(params, factors)), flatten(params)
    moved = {path for path in before if (after[path] != before[path]).any()}
    assert moved == target_kernels(ALL, TINY.unet, params).keys()
    assert not any(".temporal" in path or "attn2.to_q" in path or "attn2.to_k" in path for path in moved)
    path = "mid_block.resnets.0.conv1.kernel"
    down, up = (np.asarray(flatten(factors)[f"{path}.{name}"], np.float64) for name in ("down", "up"))
    np.testing.assert_allclose(after[path], before[path] + 0.5 * (down @ up).reshape(3, 3, 8, 8), rtol=1e-4, atol=1e-4)
    half = changed({"a": {"kernel": jnp.full((2, 2), 0.1, jnp.bfloat16)}}, {"a": {"kernel": tiny_factors()}}, 1.0)
    assert half["a"]["kernel"].dtype == jnp.bfloat16
    assert (half["a"]["kernel"] == (jnp.bfloat16(0.1).astype(jnp.float32) + 1e-3).astype(jnp.bfloat16)).all()


def test_previews_are_of_the_network_with_the_adapter(folder, factors):
    source, adapter = ModelFolder(folder / "model"), LowRank(ALL, TINY.unet)
    shown = flatten(_WithUNet(source, factors, adapter).parameters("unet"))
    expected = flatten(adapter.weights(source.parameters("unet"), factors))
    assert all((np.asarray(shown[path]) == np.asarray(expected[path])).all() for path in expected)


def tiny_factors():
    """Their product is 1e-3, which bfloat16 factors would round."""
    return {"down": np.full((2, 1), 1e-3, np.float32), "up": np.ones((1, 2), np.float32)}


def test_every_target_has_a_gradient_and_the_network_stays(params):
    """Also on pictures alone; and what is frozen is in no optimizer, so that no decay reaches it."""
    lora = dataclasses.replace(ALL, scale=1.0)
    objective = DenoisingObjective(TINY, DenoisingConfig(content_dropout=0.0, lora=lora))
    optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=1)
    step = TrainStep(
        objective, optimizer, learning_rates(optimizer, [(9, None)]), Layout(make_mesh(MeshConfig(), jax.devices()[:1]))
    )
    assert step.frozen == ("unet",)
    learned = objective.learned.initial(params, 0)
    assert flatten(step.abstract_state.ema).keys() == flatten(learned).keys()
    rng = np.random.default_rng(2)
    learned = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), learned)
    inputs = jax.tree.map(jnp.asarray, objective.inputs(random_latents(TINY, "image", 2)))
    learns, _ = learning(jax.jit(step.gradients), learned, {"unet": params}, inputs, KEYS)
    assert all(jax.tree.leaves(learns))


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (("attn2.to_q",), "unet.lora.targets: 'attn2.to_q' names only queries and keys of attention to one token"),
        (("attention", "attn3"), "unet.lora.targets: 'attn3' is in no name of a kernel"),
        (("(",), r"lora.targets: '\(' is none of .*, nor a regular expression"),
        ((), "lora.targets is empty"),
    ],
)
def test_targets_that_learn_nothing_are_refused(targets, named):
    with pytest.raises(UserError, match=named):
        DenoisingObjective(TINY, DenoisingConfig(lora=LowRankConfig(rank=2, targets=targets)))


def test_an_adapter_and_parts_of_the_network_do_not_go_together():
    with pytest.raises(UserError, match=r"unet.trained and unet.lora: give one"):
        DenoisingObjective(TINY, DenoisingConfig(lora=ALL, trained=("spatial",)))
    text = target_kernels(
        LowRankConfig(rank=1), TINY_PUBLIC.unet, abstract_parameters(TINY_PUBLIC.build("unet", "float32"))
    )
    assert any(path.endswith("attn2.to_q.kernel") for path in text)  # of many tokens it learns
    spatial = Selection(("spatial",))
    paths = flatten(abstract_parameters(TINY_PUBLIC.build("unet", np.float32)))
    left = {path for path in paths if not spatial(path)}
    assert left == {path for path in paths if Selection(("motion", "controls", "image_adapter"))(path)} and left


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_files_are_read_as_they_were_written(spelling, params, factors, tmp_path):
    """Layers between frames among them, which have names of ours; merged is the same as run with the adapter."""
    between = "mid_block.attentions.0.temporal.block.attn1.to_q.kernel"
    rng = np.random.default_rng(3)
    temporal = {"down": rng.normal(size=(8, 2)).astype(np.float32), "up": rng.normal(size=(2, 8)).astype(np.float32)}
    flat = flatten(factors) | {f"{between}.{name}": factor for name, factor in temporal.items()}
    deltas = deltas_of(flat, TINY, ALL.scale)
    model = ModelFolder(save_tiny_model(tmp_path / "tiny"))
    subject = Subject(np.arange(1, 17, dtype=np.float32), "a thing")
    write_lora(tmp_path / "x.safetensors", {"unet": deltas}, spelling=spelling, subject=subject)
    source = WithLoRA(model, [(tmp_path / "x.safetensors", 0.5)])
    run = flatten(changed(model.parameters("unet"), flat, 0.5 * ALL.scale))
    merged = flatten(source.parameters("unet"))
    for path, weight in run.items():
        np.testing.assert_allclose(merged[path], weight, rtol=1e-5, atol=1e-5, err_msg=path)
    assert (merged[between] != flatten(model.parameters("unet"))[between]).any()
    ((told, strength),) = source.subjects
    assert strength == 0.5 and told.caption == "a thing" and (told.embedding == subject.embedding).all()
    with safe_open(tmp_path / "x.safetensors", "numpy") as file:
        assert not [name for name in set(file.keys()) if "lora" not in name]  # diffusers takes no others


def test_crops_show_the_subject_as_its_pictures_do():
    """Neither enlarged, which blurs, nor mirrored: either can be another look to CLIP, which would be learned."""

    def crops(picture, **how):
        return [x.picture for x in _crops(Captioned(picture, ""), 0, (16, 16), CustomiseOptions(**how))]

    exact = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert all((crop == exact).all() for crop in crops(exact))
    wide = np.broadcast_to(np.linspace(0, 255, 48).astype(np.uint8)[:, None], (40, 48, 3))  # dark left, bright right
    rise = lambda pictures: [float(crop[:, 8:].mean() - crop[:, :8].mean()) for crop in pictures]
    plain = rise(crops(wide))
    assert len(plain) == 8 and min(plain) > 0 and len(set(plain)) > 2  # some are closer
    whole = Image.fromarray(wide).resize((19, 16), Image.Resampling.BICUBIC)
    assert (crops(wide)[0] == np.asarray(whole)[:, 1:17]).all()
    np.testing.assert_allclose(rise(crops(wide, mirror=True)), plain * np.tile([1, -1], 4), atol=0.3)


def test_of_several_inputs_a_subject_is_learned_with_the_first():
    several = UNetConfig(structure_kinds=("depth", "pose", "source"), structure_optional=True)
    assert _seen(several) == ("depth",)
    assert _seen(dataclasses.replace(several, structure_optional=False)) == several.structures
    assert _seen(UNetConfig(structure_channels=0)) == ()
    public = UNetConfig(structure_channels=0, controls=(ControlConfig(kind="canny"),))
    assert public.default_kinds == ("canny",) and _seen(public) == ()


def test_a_damaged_subject_is_refused():
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{name}.lora_A.weight": np.ones((1, 8)), f"{name}.lora_B.weight": np.ones((8, 1))}
    for text in ("{", "[]", '{"embedding": ["x"]}', '{"embedding": [NaN]}', '{"caption": 3}', '{"embedding": [0, 0]}'):
        with pytest.raises(UserError, match=r"^x\.safetensors: what it says of its subject is damaged$"):
            lora_of(tensors, Targets.of(TINY), "x.safetensors", {"gen1_jax_subject": text})


def test_how_subjects_and_a_prompt_combine():
    one, other = Subject(np.array([2.0, 0.0]), "a"), Subject(np.array([0.0, 4.0]), "b")
    assert embedding_of([]) is None and embedding_of([(one, 0.0)]) is None and embedding_of([(Subject(), 1.0)]) is None
    np.testing.assert_allclose(embedding_of([(one, 0.3)]), [2, 0])
    np.testing.assert_allclose(embedding_of([(one, 1.0), (other, 1.0)]), 3 * np.array([1, 1]) / 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(
        embedding_of([(one, 1.0)], np.array([0.0, 5.0])), 5 * np.array([1, 1]) / 2**0.5, rtol=1e-6
    )
    np.testing.assert_allclose(embedding_of([(one, 0.0)], np.array([0.0, 5.0])) or [0, 5], [0, 5])
    assert caption_of([(one, 1.0), (other, 1.0)]) == "a, b" and caption_of([(Subject(), 1.0)]) is None
    np.testing.assert_allclose(np.linalg.norm(mean_embedding(np.array([[3.0, 0.0], [0.0, 5.0]]))), 4, rtol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and pictures of two kinds."""
    folder = tmp_path_factory.mktemp("customise")
    save_tiny_model(folder / "model", dataclasses.replace(TINY, num_inference_steps=4))
    rng = np.random.default_rng(0)
    for name, count in (("subject", 3), ("ordinary", 2), ("few", 2)):
        (folder / name).mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_what_options_make_of_the_recipe(folder):
    add_options(parser := argparse.ArgumentParser())
    plain, other = (options_of(parser.parse_args(given)) for given in ([], ["--mirror", "--content-dropout=0.1"]))
    assert other.mirror and not plain.mirror
    recipes = [make_recipe(folder / "run", ModelFolder(folder / "model"), options) for options in (plain, other)]
    assert [recipe.unet.content_dropout for recipe in recipes] == [0, 0.1] and recipes[1].unet.lora.rank == 8
    with pytest.raises(UserError, match=r"^--content-dropout is 2, not in \[0, 1\]$"):
        CustomiseOptions(content_dropout=2.0)


ARGUMENTS = ("--model=model", "--ordinary=ordinary", "--batch-size=2", "--steps=2", "--json")


@pytest.fixture(scope="module")
def customised(folder):
    """The folder after the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["customize", "subject", "-o", "x.safetensors", *ARGUMENTS, "--preview-every=0", "--rank=2"]) == 0
    return folder


def test_the_command_makes_an_adapter(customised, monkeypatch, capsys):
    monkeypatch.chdir(customised)
    run = customised / "x_run"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (entry,) = [entry for entry in log if "step_seconds" in entry or "loss" in entry]
    assert np.isfinite(entry["image/loss"] if "image/loss" in entry else entry["loss"])
    trained, source = TrainedModel(run), WithLoRA(ModelFolder("model"), [("x.safetensors", 1)])
    a, b = (flatten(model.parameters("unet")) for model in (trained, source))
    assert all(np.allclose(a[path], b[path], rtol=1e-5, atol=1e-6) for path in a)
    assert any((a[path] != x).any() for path, x in flatten(ModelFolder("model").parameters("unet")).items())
    ((subject, _),) = source.subjects
    records = open_source(str(run / "data" / "subject"))
    assert len(records) == 3 * 8 and len(open_source(str(run / "data" / "ordinary"))) == 2
    np.testing.assert_allclose(
        subject.embedding / np.linalg.norm(subject.embedding),
        (mean := np.mean([records[i]["content"][0].astype(np.float32) for i in (0, 8, 16)], 0)) / np.linalg.norm(mean),
        rtol=1e-3,
        atol=1e-4,
    )

    edit = ["edit", "subject/0.png", "--model=model", "--steps=1", "--json", "-o", "alone.png"]
    capsys.readouterr()
    assert main([*edit, "--adapter", "x.safetensors"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] is None and (customised / "alone.png").exists()
    assert main([*edit[:-1], "none.png"]) == 2
    assert "give either --prompt or --image" in capsys.readouterr().err


def test_what_an_edit_is_told(customised):
    """The subject alone, beside a prompt, or a picture's own content."""
    source = WithLoRA(ModelFolder(customised / "model"), [(customised / "x.safetensors", 1)])
    pipelines = [Gen1Pipeline(model, jnp.float32) for model in (source, source.base)]
    ((subject, _),) = source.subjects
    picture = [np.zeros((16, 16, 3), np.uint8)]
    told = lambda pipeline, *asked: np.asarray(pipeline.encode_content(*asked, EditSettings()).content["image"])[0, 0]
    np.testing.assert_array_equal(told(pipelines[0], None, []), subject.embedding)
    prompted = told(pipelines[1], "a car", [])
    np.testing.assert_allclose(told(pipelines[0], "a car", []), embedding_of(source.subjects, prompted), rtol=1e-5)
    np.testing.assert_array_equal(*(told(pipeline, None, picture) for pipeline in pipelines))
    with pytest.raises(UserError, match=r"give either a prompt or an image$"):
        told(pipelines[1], None, [])
    narrow = dataclasses.replace(source._read[0][0], subject=Subject(np.ones(3, np.float32)))
    source._read = [(narrow, 1.0)]
    with pytest.raises(UserError, match="reads embeddings of 16 numbers, its subject's has 3"):
        told(pipelines[0], None, [])


def test_what_the_benchmark_compares(customised, monkeypatch):
    """The model with itself: the same distances, nothing lost; and another one."""
    rng = np.random.default_rng(0)
    noise = lambda: rng.integers(0, 256, (2, 2, 16, 16, 3), np.uint8)

    class Noise(Worlds):
        def __init__(self, count, make=None, **size):
            self.clips = SimpleNamespace(source=noise(), answer=noise())
            self.prompts = ("a car", "a dog")

    monkeypatch.setattr(benchmark, "Worlds", Noise)
    model = ModelFolder(customised / "model")
    views = benchmark.SubjectViews(
        shape="car", content=make_content(("gold",), "desert", "noon", "clay"), pictures=(Captioned(noise()[0, 0], ""),)
    )
    pipeline = Gen1Pipeline(model, jnp.float32)
    bench = benchmark.CustomiseBench(pipeline, views, np.ones(16, np.float32), clips=2, batch_size=2)
    same = bench.compare(model)
    assert same["subject"]["ratio"] == same["picture"]["ratio"] == 1 and same["ordinary"]["lost"] == 0
    other = bench.compare(_WithUNet(model, initialise(TINY.build("unet", np.float32), 5), WholeNetwork()))
    assert other["subject"]["ratio"] != 1 and other["ordinary"]["lost"] != 0
    assert bench.compare(model) == same

    about = dict(model="m", shown="a golden car", views=1, clips=2, rank=2, steps=2, batch_size=2, learning_rate=1e-3)
    lines = list(benchmark.render_bench(about | same | {"seconds": {"data": 1.0, "training": 2.0}}))
    assert lines[0] == "m: a golden car, 1 views; 2 clips each" and len(lines) == 7
    assert lines[2].startswith("missed   CLIP distance") and lines[-1].startswith("reached  ordinary benchmark")
    assert about.keys() & same.keys() == set()  # nothing measured is told over what it is of


def test_an_adapter_is_exported_and_merged(customised, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(customised)
    assert main(["export", "--model=x_run", "--format=lora", "--spelling=kohya", "-o", f"{tmp_path}/a", "--json"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["parity"]["kernels"] < 1e-5 and manifest["spelling"] == "kohya"
    assert main(["export", "--model=model", "--adapter=x.safetensors", "-o", f"{tmp_path}/merged", "--json"]) == 0
    merged, trained = ModelFolder(tmp_path / "merged"), TrainedModel("x_run")
    a, b = (flatten(model.parameters("unet")) for model in (merged, trained))
    assert all(np.allclose(a[path], b[path], rtol=1e-5, atol=1e-6) for path in a)
    assert main(["export", "--model=model", "--format=lora", "-o", f"{tmp_path}/b"]) == 2
    assert "model is none" in capsys.readouterr().err and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("few", "-o", "y.safetensors"), "2 pictures: give 15 to 30, at least 3"),
        (("subject", "-o", "y"), "y: an adapter is a .safetensors file: name it y.safetensors"),
        (("subject", "-o", "model", "--full"), "model exists already"),
        (("subject", "-o", "none/y.safetensors"), "there is no folder none"),
        (("nothing", "-o", "y.safetensors"), "nothing: no data set, video, picture"),
        (("subject", "-o", "y.safetensors", "--rank=0"), "--rank must be at least 1"),
        (("subject", "-o", "y.safetensors", "--batch-size=3"), "--batch-size is 3: half of it"),
        (("few", "-o", "x.safetensors"), "2 pictures"),
    ],
)
def test_wrong_input_is_refused_in_a_line(arguments, named, customised, monkeypatch, capsys):
    monkeypatch.chdir(customised)
    assert (
        main(["customize", *arguments, *(a for a in ARGUMENTS if not any(b.startswith(a[:9]) for b in arguments))]) == 2
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gen1: ") and named in line
    assert not (customised / "y.safetensors").exists() and not (customised / "y_run").exists()
