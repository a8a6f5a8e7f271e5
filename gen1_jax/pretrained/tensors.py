"""Reading the tensors of a Hugging Face folder: safetensors files, whole or in shards. Nothing is ever unpickled."""

import contextlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

_PREFERRED = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack")


class FolderError(ValueError):
    """A model folder lacks a file, or holds one that is damaged or refused. One line that names it."""


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        FolderError: the file is missing or is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FolderError(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise FolderError(f"{path} does not hold a JSON object")
    return value


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of one checkpoint: the shards that an index names, or the single file.

    Raises:
        FolderError: no folder, no safetensors (pickles are refused), several checkpoints, or a missing shard.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    indices = sorted(folder.glob("*.safetensors.index.json"), key=lambda p: len(p.name))
    if indices:
        weight_map = read_json(indices[0]).get("weight_map")
        if not isinstance(weight_map, dict):
            raise FolderError(f"{indices[0]} has no weight_map")
        names = sorted(set(map(str, weight_map.values())))
        if any(Path(name).name != name for name in names):
            raise FolderError(f"{indices[0]} names files outside its folder")
        files = [folder / name for name in names]
    else:
        files = [folder / name for name in _PREFERRED if (folder / name).is_file()][:1]
        files = files or sorted(folder.glob("*.safetensors"))
        if len(files) > 1:
            raise FolderError(f"{folder} has several safetensors files and no index: keep the one that is meant")
    if not files:
        if pickles := pickles_in(folder):
            raise FolderError(
                f"{pickles[0]} is a pickle, which could run any code when opened: convert it first, for "
                f"example with save_pretrained(..., safe_serialization=True) in the library that wrote it"
            )
        raise FolderError(f"{folder} has no .safetensors file")
    if missing := [f.name for f in files if not f.is_file()]:
        raise FolderError(f"{folder} lacks {missing[0]}, a shard that its index names")
    return files


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint in `folder`, by name, floating point ones as float32.

    Raises:
        FolderError: see `tensor_files`; also a damaged file.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in tensor_files(folder):
        tensors |= {name: _float32(value) for name, value in read_safetensors(file).items()}
    return tensors


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """Every tensor of one safetensors file, as stored.

    Raises:
        FolderError: the file is damaged, truncated or not of this format.
    """
    with _opened(file) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, not a dict


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of one safetensors file, from its header.

    Raises:
        FolderError: see `read_safetensors`.
    """
    with _opened(file) as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def pickles_in(folder: Path, stem: str = "") -> list[Path]:
    """Files whose suffix says that opening them would run code."""
    return sorted(path for pattern in _PICKLES for path in folder.glob(f"{stem}{pattern}"))


@contextlib.contextmanager
def _opened(file: Path):
    try:
        with safe_open(file, framework="numpy") as opened:
            yield opened
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise FolderError(f"{file} is not a readable safetensors file: {error}") from None


def _float32(value: np.ndarray) -> np.ndarray:
    return value if np.issubdtype(value.dtype, np.integer) or value.dtype == bool else value.astype(np.float32)
