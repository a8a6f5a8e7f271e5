"""Kernels of eight bits in the files of a model folder, whose config.json then says `"quantization"`.

    NAME.kernel        int8,    in the shape that the network's parameter has
    NAME.kernel_scale  float32, (out,): NAME.kernel * NAME.kernel_scale is the parameter

Everything else is in the file as it ever is. See `models.quantized` for what the numbers mean.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gen1_jax.models.quantized import Quantized, is_quantized
from gen1_jax.pretrained.tensors import FolderError, StoredTensor

QUANTIZATION = {"dtype": "int8", "scale": "output channel", "symmetric": True}
"""What config.json says of such a folder."""

_SCALE = "_scale"  # after the name of a kernel, as compressed-tensors' weight_scale after weight


@dataclasses.dataclass(frozen=True)
class StoredKernel:
    """A kernel of eight bits in its file: float32 to all who slice it or make an array of it, and int8 to who asks.

    Attributes:
        values: int8.
        scale: (out,), float32.
    """

    values: StoredTensor
    scale: StoredTensor

    dtype = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.values.shape

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.values[index] * np.broadcast_to(np.asarray(self.scale), self.shape)[index]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.in_eight_bits().weights(), dtype)

    def in_eight_bits(self) -> Quantized:
        """The kernel as it is stored."""
        return Quantized(np.asarray(self.values), np.asarray(self.scale))


def packed(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by their paths as the tensors of a file: each `Quantized` becomes two."""
    tensors = {}
    for name, x in flat.items():
        tensors |= {name: x.values, name + _SCALE: x.scale} if is_quantized(x) else {name: x}
    return tensors


def is_scale(name: str) -> bool:
    """Whether a tensor of a file is the scale of a kernel of eight bits."""
    return name.endswith("kernel" + _SCALE)


def unpacked(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, StoredTensor | StoredKernel]:
    """The inverse: every kernel of eight bits with its scale, others as they are.

    Args:
        tensors: of a file that nobody vouches for.
        source: what to call it.

    Raises:
        FolderError: a scale is missing, of another shape or type, or no positive number.
    """
    kernels = {name: x for name, x in tensors.items() if x.dtype == "I8" and name.endswith("kernel")}
    found: dict[str, StoredTensor | StoredKernel] = dict(tensors)
    for name, values in kernels.items():
        scale = found.pop(name + _SCALE, None)
        if scale is None:
            raise FolderError(f"{source} lacks {name}{_SCALE}, the scale of its int8 {name}")
        if scale.dtype != "float32" or scale.shape != values.shape[-1:]:
            raise FolderError(
                f"{source}: {scale.name} is {scale.dtype} {scale.shape}, not float32 {values.shape[-1:]}, one for each "
                f"output channel of {name}"
            )
        if not (np.isfinite(steps := np.asarray(scale)) & (steps > 0)).all():
            raise FolderError(f"{source}: {scale.name} has numbers that are no steps: not finite, or not above 0")
        found[name] = StoredKernel(values, scale)
    return found
