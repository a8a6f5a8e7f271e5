"""Runs the programs of this folder: needs jax, safetensors and flatbuffers, not the package that wrote them."""

import functools
import json
from pathlib import Path

import jax
import jax.export
import numpy as np
from safetensors.numpy import load_file


def load(folder: str | Path = Path(__file__).parent) -> dict:
    """{name of a program: function of its named arguments}; "signature" in manifest.json has shapes and dtypes.

    Arguments with an "of" there may be left out: without their maps an input is absent, else its weight is 1. Functions
    raise TypeError for names that are not there, and for arguments that are missing.
    """
    folder = Path(folder)
    signature = json.loads((folder / "manifest.json").read_text())["signature"]
    weights = functools.cache(lambda file: jax.device_put(load_file(folder / file)))

    def value(argument: dict, inputs: dict):
        name, of = argument["name"], argument.get("of")
        if name in inputs:
            return inputs[name]
        return np.full(argument["shape"], of in inputs and name == f"{of}_weight", argument["dtype"])

    def program(entry: dict):
        run = jax.jit(jax.export.deserialize(bytearray((folder / entry["file"]).read_bytes())).call)
        of = {x["name"]: x.get("of") for x in entry["arguments"]}

        def call(**inputs):
            if unknown := sorted(inputs.keys() - of):
                raise TypeError(f"no argument is called {unknown[0]}, only {', '.join(of)}")
            needed = [name if maps is None else maps for name, maps in of.items() if maps is None or name in inputs]
            if missing := [name for name in needed if name not in inputs]:
                raise TypeError(f"{missing[0]} is not given")
            return run(weights(entry["weights"]), *(value(x, inputs) for x in entry["arguments"]))

        return call

    return {name: program(entry) for name, entry in signature.items()}
