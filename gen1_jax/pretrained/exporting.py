"""`gen1 export`: a model, wherever it comes from, as a model folder with a manifest."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.models.module import Params
from gen1_jax.pretrained.folder import ModelSource, new_folder, write_model

MANIFEST = "manifest.json"
_PACKAGES = ("gen1-jax", "jax", "flax", "safetensors")


def export_safetensors(
    source: ModelSource,
    folder: str | Path,
    *,
    dtype: DTypeLike = np.float32,
    shard_bytes: int | None = None,
    origin: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a model folder that `gen1 edit --model` and `gen1 train` take.

    Args:
        source: the model.
        folder: must not exist yet.
        dtype: float32 or bfloat16, of every tensor.
        shard_bytes: start another file of a network beyond this size.
        origin: what else the manifest says of where the weights come from.

    Returns:
        The manifest: hashes of all files, versions, the origin.

    Raises:
        FolderError: the folder exists or cannot be written.
    """
    with new_folder(Path(folder)) as partial:
        write_model(partial, source.config, _Networks(source, jnp.dtype(dtype)), source.tokenizer().json, shard_bytes)
        manifest = {
            "format": "safetensors",
            "model": source.name,
            "dtype": jnp.dtype(dtype).name,
            **(origin or {}),
            "versions": {name: metadata.version(name) for name in _PACKAGES},
            "sha256": {path.name: _sha256(path) for path in sorted(partial.iterdir())},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


class _Networks(Mapping[str, Params]):
    """The parameters of each network, one network at a time in memory."""

    def __init__(self, source: ModelSource, dtype: np.dtype):
        self._source, self._dtype = source, dtype

    def __getitem__(self, component: str) -> Params:
        return jax.tree.map(lambda x: x.astype(self._dtype, copy=False), self._source.parameters(component))

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.config.components)

    def __len__(self) -> int:
        return len(self._source.config.components)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
