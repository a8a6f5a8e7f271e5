"""Model folders out of models; what every export does."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
from tiny import TINY

from gen1_jax.cli import main
from gen1_jax.exporting import safetensors_format
from gen1_jax.exporting.export import export, origin_of
from gen1_jax.exporting.networks import ExportError, Networks, relative_difference
from gen1_jax.models.module import flatten, initialise
from gen1_jax.pretrained.family import NANO
from gen1_jax.pretrained.folder import AssembledModel, ModelFolder, SeededModel, open_model, save_model
from gen1_jax.pretrained.tensors import FolderError


def test_an_exported_folder_is_the_model_bit_for_bit(tiny_model, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["export", "--model", str(tiny_model), "-o", str(out)]) == 0
    one, other = ModelFolder(tiny_model), ModelFolder(out)
    assert one.config == other.config
    for component in one.config.components:
        jax.tree.map(np.testing.assert_array_equal, one.parameters(component), other.parameters(component))
    texts = ["a clay cat", ""]
    np.testing.assert_array_equal(one.tokenizer()(texts)[0], other.tokenizer()(texts)[0])
    manifest = json.loads((out / "manifest.json").read_text())
    files = {path.name for path in out.iterdir()} - {"manifest.json"}
    assert files == set(manifest["sha256"])
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert manifest["parity"] == {"tensors": 0.0}
    assert manifest["config"]["unet"] == json.loads((out / "config.json").read_text())["unet"]
    assert [manifest[key] for key in ("format", "dtype", "stage", "ema")] == ["safetensors", "float32", None, None]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_in_small_files(dtype, tiny_model, tmp_path):
    out = tmp_path / "out"
    options = ["--dtype", dtype, "--max-file-size", "1"]
    assert main(["export", "--model", str(tiny_model), "-o", str(out), *options]) == 0
    rounded = flatten(ModelFolder(out).parameters("unet"))
    for name, value in flatten(ModelFolder(tiny_model).parameters("unet")).items():
        np.testing.assert_array_equal(value.astype(np.dtype(dtype)), rounded[name])


def test_networks_of_the_base_are_left_out(tmp_path):
    drawn = SeededModel(NANO, 3, "drawn")
    assert main(["export", "--model", "nano", "--dtype", "int8", "--base", "nano", "-o", str(tmp_path / "none")]) == 0
    assert not list((tmp_path / "none").glob("*.safetensors"))  # all of it is nano's own, whatever the dtype
    source = AssembledModel(open_model("nano"), {"prior": drawn})
    manifest = export(source, tmp_path / "one", base="nano")
    assert manifest["base"] == "nano" and manifest["parity"] == {"tensors": 0.0}
    assert [path.name for path in (tmp_path / "one").glob("*.safetensors")] == ["prior.safetensors"]
    (tmp_path / "one" / "prior.safetensors").rename(tmp_path / "prior.safetensors")
    with pytest.raises(FolderError, match=r"no prior\.safetensors"):  # nor is it nano's instead
        open_model(tmp_path / "one")
    (tmp_path / "prior.safetensors").rename(tmp_path / "one" / "prior.safetensors")
    written = open_model(tmp_path / "one")
    assert written.config == source.config
    for name in ("prior", "vae"):
        jax.tree.map(np.testing.assert_array_equal, written.parameters(name), source.parameters(name))


@pytest.mark.parametrize(
    "options, said",
    [
        (["--base", "tiny"], "--base is 'tiny', not a model that ships: nano"),
        (["--base", "nano", "--format", "torch"], "--base is for --format safetensors, not for torch"),
    ],
)
def test_a_base_that_cannot_be(options, said, tiny_model, tmp_path, capsys):
    assert main(["export", "--model", str(tiny_model), "-o", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_weight_beyond_float16_is_refused_by_name(tiny_model, monkeypatch):
    source, large = ModelFolder(tiny_model), {"conv": {"bias": np.array([1.0, 7e4], np.float32)}}
    monkeypatch.setattr(source, "parameters", lambda component: large)
    with pytest.raises(ExportError, match=r"unet's conv\.bias reaches 7e\+04, more than float16 holds"):
        Networks(source, np.dtype("float16"))["unet"]
    assert Networks(source, np.dtype("bfloat16"))["unet"]["conv"]["bias"].dtype.name == "bfloat16"


def test_nothing_is_overwritten(tiny_model, tmp_path, capsys):
    assert main(["export", "--model", str(tiny_model), "-o", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", "--model", str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_what_differs_is_not_exported(tiny_model, tmp_path, monkeypatch, capsys):
    write = safetensors_format.write_model

    def broken(folder, config, networks, *rest):
        params = {component: networks[component] for component in networks}
        params["unet"]["conv_out"]["bias"] = np.nextafter(params["unet"]["conv_out"]["bias"], np.float32(1))
        write(folder, config, params, *rest)

    monkeypatch.setattr(safetensors_format, "write_model", broken)
    assert main(["export", "--model", str(tiny_model), "-o", str(tmp_path / "out")]) == 2
    assert "the safetensors export differs in tensors by inf" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_origin_outlives_exports(tiny_model, tmp_path):
    origin = {"component": "unet", "stage": "video", "step": 12, "ema": True}
    export(ModelFolder(tiny_model), tmp_path / "one", origin=origin)
    assert origin_of(ModelFolder(tiny_model), ema=True) == {}
    assert origin_of(ModelFolder(tmp_path / "one"), ema=True) == origin
    assert main(["export", "--model", str(tmp_path / "one"), "-o", str(tmp_path / "two")]) == 0
    manifest = json.loads((tmp_path / "two" / "manifest.json").read_text())
    assert {key: manifest[key] for key in origin} == origin


def test_a_model_out_of_parts(tiny_model, tmp_path, capsys):
    config = dataclasses.replace(TINY, vae=dataclasses.replace(TINY.vae, scaling_factor=0.5))
    other, out = tmp_path / "other", tmp_path / "out"
    params = {c: initialise(config.build(c, np.float32), 7) for c in config.components}
    save_model(other, config, params, (tiny_model / "tokenizer.json").read_text())
    command = ["export", "--model", str(tiny_model), "-o", str(out), "--parts"]
    assert main([*command, f"vae={other}", f"prior={other}"]) == 0
    made, base = ModelFolder(out), ModelFolder(tiny_model)
    assert made.config == config
    for component in config.components:
        theirs = params[component] if component in ("vae", "prior") else base.parameters(component)
        jax.tree.map(np.testing.assert_array_equal, made.parameters(component), theirs)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["parts"] == {"vae": {"model": "other"}, "prior": {"model": "other"}}
    unet = dataclasses.replace(TINY.unet, latent_channels=8, structure_channels=8)
    wide = dataclasses.replace(TINY, vae=dataclasses.replace(TINY.vae, latent_channels=8), unet=unet)
    with pytest.raises(ValueError, match="latent_channels"):
        AssembledModel(base, {"vae": SeededModel(wide, 0, "wide", tiny_model)})
    capsys.readouterr()
    assert main([*command[:-2], str(tmp_path / "x"), "--parts", f"vea={other}"]) == 2
    assert "has no network 'vea', only unet, vae" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, str(other)])
    assert "is not like vae=runs/vae" in capsys.readouterr().err


def test_unknown_formats_are_refused(tiny_model, tmp_path):
    with pytest.raises(ExportError, match="format is 'pickle', not one of safetensors, diffusers, torch, stablehlo"):
        export(ModelFolder(tiny_model), tmp_path / "out", format="pickle")
    assert not list(tmp_path.iterdir())


def test_relative_difference():
    difference = lambda one, other: relative_difference(np.array(one), np.array(other))
    assert difference([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert difference([0.0], [0.0]) == 0.0
    for bad in ([np.nan, 1.0], [np.inf, 1.0], [1.0]):
        assert difference(bad, [1.0, 1.0]) == difference([1.0, 1.0], bad) == np.inf
    assert difference([1.0], [0.0]) == np.inf
