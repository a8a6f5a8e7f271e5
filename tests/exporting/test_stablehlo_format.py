"""Programs for jax alone, run by it in a process that cannot import this package."""

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error
from processes import run_elsewhere

from gen1_jax.cli import main
from gen1_jax.diffusion import Guidance
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.exporting import stablehlo_format
from gen1_jax.exporting.load_stablehlo import load
from gen1_jax.models.conditions import Signal
from gen1_jax.models.denoiser_inputs import conditions_of
from gen1_jax.models.unet import ControlConfig
from gen1_jax.pretrained.family import TINY

NAMES = {"denoiser", "guided_sampler", "vae_encode", "vae_decode"}

GIVEN = ("content", "structure", "structure_level", "guidance_scale", "temporal_guidance_scale")


def command(model, out, *options):
    return ["export", "--model", str(model), "--format", "stablehlo", "-o", str(out), *options]


@pytest.fixture(scope="module")
def exported(smallest_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("stablehlo") / "out"
    assert main(command(smallest_model, out, "--frames", "2", "--size", "6x4", "--steps", "3")) == 0
    return out


@pytest.fixture(scope="module")
def needing_exported(needing_model, exported):
    """The denoiser of a model that needs its structure, beside the other."""
    out, programs = exported.with_name("needing"), stablehlo_format._unet_programs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stablehlo_format, "_unet_programs", lambda *x: {"denoiser": programs(*x)["denoiser"]})
        patch.setattr(stablehlo_format, "_vae_programs", lambda *_: {})
        assert main(command(needing_model, out, "--frames", "2", "--size", "6x4", "--platforms", "cpu")) == 0
    return out


def test_programs_compute_what_the_model_does_without_this_package(
    smallest_model, needing_model, exported, needing_exported, tmp_path
):
    mask = np.zeros((1, 2, 4, 6, 1), np.float32)
    mask[:, 0], mask[:, 1, :2] = 1, 1
    normal = lambda seed, *shape: np.random.default_rng(seed).standard_normal(shape, np.float32)
    x = {
        "latents": normal(0, 1, 2, 4, 6, 4),
        "structure": normal(1, 1, 2, 4, 6, 4),
        "structure_level": np.array([3], np.int32),
        "edges": normal(4, 1, 2, 4, 6, 4),
        "known": np.concatenate([normal(5, 1, 2, 4, 6, 4) * mask, mask], -1),
        "timesteps": np.array([801], np.int32),
        "content": normal(2, 1, 1, 16),
        "images": normal(3, 2, 4, 6, 3),
        "guidance_scale": np.float32(3),
        "temporal_guidance_scale": np.float32(0.6),
    }
    theirs = run_elsewhere("stablehlo", exported, x, tmp_path)
    pipe = Gen1Pipeline.from_pretrained(smallest_model)
    conditions = conditions_of(pipe.config.unet, *(jnp.asarray(x[name]) for name in GIVEN[:3]))
    guidance = Guidance.of(*(float(x[name]) for name in GIVEN[3:]))
    settings = EditSettings(sampler="ddim", num_inference_steps=3)
    signals = {"edges": Signal.of(x["edges"], weight=jnp.array([0.5])), "known": Signal.of(x["known"])}
    several = dataclasses.replace(conditions, structure=signals)
    known, latents = KnownLatents(x["known"][..., :-1], mask), x["latents"].shape
    going_on = dataclasses.replace(conditions, structure=conditions.structure | {"known": signals["known"]})
    needing = Gen1Pipeline.from_pretrained(needing_model).unet
    ours = {
        "denoiser": pipe.unet(x["latents"], x["timesteps"], x["content"], x["structure"], x["structure_level"]),
        "several": pipe.unet.denoise(jnp.asarray(x["latents"]), x["timesteps"], several)[0],
        "needing": needing(x["latents"], x["timesteps"], x["content"], x["structure"], x["structure_level"]),
        "guided_sampler": pipe.sampler(settings)(latents, 7, conditions, guidance),
        "going_on": known.on(pipe.sampler(settings)(latents, 7, going_on, guidance, known=known.kept())),
        "vae_encode": pipe.vae.images_to_latents(x["images"]),
        "vae_decode": pipe.vae.latents_to_images(x["latents"][0]),
    }
    assert ours.keys() == theirs.keys() == NAMES | {"needing", "several", "going_on"}
    np.testing.assert_array_equal(theirs["going_on"] * mask, x["known"][..., :-1])
    for name, value in ours.items():
        assert relative_error(theirs[name], value) <= 1e-4, name


def test_artifacts_are_small_and_for_all_platforms(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["parity"].keys() == manifest["signature"].keys() == NAMES
    assert manifest["steps"] == 3
    for entry in manifest["signature"].values():
        artifact = (exported / entry["file"]).read_bytes()
        program = jax.export.deserialize(bytearray(artifact))
        assert set(program.platforms) == {"cpu", "cuda", "tpu"}
        weights = (exported / entry["weights"]).read_bytes()
        assert weights[1000:3000] not in artifact
    sampler = manifest["signature"]["guided_sampler"]
    required = [argument["name"] for argument in sampler["arguments"] if "of" not in argument]
    assert required == ["seed", "content", *GIVEN[3:]]
    optional = {argument["name"]: argument["of"] for argument in sampler["arguments"] if "of" in argument}
    weighed = {f"{of}{end}": of for of in ("structure", "edges") for end in ("", "_level", "_weight")}
    assert optional == weighed | {"known": "known"}
    assert sampler["result"] == {"shape": [1, 2, 4, 6, 4], "dtype": "float32"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("edgs",), "no argument is called edgs, only seed, content, structure"),
        (("edges_weight",), "edges is not given"),
        (("structure_level", "edges"), "structure is not given"),
        ((), "guidance_scale is not given"),
    ],
)
def test_what_the_loader_does_not_take(exported, names, told):
    sampler, always = load(exported)["guided_sampler"], dict.fromkeys(("seed", "content"), 0)
    scales = dict.fromkeys(("guidance_scale", "temporal_guidance_scale"), 0) if names else {}
    with pytest.raises(TypeError, match=told):
        sampler(**always, **scales, **dict.fromkeys(names, 0))


def test_a_model_that_needs_its_structure_has_no_weights():
    arguments = stablehlo_format._inputs(TINY.unet, (1, 2, 4, 6, 4))
    assert list(arguments) == ["structure", "structure_level"]
    assert not stablehlo_format._may_lack(TINY.unet)
    told = stablehlo_format._conditions(TINY.unet, jnp.zeros((1, 1, 16)), **arguments)
    assert list(told.structure) == ["depth"] and told.structure["depth"].weight == 1


def test_controls_are_no_arguments():
    """They are told of features; an argument that no program heeds would be one that the loader asks for."""
    unet = dataclasses.replace(TINY.unet, controls=(ControlConfig(kind="canny"),))
    assert list(stablehlo_format._inputs(unet, (1, 2, 4, 6, 4))) == ["structure", "structure_level"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--frames", "5"], "frames must be 1 to 4"),
        (["--size", "0x12"], "'0x12' is no size"),
        (["--size", "big"], "'big' is no size; write WIDTHxHEIGHT"),
        (["--steps", "0"], "steps must be 1 to 1000"),
        (["--platforms", "cuda,tpu"], "platforms must include cpu"),
        (["--platforms", "cpu,vulkan"], "unknown platform 'vulkan'"),
        (["--format", "diffusers", "--max-file-size", "0"], "--max-file-size must be at least 1, got 0"),
        (["--max-file-size", "1"], "--max-file-size is for --format safetensors and diffusers"),
        (["--format", "safetensors", "--steps", "2"], "--steps is for --format stablehlo, not for safetensors"),
        (["--format", "onnx"], "invalid choice: 'onnx'"),
    ],
)
def test_wrong_options_in_one_line(smallest_model, tmp_path, capsys, options, named):
    try:
        code = main(command(smallest_model, tmp_path / "out", *options))
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err
    assert code == 2
    assert named in message
    assert message.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_differs_is_not_exported(smallest_model, tmp_path, monkeypatch, capsys):
    save = stablehlo_format.save_tensors

    def broken(folder, component, tensors, **layout):
        if component == "vae":
            tensors = tensors | {"decoder.conv_out.bias": tensors["decoder.conv_out.bias"] + 0.01}
        return save(folder, component, tensors, **layout)

    monkeypatch.setattr(stablehlo_format, "save_tensors", broken)
    monkeypatch.setattr(stablehlo_format, "_unet_programs", lambda *_: {})
    assert main(command(smallest_model, tmp_path / "out", "--platforms", "cpu", "--size", "6x4")) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "vae_decode" in message
    assert "vae_encode" not in message
    assert not list(tmp_path.iterdir())
