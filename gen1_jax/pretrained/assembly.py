"""A network filled from one or several checkpoints: a base U-Net, motion modules, ControlNets, an adapter.

sources (layout, tensors, which of our paths they fill) ──strict, each by itself──► complete together ──► parameters
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from gen1_jax.models.module import Params, abstract_parameters, cast_kernels, flatten, initialise, unflatten
from gen1_jax.pretrained.layout import Layout, LayoutError
from gen1_jax.pretrained.tensors import FolderError

_NEW_LAYERS_SEED = 0
_SCALES = (0.02, 50.0)
"""Between which the scales of a trained network's norms are on average; they begin at 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint that fills some parameters of a network.

    Attributes:
        layout: our names and theirs.
        tensors: `StoredTensor`s by name.
        name: what the checkpoint is called in an error.
        fills: which of our paths.
        from_zero: expressions of our kernels that are zero before training, so that not all of them may be.
    """

    layout: Layout
    tensors: Mapping[str, Any]
    name: str
    fills: Callable[[str], bool] = lambda path: True
    from_zero: tuple[str, ...] = ()

    def match(self, parameters: Mapping[str, Any]) -> None:
        """Compare the headers of the files with parameters of flat names.

        Raises:
            LayoutError: see `Layout.match`.
        """
        self.layout.match(unflatten(self._of(parameters)), self.tensors, self.name)

    def fill(self, initial: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What it fills of the parameters of flat names, float32.

        Raises:
            LayoutError: see `Layout.match`.
            FolderError: numbers that are not finite, or weights that nothing was trained on.
        """
        filled = flatten(self.layout.fill(unflatten(self._of(initial)), self.tensors, self.name))
        self._check_values(filled)
        return filled

    def _of(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {path: value for path, value in parameters.items() if self.fills(path)}

    def _check_values(self, filled: Mapping[str, np.ndarray]) -> None:
        for path, value in filled.items():
            if not np.isfinite(value).all():
                raise FolderError(f"{self.name} is damaged: {self.layout.their_name(path)} is not finite everywhere")
        for pattern in self.from_zero:
            kernels = [path for path in filled if re.search(pattern, path)]
            if kernels and not any(filled[path].any() for path in kernels):
                first = self.layout.their_name(kernels[0])
                raise FolderError(f"{self.name} is not trained: {first} and all others like it are zero")
        norms = [path for path in filled if path.endswith(".scale") and not self.layout.is_new(path)]
        scale = np.mean([np.abs(filled[path]).mean() for path in norms]) if norms else 1
        if not _SCALES[0] <= scale <= _SCALES[1]:
            raise FolderError(
                f"{self.name} is damaged or not trained: the scales of its norms are {scale:.2g} on average, "
                "where they should be near 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network and its checkpoints. Making one compares the headers of all files with it; nothing is read.

    Raises:
        LayoutError: a checkpoint does not fit, or they leave a parameter without one.
    """

    module: nnx.Module
    sources: tuple[Source, ...]

    def __post_init__(self):
        parameters = flatten(abstract_parameters(self.module))
        for source in self.sources:
            source.match(parameters)
        if missing := [path for path in parameters if not any(source.fills(path) for source in self.sources)]:
            names, has = (
                " and ".join(source.name for source in self.sources),
                "has" if len(self.sources) == 1 else "have",
            )
            raise LayoutError(f"{names} {has} nothing for {missing[0]} and {len(missing) - 1} more")

    def parameters(self, dtype: DTypeLike = np.float32) -> Params:
        """All parameters; those that no checkpoint of its kind has keep their initial value.

        Args:
            dtype: of matrices and kernels, others are float32. One checkpoint at a time is in memory in float32.

        Raises:
            FolderError: a checkpoint is damaged or not trained, or has weights beyond what `dtype` holds.
        """
        is_new = lambda path: any(source.fills(path) and source.layout.is_new(path) for source in self.sources)
        filled = flatten(initialise(self.module, _NEW_LAYERS_SEED, only=is_new))
        for source in self.sources:
            filled |= _rounded(source.fill(filled), jnp.dtype(dtype), source.name)
        return unflatten(filled)


def _rounded(filled: dict[str, np.ndarray], dtype: np.dtype, name: str) -> dict[str, np.ndarray]:
    with np.errstate(over="ignore"):
        rounded = flatten(cast_kernels(unflatten(filled), dtype))
    if dtype != np.float32 and not all(np.isfinite(x).all() for x in rounded.values()):
        raise FolderError(f"{name} has weights beyond those that {dtype.name} holds: import it as bfloat16")
    return rounded
