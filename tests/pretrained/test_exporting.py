"""Model folders out of models."""

import hashlib
import json

import jax
import ml_dtypes
import numpy as np

from gen1_jax.cli import main
from gen1_jax.models.module import flatten
from gen1_jax.pretrained.folder import ModelFolder


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


def test_bfloat16_in_small_files(tiny_model, tmp_path):
    out = tmp_path / "out"
    options = ["--dtype", "bfloat16", "--max-file-size", "1"]
    assert main(["export", "--model", str(tiny_model), "-o", str(out), *options]) == 0
    rounded = flatten(ModelFolder(out).parameters("unet"))
    for name, value in flatten(ModelFolder(tiny_model).parameters("unet")).items():
        np.testing.assert_array_equal(value.astype(ml_dtypes.bfloat16), rounded[name])


def test_nothing_is_overwritten(tiny_model, tmp_path, capsys):
    assert main(["export", "--model", str(tiny_model), "-o", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", "--model", str(tmp_path / "none"), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
