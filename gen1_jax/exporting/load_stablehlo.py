"""Runs the programs of this folder: needs jax, safetensors and flatbuffers, not the package that wrote them."""

import functools
import json
from pathlib import Path

import jax
import jax.export
from safetensors.numpy import load_file


def load(folder: str | Path = Path(__file__).parent) -> dict:
    """{name of a program: function of its named arguments}; "signature" in manifest.json has shapes and dtypes."""
    folder = Path(folder)
    signature = json.loads((folder / "manifest.json").read_text())["signature"]
    weights = functools.cache(lambda file: jax.device_put(load_file(folder / file)))

    def program(entry: dict):
        run = jax.jit(jax.export.deserialize(bytearray((folder / entry["file"]).read_bytes())).call)
        names = [argument["name"] for argument in entry["arguments"]]
        return lambda **inputs: run(weights(entry["weights"]), *(inputs[name] for name in names))

    return {name: program(entry) for name, entry in signature.items()}
