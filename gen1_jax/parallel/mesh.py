"""Devices as a grid with four named axes.

data     copies of the weights; each its part of the batch          crosses slices, the slow network
fsdp     weights and optimizer divided, gathered once a step; each its part of the batch
tensor   attention heads and feed-forward features divided          neighbours on the fast network
context  frames or positions of a clip divided                      neighbours on the fast network
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from gen1_jax.errors import UserError, counted

AXES = ("data", "fsdp", "tensor", "context")
"""The axes of every mesh, those that communicate most last."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis. At most one is -1: all that the others leave.

    Attributes:
        data: copies of everything.
        fsdp: parts of weights and optimizer state (https://arxiv.org/abs/1910.02054).
        tensor: parts of attention and feed-forward layers (https://arxiv.org/abs/1909.08053).
        context: parts of a clip: frames in spatial layers, positions in temporal ones (as
            https://arxiv.org/abs/2309.14509 divides sequences and heads).
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    context: int = 1

    def __post_init__(self):
        sizes = self._given()
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise UserError(f"mesh {self} needs positive sizes, at most one of them -1 (the rest of the devices)")

    def __str__(self) -> str:
        return ",".join(f"{axis}={size}" for axis, size in zip(AXES, self._given(), strict=True))

    def sizes(self, device_count: int) -> tuple[int, int, int, int]:
        """Devices along data, fsdp, tensor, context.

        Raises:
            ValueError: they do not multiply to `device_count`.
        """
        given = self._given()
        known = math.prod(size for size in given if size != -1)
        filled = tuple(device_count // known if size == -1 else size for size in given)
        if math.prod(filled) != device_count:
            wanted = f"multiples of {counted(known, 'device')}" if -1 in given else counted(known, "device")
            there = "is" if device_count == 1 else "are"
            raise UserError(f"mesh {self} is for {wanted}, but there {there} {device_count}")
        return filled

    def _given(self) -> tuple[int, int, int, int]:
        return self.data, self.fsdp, self.tensor, self.context


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of `devices` (all of all processes, if None), or of a topology's that are not there.

    Neighbours in the mesh are neighbours in the network as far as its shape allows. Several slices, which only the
    slow network connects, lie along `data` and, as far as that is too short, along `fsdp`.

    Raises:
        ValueError: the sizes do not multiply to the number of devices, or slices fit neither data nor fsdp.
    """
    devices = list(jax.devices() if devices is None else devices)
    grid = device_grid(config.sizes(len(devices)), devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_grid(sizes: tuple[int, int, int, int], devices: Sequence[Any]) -> np.ndarray:
    """`devices` as an array of shape `sizes`. See `make_mesh`."""
    slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    data, fsdp, tensor, context = sizes
    across_data = math.gcd(data, slices)
    across_fsdp = slices // across_data
    if fsdp % across_fsdp:
        raise UserError(f"{slices} slices can be divided along neither data={data} nor fsdp={fsdp}")
    within = (data // across_data, fsdp // across_fsdp, tensor, context)
    return mesh_utils.create_hybrid_device_mesh(
        within, (across_data, across_fsdp, 1, 1), devices, allow_split_physical_axes=True
    )


def parse_mesh(text: str) -> MeshConfig:
    """ "fsdp=16,data=16" as a `MeshConfig`; what is not named is 1, or all the rest along `data` if that is not named.

    Raises:
        ValueError: not of this form.
    """
    pairs = [part.partition("=") for part in text.split(",") if part]
    if any(axis not in AXES or not size.lstrip("-").isdigit() for axis, _, size in pairs):
        raise UserError(f"--mesh {text!r} is not like data=16,fsdp=16 (axes: {', '.join(AXES)})")
    return MeshConfig(**{axis: int(size) for axis, _, size in pairs})
