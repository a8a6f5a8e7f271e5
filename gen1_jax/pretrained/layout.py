"""How a Hugging Face checkpoint names and stores the parameters of one of our networks, as a table.

A `Layout` renames our dotted paths into theirs, rule after rule; the leaf's own name says how its array is stored:

    ours        theirs       stored as
    kernel      weight       (out, in[, kh, kw])      ours: ([kh, kw,] in, out); a 1x1 convolution may be a matrix
    scale       weight       as it is
    embedding   weight       as it is
    bias        bias         as it is
    others      same name    with or without axes of size 1 (a class token of (1, 1, c))

The same table serves both directions: importing fills our parameters, exporting writes theirs.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.models.module import Params, flatten, unflatten
from gen1_jax.pretrained.tensors import is_floating

_LEAF_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_SHOWN = 8


class LayoutError(UserError):
    """A checkpoint does not fit a network: tensors left over, parameters unfilled, or shapes that disagree."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """A table of names.

    Attributes:
        renames: (regular expression on our path, replacement), applied in order.
        new: expressions of our parameters that such a checkpoint does not have; they keep their initial value.
        zero_rows: (expression, input channels of the checkpoint) of our kernels that have further input channels,
            which are new and start at zero.
        transposed: our kernels of transposed convolutions, stored as (in, out, kh, kw).
        pointwise: our matrices that are written as 1x1 convolutions.
        zero_inputs: our matrices that may be stored with further inputs, whose weights are zero.
        aliases: (expression, replacement) on their names: older spellings of the same tensor.
        ignored: expressions of their tensors that hold no parameter (buffers of constants).
    """

    renames: tuple[tuple[str, str], ...] = ()
    new: tuple[str, ...] = ()
    zero_rows: tuple[tuple[str, int], ...] = ()
    transposed: tuple[str, ...] = ()
    pointwise: tuple[str, ...] = ()
    zero_inputs: tuple[str, ...] = ()
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

    def match(self, parameters: Params, tensors: Mapping[str, Any], source: str) -> dict[str, str]:
        """Which tensor of a checkpoint fills each of our parameters: {our path: their name}. No tensor is read.

        Args:
            parameters: ours, abstract or not; those that are `new` have no counterpart.
            tensors: whatever has a shape and a dtype, by the checkpoint's names.
            source: what the checkpoint is called in an error.

        Raises:
            LayoutError: a tensor is unused, a parameter unfilled, or a shape or dtype does not fit; names are listed.
        """
        unused, twice = {}, []
        for name in tensors:
            if not _matches(self.ignored, name):
                current = _substitute(self.aliases, name)
                twice += [name] if current in unused else []
                unused[current] = name
        matched, missing, wrong = {}, [], []
        for path, parameter in flatten(parameters).items():
            name = self.their_name(path)
            if self.is_new(path):
                continue
            if name not in unused:
                missing.append(f"{name} (for {path})")
                continue
            matched[path] = unused.pop(name)
            tensor = tensors[matched[path]]
            try:
                self.to_ours(path, np.broadcast_to(np.float32(0), tensor.shape), parameter.shape)
            except ValueError:
                wrong.append(f"{name} is {tuple(tensor.shape)}, but {path} is {parameter.shape}")
        unfit = [f"{name} is {tensors[name].dtype}" for name in matched.values() if not is_floating(tensors[name])]
        refuse(
            source,
            {
                "lacks tensors": missing,
                "has tensors that the network does not": sorted(unused.values()),
                "has tensors in an old and a new spelling": twice,
                "has tensors of another shape": wrong,
                "has tensors that are not floating point": unfit,
            },
        )
        return matched

    def fill(self, initial: Params, tensors: Mapping[str, Any], source: str) -> Params:
        """Our parameters with every tensor of a checkpoint in its place, float32.

        Args:
            initial: our parameters; only those that are `new` survive. Arrays or abstract shapes for the rest.
            tensors: the checkpoint's arrays, or what `np.asarray` makes arrays of, by name.
            source: what the checkpoint is called in an error.

        Raises:
            LayoutError: see `match`.
        """
        names = self.match(initial, tensors, source)
        filled = {}
        for path, value in flatten(initial).items():
            if path in names:
                tensor = np.asarray(tensors[names[path]])
                value = np.asarray(self.to_ours(path, tensor, value.shape), np.float32, order="C")
            filled[path] = value
        return unflatten(filled)

    def to_theirs(self, params: Params) -> dict[str, np.ndarray]:
        """The checkpoint that holds `params`, new parameters left out. The inverse of `fill`."""
        return {
            self.their_name(path): self._from_ours(path, np.asarray(value))
            for path, value in flatten(params).items()
            if not self.is_new(path)
        }

    def to_ours(self, path: str, tensor: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """A view of a checkpoint's tensor as our parameter `path`, which has that shape.

        Raises:
            ValueError: it has another.
        """
        leaf = path.rsplit(".", 1)[-1]
        if leaf == "kernel":
            if tensor.ndim == 4 and len(shape) == 2 and tensor.shape[2:] == (1, 1):
                tensor = tensor.reshape(tensor.shape[:2])
            if tensor.ndim == 4:
                tensor = tensor.transpose((2, 3, 0, 1) if _matches(self.transposed, path) else (2, 3, 1, 0))
            else:
                tensor = self._without_zero_inputs(path, tensor.T, shape)
            for pattern, rows in self.zero_rows:
                if re.search(pattern, path) and tensor.shape == (*shape[:2], rows, shape[3]):
                    tensor = np.pad(tensor, ((0, 0), (0, 0), (0, shape[2] - rows), (0, 0)))
        elif leaf not in ("scale", "embedding", "bias") and _without_ones(tensor.shape) == _without_ones(shape):
            tensor = tensor.reshape(shape)
        if tensor.shape != shape:
            raise ValueError(f"{tensor.shape} is not {shape}")
        return tensor

    def _without_zero_inputs(self, path: str, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        rows = shape[0]
        if not _matches(self.zero_inputs, path) or matrix.shape[1:] != shape[1:] or matrix.shape[0] <= rows:
            return matrix
        if matrix[rows:].any():
            raise LayoutError(f"{self.their_name(path)} has more than {rows} inputs whose weights are not zero")
        return matrix[:rows]

    def _from_ours(self, path: str, value: np.ndarray) -> np.ndarray:
        if path.rsplit(".", 1)[-1] != "kernel":
            return value
        if _matches(self.transposed, path):
            return np.ascontiguousarray(value.transpose(2, 3, 0, 1))
        value = np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T)
        return value[..., None, None] if _matches(self.pointwise, path) else value


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _substitute(rules: Iterable[tuple[str, str]], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def refuse(source: str, problems: Mapping[str, list[str]]) -> None:
    """Raise a `LayoutError` about the first problem that has names: a few of them, and how many more there are."""
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise LayoutError(f"{source} {problem}: {', '.join(names[:_SHOWN])}{more}")
