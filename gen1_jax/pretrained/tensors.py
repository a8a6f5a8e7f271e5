"""The tensors of a folder, as Hugging Face's: safetensors files, whole or in shards. Nothing is ever unpickled."""

import contextlib
import dataclasses
import fnmatch
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gen1_jax.errors import UserError
from gen1_jax.files import NOT_FETCHED, is_lfs_pointer

_PREFERRED = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_HALVES = ("fp16", "bf16")  # of the standard file; others, as "non_ema", are other weights
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack")
_SHOWN = 4
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class FolderError(UserError):
    """A model folder lacks a file, or holds one that is damaged or refused. One line that names it."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that stays in its file until `np.asarray` or a slice reads it, so that a network is in memory once.

    Attributes:
        file: where it is.
        name: what it is called there.
        shape: from the file's header.
        dtype: NumPy's name of a floating point type; other types as the file spells them ("I64").
        offset: of its first byte in the file.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    opened: Any = dataclasses.field(repr=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        with _as_folder_error(self.file):
            return np.asarray(self.opened.get_slice(self.name)[index])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        with _as_folder_error(self.file):
            stored_as = {"I8": "int8"}.get(self.dtype, self.dtype)
            if stored_as not in (*_FLOATS.values(), "int8"):
                return np.asarray(self.opened.get_tensor(self.name), dtype)
            # `opened` maps the file, and what was read of it would count as memory for as long as it is open
            values = np.fromfile(self.file, np.dtype(stored_as), math.prod(self.shape), offset=self.offset)
            return np.asarray(values.reshape(self.shape), dtype)


def is_floating(tensor: Any) -> bool:
    """Whether an array or a `StoredTensor` can hold a parameter; the integers of a quantised one cannot."""
    return str(tensor.dtype) in _FLOATS.values()


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        FolderError: the file is missing or is not a JSON object.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FolderError(f"{path} is not JSON: {one_line(error)}") from None
    if not isinstance(value, dict):
        raise FolderError(f"{path} does not hold a JSON object")
    return value


def read_text(path: Path) -> str:
    """What a text file holds.

    Raises:
        FolderError: the file is missing or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FolderError(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise FolderError(f"{path} cannot be read: {one_line(error)}") from None


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of one checkpoint: the single file, or the shards that an index names.

    Where a folder holds several variants, the one of the standard name counts, else its "fp16", not "non_ema".

    Raises:
        FolderError: no folder, no safetensors (pickles are refused), several checkpoints, or a missing shard.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder")
    for variant in ("", *_HALVES):
        for standard in _PREFERRED:
            file, index = folder / standard, folder / f"{standard}.index.json"
            if variant:
                file, index = file.with_suffix(f".{variant}.safetensors"), index.with_suffix(f".{variant}.json")
            if file.is_file():
                return [file]
            if index.is_file():
                return _shards(index)
    indices, files = (sorted(folder.glob(f"*.safetensors{suffix}")) for suffix in (".index*.json", ""))
    if len(indices) == 1:
        return _shards(indices[0])
    if len(files) == 1:
        return files
    if files:
        names = ", ".join(file.name for file in files[:_SHOWN]) + (", ..." if len(files) > _SHOWN else "")
        raise FolderError(f"{folder} has several safetensors files and no index ({names}): keep the one that is meant")
    if pickles := pickles_in(folder):
        raise FolderError(f"{pickles[0]} is {_convert(pickles[0])}")
    raise FolderError(f"{folder} has no .safetensors file")


def checkpoint_files(path: Path) -> list[Path]:
    """The files of a checkpoint that is one safetensors file, or lies in a folder (`tensor_files`).

    Raises:
        FolderError: neither is there, or it is a pickle, by its name; how to convert it is said.
    """
    if path.is_dir():
        return tensor_files(path)
    if not path.is_file():
        raise FolderError(f"{path} is not there")
    if any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in _PICKLES):
        raise FolderError(f"{path} is {_convert(path)}")
    return [path]


def _convert(pickle: Path) -> str:
    """What a pickle is, and the two lines that make safetensors of one without running what is in it."""
    name, new = repr(pickle.name), repr(pickle.with_suffix(".safetensors").name)
    return (
        "a pickle, which could run any code when opened: convert it once, in its folder and where torch is, by "
        f"`import torch, safetensors.torch as st; x = torch.load({name}, 'cpu', weights_only=True)` and "
        "`st.save_file({k: v.contiguous() for k, v in x.get('state_dict', x).items() if torch.is_tensor(v)}, "
        f"{new})`"
    )


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FolderError(f"{index} has no weight_map")
    names = sorted(set(map(str, weight_map.values())))
    if any(name == ".." or Path(name).name != name for name in names):
        raise FolderError(f"{index} names files outside its folder")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise FolderError(f"{index.parent} lacks {missing[0]}, a shard that {index.name} names")
    return [index.parent / name for name in names]


def stored_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """The tensors of all shards of one checkpoint, by name. Only headers are read.

    Raises:
        FolderError: a file is damaged, truncated or not of this format, or two hold the same tensor.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        with _as_folder_error(file):
            opened, offsets = safe_open(file, framework="numpy"), _offsets(file)
            for name in opened.keys():  # noqa: SIM118, not a dict
                header = opened.get_slice(name)
                dtype = header.get_dtype()
                if name in tensors:
                    raise FolderError(f"{file} and {tensors[name].file.name} both hold {name}")
                shape = tuple(header.get_shape())
                tensors[name] = StoredTensor(file, name, shape, _FLOATS.get(dtype, dtype), offsets[name], opened)
    return tensors


def _offsets(file: Path) -> dict[str, int]:
    """Where the tensors of a file begin, which was opened and so is sound: its header's size, the header, the data."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    return {name: 8 + size + x["data_offsets"][0] for name, x in header.items() if name != "__metadata__"}


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint in `folder`, by name, as stored.

    Raises:
        FolderError: see `tensor_files` and `stored_tensors`.
    """
    return {name: np.asarray(tensor) for name, tensor in stored_tensors(tensor_files(folder)).items()}


def save_tensors(
    folder: Path, stem: str, tensors: Mapping[str, ArrayLike], *, layout: str, shard_bytes: int | None = None
) -> dict[str, str]:
    """Writes STEM.safetensors, or STEM-00001-of-0000N.safetensors and so on, tensors dealt out in order.

    Args:
        folder: exists.
        stem: of the files' names.
        tensors: by name.
        layout: whose names and shapes these are, which readers ask for: "pt" is PyTorch's.
        shard_bytes: no file holds more, but for one of a single larger tensor; None for one file.

    Returns:
        The name of the file that holds each tensor.
    """
    shards = _dealt({name: np.asarray(jax.device_get(x), order="C") for name, x in tensors.items()}, shard_bytes)
    held = {}
    for i, shard in enumerate(shards):
        number = f"-{i + 1:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = folder / f"{stem}{number}.safetensors"
        save_file(shard, file, metadata={"format": layout})
        file.chmod(0o644)  # the library keeps files to their owner
        held |= dict.fromkeys(shard, file.name)
    return held


def _dealt(tensors: dict[str, np.ndarray], shard_bytes: int | None) -> list[dict[str, np.ndarray]]:
    shards, size = [{}], 0
    for name, value in tensors.items():
        if shard_bytes is not None and size + value.nbytes > shard_bytes and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    return shards


def pickles_in(folder: Path, stem: str = "") -> list[Path]:
    """Files whose suffix says that opening them would run code."""
    return sorted(path for pattern in _PICKLES for path in folder.glob(f"{stem}{pattern}"))


def one_line(error: BaseException) -> str:
    """What an error of another library says, in one line."""
    return " ".join(str(error).split())


@contextlib.contextmanager
def _as_folder_error(file: Path):
    try:
        yield
    except FolderError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        why = NOT_FETCHED if file.is_file() and is_lfs_pointer(file) else None
        raise FolderError(f"{file} {why or f'is not a readable safetensors file: {one_line(error)}'}") from None
