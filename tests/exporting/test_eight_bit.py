"""Model folders of int8 kernels: written, read by all that reads a folder, and refused where they are damaged."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gen1_jax import Gen1Pipeline
from gen1_jax.cli import main
from gen1_jax.editing.networks import LoadedNetworks
from gen1_jax.evaluation.info import describe
from gen1_jax.exporting.export import export
from gen1_jax.exporting.networks import ExportError, Networks
from gen1_jax.models.module import flatten, unflatten
from gen1_jax.models.quantized import Quantized, is_quantizable, quantise
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.tensors import FolderError

KERNEL = "decoder.mid_block.attention.to_k.kernel"  # of the autoencoder


@pytest.fixture(scope="module")
def int8_model(trained_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "int8"
    assert main(["export", "--model", str(trained_model), "--dtype", "int8", "-o", str(out)]) == 0
    return out


@pytest.fixture
def damaged(int8_model, tmp_path):
    return shutil.copytree(int8_model, tmp_path / "model")


def test_a_folder_says_what_it_holds(trained_model, int8_model):
    config, manifest = (json.loads((int8_model / f"{name}.json").read_text()) for name in ("config", "manifest"))
    assert config["quantization"] == {"dtype": "int8", "scale": "output channel", "symmetric": True}
    assert manifest["dtype"] == "int8" and manifest["parity"] == {"tensors": 0.0}
    assert all(0 < error < 0.01 for error in manifest["quantization"]["relative_error"].values())
    whole = ModelFolder(trained_model)
    for component in whole.config.components:
        tensors = load_file(int8_model / f"{component}.safetensors")
        for name, x in flatten(whole.parameters(component)).items():
            if is_quantizable(name, x.shape):
                expected = quantise(x)
                np.testing.assert_array_equal(tensors.pop(name), expected.values)
                np.testing.assert_array_equal(tensors.pop(f"{name}_scale"), expected.scale)
            else:
                np.testing.assert_array_equal(tensors.pop(name), x.astype(jnp.bfloat16))
        assert not tensors
    assert describe(str(int8_model))["model"]["weights"] == "int8"
    assert describe(str(trained_model))["model"]["weights"] == "floating point"


def test_who_asks_for_weights_gets_them_wide(int8_model):
    """As training does, which reads slices, and every other export."""
    source = ModelFolder(int8_model)
    whole, stored = flatten(source.parameters("vae")), flatten(source.stored("vae"))
    assert {x.dtype.name for x in whole.values()} == {"float32", "bfloat16"}
    for name, x in whole.items():
        assert stored[name].shape == x.shape and str(stored[name].dtype) == x.dtype.name
        index = tuple(slice(size // 2, size) for size in x.shape)
        np.testing.assert_array_equal(stored[name][index], x[index])


def test_another_export_changes_nothing(int8_model, tmp_path):
    assert main(["export", "--model", str(int8_model), "--dtype", "int8", "-o", str(tmp_path / "again")]) == 0
    for file in int8_model.glob("*.safetensors"):
        one, other = load_file(file), load_file(tmp_path / "again" / file.name)
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_allclose(one[name].astype(np.float32), other[name].astype(np.float32), rtol=1e-6)


def test_edits_keep_eight_bits_on_the_device_and_compute_with_what_they_stand_for(int8_model, tmp_path):
    source = ModelFolder(int8_model)
    export(source, tmp_path / "wide")
    narrow, wide = (LoadedNetworks(x, np.dtype("float32")) for x in (source, ModelFolder(tmp_path / "wide")))
    images = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3), minval=-1)
    encoded = [networks["vae"].images_to_latents(images) for networks in (narrow, wide)]
    np.testing.assert_allclose(*encoded, rtol=1e-5, atol=1e-6)
    held = flatten(narrow["vae"].params)
    assert isinstance(held[KERNEL], Quantized) and held[KERNEL].values.dtype == jnp.int8
    for name, x in held.items():
        assert isinstance(x, Quantized) == is_quantizable(name, x.shape), name
    size = lambda networks: sum(x.nbytes for x in jax.tree.leaves(networks["unet"].params))
    assert size(narrow) < 0.45 * size(wide)


def test_a_network_is_read_a_tensor_at_a_time(int8_model, monkeypatch):
    source, events = ModelFolder(int8_model), []

    class Watched:
        def __init__(self, leaf):
            self.leaf, self.shape = leaf, leaf.shape

        def __array__(self, dtype=None, copy=None):
            events.append("read")
            return np.asarray(self.leaf, dtype)

    stored = unflatten({name: Watched(x) for name, x in flatten(source.stored("vae")).items()})
    monkeypatch.setattr(source, "stored", lambda component: stored)
    put = jax.device_put
    monkeypatch.setattr(jax, "device_put", lambda x: (events.append("put"), put(x))[1])
    LoadedNetworks(source, np.dtype("float32"))["vae"]
    assert events == ["read", "put"] * len(flatten(stored))


def test_a_pipeline_edits(int8_model):
    pipeline = Gen1Pipeline.from_pretrained(int8_model)
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    assert pipeline.edit(frames, prompt="a red car", num_inference_steps=1).frames.shape == frames.shape


@pytest.mark.parametrize("format", ["diffusers", "torch", "stablehlo", "clip", "lora"])
def test_other_formats_have_no_int8(format, trained_model, tmp_path, capsys):
    command = ["export", "--model", str(trained_model), "--dtype", "int8", "--format", format]
    assert main([*command, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"--dtype int8 is for --format safetensors, not for {format}" in error
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused_by_name(trained_model, monkeypatch):
    source, bad = ModelFolder(trained_model), {"conv": {"kernel": np.array([[1.0, np.nan]], np.float32)}}
    monkeypatch.setattr(source, "parameters", lambda component: bad)
    with pytest.raises(ExportError, match=r"unet's conv\.kernel is not finite"):
        Networks(source, np.dtype("int8"))["unet"]


DAMAGES = {
    "lacks decoder.mid_block.attention.to_k.kernel_scale, the scale of its int8": lambda x, k: x.pop(f"{k}_scale"),
    "is float32 (3,), not float32 (8,), one for each output channel": lambda x, k: x.update(
        {f"{k}_scale": np.ones(3, np.float32)}
    ),
    "is float64 (8,), not float32 (8,)": lambda x, k: x.update({f"{k}_scale": np.ones(8)}),
    "has numbers that are no steps": lambda x, k: x[f"{k}_scale"].__setitem__(2, np.nan),
    "no steps: not finite, or not above 0": lambda x, k: x[f"{k}_scale"].__setitem__(0, -1),
    "not above 0": lambda x, k: x[f"{k}_scale"].__setitem__(0, 0),
    "has tensors of another shape": lambda x, k: x.update({k: np.ones((4, 8), np.int8)}),
    "has tensors that are not floating point: decoder.conv_norm_out.bias is I8": lambda x, k: x.update(
        {"decoder.conv_norm_out.bias": np.ones(8, np.int8)}
    ),
    f"has tensors that the network does not: {KERNEL}_scale": lambda x, k: x.update({k: np.ones((8, 8), np.float32)}),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_scales_are_refused_in_one_line(message, damaged, capsys):
    file = damaged / "vae.safetensors"
    tensors = {name: x.copy() for name, x in load_file(file).items()}
    DAMAGES[message](tensors, KERNEL)
    save_file(tensors, file)
    assert main(["info", "--model", str(damaged)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "vae.safetensors" in error and message in error


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        (
            {"quant_method": "gptq", "bits": 4},
            "quantization is {'quant_method': 'gptq', 'bits': 4}, this program reads",
        ),
        (None, "has tensors that the network does not"),
    ],
)
def test_another_scheme_and_none_are_refused(quantization, message, damaged, capsys):
    config = json.loads((damaged / "config.json").read_text()) | {"quantization": quantization}
    (damaged / "config.json").write_text(json.dumps(config))
    assert main(["info", "--model", str(damaged)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_a_file_that_is_cut_after_it_was_opened(damaged):
    stored = flatten(ModelFolder(damaged).stored("vae"))
    file = damaged / "vae.safetensors"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    with pytest.raises(FolderError, match=r"vae\.safetensors is not a readable safetensors file"):
        jax.tree.map(np.asarray, stored)
