"""A model folder, which `gen1 edit --model`, `gen1 train` and `gen1 export` take."""

from pathlib import Path

import numpy as np

from gen1_jax.exporting.networks import Networks, Written
from gen1_jax.models.module import Params, flatten
from gen1_jax.pretrained.folder import ModelFolder, ModelSource, write_model
from gen1_jax.pretrained.words import write_words


def write_safetensors(source: ModelSource, folder: Path, dtype: np.dtype, shard_bytes: int | None) -> Written:
    """Write the files of the model, and read them back: the same bits, or infinitely different."""
    networks = Networks(source, dtype)
    write_model(folder, source.config, networks, source.tokenizer().json, shard_bytes)
    if (words := getattr(source, "words", None)) is not None:
        write_words(folder, words)
    written = ModelFolder(folder)
    same = all(_same_bits(networks[name], written.parameters(name)) for name in networks)
    return Written({"tensors": 0.0 if same else float("inf")})


def _same_bits(one: Params, other: Params) -> bool:
    one, other = flatten(one), flatten(other)
    same = lambda a, b: a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
