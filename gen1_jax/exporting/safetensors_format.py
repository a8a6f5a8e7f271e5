"""A model folder, which `gen1 edit --model`, `gen1 train` and `gen1 export` take."""

from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.exporting.networks import Networks, Written
from gen1_jax.models.module import Params, flatten
from gen1_jax.models.quantized import is_quantized
from gen1_jax.pretrained.eight_bit import QUANTIZATION, StoredKernel, packed
from gen1_jax.pretrained.folder import ModelFolder, ModelSource, open_model, write_model
from gen1_jax.pretrained.words import write_words


def write_safetensors(
    source: ModelSource, folder: Path, dtype: np.dtype, shard_bytes: int | None, base: str | None = None
) -> Written:
    """Write the files of the model, and read them back: the same bits, or infinitely different.

    Networks that are the base's own, one of `folder.BASES`, are left out.
    """
    networks = Networks(source, dtype, without=() if base is None else _shared(source, open_model(base)))
    write_model(folder, source.config, networks, source.tokenizer().json, shard_bytes, base)
    if (words := getattr(source, "words", None)) is not None:
        write_words(folder, words)
    written = ModelFolder(folder)
    same = all(_same_bits(networks[name], written.stored(name)) for name in networks)
    details = {} if base is None else {"base": base}
    if written.is_quantized:
        rounding = {name: _rounding(source.parameters(name), written.parameters(name)) for name in networks}
        details |= {"quantization": {**QUANTIZATION, "relative_error": rounding}}
    return Written({"tensors": 0.0 if same else float("inf")}, details)


def _shared(source: ModelSource, base: ModelSource) -> list[str]:
    """The networks that are the same in both."""

    def same(name: str) -> bool:
        configured = getattr(source.config, name) == getattr(base.config, name)
        return configured and _same_bits(source.stored(name), base.stored(name))

    return [name for name in source.config.components if name in base.config.components and same(name)]


def _same_bits(one: Params, other: Params) -> bool:
    one, other = _tensors(one), _tensors(other)
    same = lambda a, b: a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)


def _tensors(params: Params) -> dict[str, np.ndarray]:
    """As a file holds them."""

    def array(x: Any) -> Any:
        if isinstance(x, StoredKernel):
            return x.in_eight_bits()
        return x if is_quantized(x) else np.asarray(x)

    return packed({name: array(x) for name, x in flatten(params).items()})


def _rounding(before: Params, after: Params) -> float:
    """How much of a network's weights was rounded away: the norm of the differences by that of the weights."""
    whole, rest = 0.0, 0.0
    after = flatten(after)
    for name, x in flatten(before).items():
        x = x.astype(np.float32)
        whole += float(np.square(x).sum(dtype=np.float64))
        rest += float(np.square(x - after[name].astype(np.float32)).sum(dtype=np.float64))
    return (rest / whole) ** 0.5 if whole else 0.0
