"""`gen1 export`: a model, wherever it comes from, in a format of somebody else's, checked, with a manifest.

model ──► writer of the format ──► files ──► run there and here on the same inputs ──► parity ≤ 1e-4 ──► manifest
                                                                                          └─ else nothing is left
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.checkpoints.trained import TrainedModel
from gen1_jax.exporting.networks import LIMIT, ExportError, Written
from gen1_jax.exporting.stablehlo_format import StableHLOOptions
from gen1_jax.pretrained.folder import BASES, AssembledModel, ModelFolder, ModelSource, new_folder
from gen1_jax.pretrained.tensors import read_json
from gen1_jax.versions import versions

MANIFEST = "manifest.json"
_ORIGIN = ("component", "stage", "step", "ema")
_PACKAGES = ("gen1-jax", "jax", "jaxlib", "flax", "numpy", "safetensors")


class _Order(NamedTuple):
    """What a writer is asked for."""

    source: ModelSource
    folder: Path
    dtype: np.dtype
    shard_bytes: int | None
    programs: StableHLOOptions
    spelling: str
    base: str | None


def _safetensors(order: _Order) -> Written:
    from gen1_jax.exporting.safetensors_format import write_safetensors

    return write_safetensors(order.source, order.folder, order.dtype, order.shard_bytes, order.base)


def _diffusers(order: _Order) -> Written:
    from gen1_jax.exporting.diffusers_format import write_diffusers

    return write_diffusers(order.source, order.folder, order.dtype, order.shard_bytes)


def _torch(order: _Order) -> Written:
    from gen1_jax.exporting.torch_format import write_torch

    return Written(write_torch(order.source, order.folder, order.dtype))


def _stablehlo(order: _Order) -> Written:
    from gen1_jax.exporting.stablehlo_format import write_stablehlo

    return write_stablehlo(order.source, order.folder, order.dtype, order.programs)


def _lora(order: _Order) -> Written:
    from gen1_jax.exporting.lora_format import write_adapter

    return write_adapter(order.source, order.folder, order.spelling)


def _clip(order: _Order) -> Written:
    from gen1_jax.exporting.clip_format import write_clip

    return write_clip(order.source, order.folder, order.dtype)


class _Format(NamedTuple):
    """A writer, and the packages beyond this one's own that it needs."""

    write: Callable[[_Order], Written]
    needs: tuple[str, ...] = ()


_FORMATS = {
    "safetensors": _Format(_safetensors),
    "diffusers": _Format(_diffusers, ("torch", "diffusers", "transformers")),
    "torch": _Format(_torch, ("torch",)),
    "stablehlo": _Format(_stablehlo, ("flatbuffers",)),
    "lora": _Format(_lora),
    "clip": _Format(_clip, ("torch", "diffusers", "transformers")),
}


def export(
    source: ModelSource,
    folder: str | Path,
    *,
    format: str = "safetensors",
    dtype: DTypeLike = np.float32,
    shard_bytes: int | None = None,
    origin: Mapping[str, Any] | None = None,
    programs: StableHLOOptions | None = None,
    spelling: str = "peft",
    base: str | None = None,
) -> dict[str, Any]:
    """Writes a model in a format and compares it with the JAX model; what differs is not left behind.

    Both sides hold the weights as exported, rounded to `dtype`, and compute in float32 on fixed random inputs.

    Args:
        source: the model.
        folder: must not exist yet.
        format: "safetensors", "diffusers", "torch", "stablehlo", "lora", the adapter of a workdir alone, or "clip".
        dtype: float32, bfloat16 or float16, of every tensor; or int8, of the kernels of "safetensors".
        shard_bytes: start another file of a network beyond this size; of "safetensors" and "diffusers".
        origin: what the manifest says of where the weights come from, see `origin_of`.
        programs: sizes and platforms of "stablehlo".
        spelling: of "lora", "peft" or "kohya".
        base: of "safetensors": a model that ships ("nano"), whose networks are left out where they are the same.

    Returns:
        The manifest: format, configuration, origin, versions, hashes of all files, parity by what was compared.

    Raises:
        FolderError: the folder exists or cannot be written.
        ExportError: an unknown format, one that has no int8, a package that is missing, a weight beyond `dtype`, a
            parity above `LIMIT`.
        ValueError: sizes or platforms that the model or this machine does not have.
    """
    if format not in _FORMATS:
        raise ExportError(f"format is {format!r}, not one of {', '.join(_FORMATS)}")
    if shard_bytes is not None and format not in ("safetensors", "diffusers"):
        raise ExportError(f"shard_bytes is for the formats safetensors and diffusers, not for {format}")
    if jnp.dtype(dtype) == np.int8 and format != "safetensors":
        raise ExportError(f"--dtype int8 is for --format safetensors, not for {format}, which has no place for scales")
    if base is not None and format != "safetensors":
        raise ExportError(f"--base is for --format safetensors, not for {format}")
    if base is not None and base not in BASES:
        raise ExportError(f"--base is {base!r}, not a model that ships: {', '.join(BASES)}")
    if programs is not None and format != "stablehlo":
        raise ExportError(f"programs are for the format stablehlo, not for {format}")
    _require(format)
    dtype = jnp.dtype(dtype)
    with new_folder(Path(folder)) as partial:
        order = _Order(source, partial, dtype, shard_bytes, programs or StableHLOOptions(), spelling, base)
        parity, details = _FORMATS[format].write(order)
        _check(parity, format)
        manifest = {
            "format": format,
            "model": source.name,
            "dtype": dtype.name,
            **dict.fromkeys(_ORIGIN),
            **(origin or {}),
            "config": source.config.to_dict(),
            "parity": parity,
            **details,
            "versions": versions((*_PACKAGES, *_FORMATS[format].needs)),
            "sha256": _hashes(partial),
        }
        text = json.dumps(manifest, indent=2, allow_nan=False)
        (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


def origin_of(source: ModelSource, *, ema: bool) -> dict[str, Any]:
    """Where a model's weights come from: component, stage, step and whether they are an EMA, as far as it is known.

    Args:
        source: a workdir's model; several, of which each tells for itself; an exported folder, whose manifest tells; or
            any other, of which nothing is known.
        ema: whether a workdir was opened for its EMA.
    """
    if isinstance(source, AssembledModel):
        return {
            "parts": {name: {"model": part.name, **origin_of(part, ema=ema)} for name, part in source.parts.items()}
        }
    if isinstance(source, TrainedModel):
        return {"component": source.component, "stage": source.record["stage"], "step": source.step, "ema": ema}
    if isinstance(source, ModelFolder) and (source.path / MANIFEST).is_file():
        manifest = read_json(source.path / MANIFEST)
        return {key: manifest.get(key) for key in _ORIGIN}
    return {}


def _require(format: str) -> None:
    """Refuse a format whose packages are not there, before anything is written."""
    missing = [name for name in _FORMATS[format].needs if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f'--format {format} needs {" and ".join(missing)}: pip install "gen1-jax[export]"')


def _check(parity: Mapping[str, float], format: str) -> None:
    wrong = [f"{name} by {value:.2g}" for name, value in parity.items() if not value <= LIMIT]
    if wrong:
        raise ExportError(
            f"nothing was exported: relative to the model, the {format} export differs in {', '.join(wrong)}, "
            f"more than {LIMIT:g}"
        )


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
