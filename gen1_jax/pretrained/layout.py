"""How a Hugging Face checkpoint names and stores the parameters of one of our networks, as a table.

A `Layout` renames our dotted paths into theirs, rule after rule; the leaf's own name says how its array is stored:

    ours        theirs       stored as
    kernel      weight       (out, in[, kh, kw])      ours: ([kh, kw,] in, out); a 1x1 convolution may be a matrix
    scale       weight       as it is
    embedding   weight       as it is
    bias        bias         as it is
    others      same name    reshaped, if the sizes agree (a class token of (1, 1, c))

The same table serves both directions: importing fills our parameters, exporting writes theirs.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from gen1_jax.models.module import Params, flatten, unflatten

_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_SHOWN = 8


class LayoutError(ValueError):
    """A checkpoint does not fit a network: tensors left over, parameters unfilled, or shapes that disagree."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A table of names.

    Attributes:
        renames: (regular expression on our path, replacement), applied in order.
        new: expressions of our parameters that such a checkpoint does not have; they keep their initial value.
        zero_rows: our kernels whose further input channels are new and start at zero.
        transposed: our kernels of transposed convolutions, stored as (in, out, kh, kw).
        aliases: (expression, replacement) on their names: older spellings of the same tensor.
        ignored: expressions of their tensors that hold no parameter (buffers of constants).
    """

    renames: tuple[tuple[str, str], ...] = ()
    new: tuple[str, ...] = ()
    zero_rows: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def their_name(self, path: str) -> str:
        """The checkpoint's name of our parameter `path`."""
        *parents, leaf = path.split(".")
        name = ".".join([*parents, _LEAF_NAMES.get(leaf, leaf)])
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def is_new(self, path: str) -> bool:
        """Whether our parameter `path` is one that such a checkpoint does not have."""
        return _matches(self.new, path)

    def fill(self, initial: Params, tensors: Mapping[str, np.ndarray], source: str) -> Params:
        """Our parameters with every tensor of a checkpoint in its place.

        Args:
            initial: our parameters; only those that are `new` (and zero rows) survive. Arrays or abstract shapes
                for the rest.
            tensors: the checkpoint's arrays by name.
            source: what the checkpoint is called in an error.

        Raises:
            LayoutError: a tensor is unused, a parameter unfilled, or a shape differs; the names are listed.
        """
        named = {_substitute(self.aliases, name): name for name in tensors if not _matches(self.ignored, name)}
        filled, missing, wrong = {}, [], []
        for path, value in flatten(initial).items():
            if self.is_new(path):
                filled[path] = value
                continue
            name = self.their_name(path)
            if name not in named:
                missing.append(f"{name} (for {path})")
                continue
            tensor = tensors[named.pop(name)]
            try:
                filled[path] = self._to_ours(path, np.asarray(tensor), value.shape)
            except ValueError:
                wrong.append(f"{name} is {tuple(tensor.shape)}, but {path} is {value.shape}")
        for problem, names in (
            ("lacks tensors", missing),
            ("has tensors that the network does not", sorted(named.values())),
            ("has tensors of another shape", wrong),
        ):
            if names:
                raise LayoutError(f"{source} {problem}: {listed(names)}")
        return unflatten(filled)

    def to_theirs(self, params: Params) -> dict[str, np.ndarray]:
        """The checkpoint that holds `params`, new parameters left out. The inverse of `fill`."""
        return {
            self.their_name(path): self._from_ours(path, np.asarray(value))
            for path, value in flatten(params).items()
            if not self.is_new(path)
        }

    def _to_ours(self, path: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        leaf = path.rsplit(".", 1)[-1]
        if leaf == "kernel":
            if tensor.ndim == 4 and len(shape) == 2:  # a 1x1 convolution
                tensor = tensor.reshape(tensor.shape[:2]) if tensor.shape[2:] == (1, 1) else tensor
            if _matches(self.transposed, path):
                tensor = tensor.transpose(2, 3, 0, 1)
            else:
                tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
            if _matches(self.zero_rows, path) and tensor.ndim == 4 and tensor.shape[2] < shape[2]:
                tensor = np.pad(tensor, ((0, 0), (0, 0), (0, shape[2] - tensor.shape[2]), (0, 0)))
        if leaf in ("kernel", "scale", "embedding", "bias") and tensor.shape != shape:
            raise ValueError(f"{tensor.shape} is not {shape}")
        return np.ascontiguousarray(tensor).reshape(shape)  # in this order: it makes a scalar 1-D

    def _from_ours(self, path: str, value: np.ndarray) -> np.ndarray:
        if path.rsplit(".", 1)[-1] != "kernel":
            return value
        if _matches(self.transposed, path):
            return np.ascontiguousarray(value.transpose(2, 3, 0, 1))
        return np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T)


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _substitute(rules: Iterable[tuple[str, str]], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
