"""Where arrays lie: ordered tables from names to mesh axes, and the placements that follow from them.

at rest    (3, 3, 640, 1280)  conv        ─► fsdp on the largest axis: each device holds its part of everything
           (1280, 10240)      proj_in     ─► fsdp, tensor
gathered   the same without fsdp          ─► what a step computes with (https://arxiv.org/abs/1910.02054)
batches    leading axis                   ─► data and fsdp
"""

import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jax.tree_util import keystr, tree_map_with_path

from gen1_jax.errors import UserError
from gen1_jax.parallel.activations import Activations

Rules = tuple[tuple[str, tuple[str | None, ...]], ...]
"""Pairs of a regular expression, searched in a dotted path, and the mesh axis of each axis. The first that matches
counts; one made for another number of axes, or none, means no axis."""

_AT_A_TIME = 8  # arrays that are made on the host, in threads

_INPUT, _OUTPUT = ("tensor", None), (None, "tensor")

UNET_RULES: Rules = (
    (r"\b(to_q|to_k|to_v)\.kernel$", _OUTPUT),
    (r"\bto_out\.kernel$", _INPUT),
    (r"\bff\.proj_in\.kernel$", _OUTPUT),
    (r"\bff\.proj_out\.kernel$", _INPUT),
    (r"\bmodulation(_out)?\.projection\.kernel$", _OUTPUT),
)
"""Attentions and feed-forwards of a denoiser of any kind over `tensor`: heads and hidden features, then the sum of what
they give (https://arxiv.org/abs/1909.08053); and what a transformer's timestep is projected to."""

ENCODER_RULES: Rules = (
    (r"\bmid_block\.attention\.", ()),  # the autoencoder's, of one head
    (r"\battention\.(to_q|to_k|to_v)\.kernel$", _OUTPUT),
    (r"\battention\.to_out\.kernel$", _INPUT),
    (r"\bfc1\.kernel$", _OUTPUT),
    (r"\bfc2\.kernel$", _INPUT),
)
"""The other networks: CLIP, depth and prior as the U-Net, the autoencoder not over `tensor`."""


class Layout:
    """Where arrays lie on a mesh with the axes of `mesh.AXES`. An axis that does not divide a size does not split it.

    Args:
        mesh: of devices; an abstract one will do for tables.
        smallest: arrays of fewer elements are whole on every device.
        platform: of the devices, "cpu", "gpu" or "tpu", where the mesh is abstract and does not know.
    """

    def __init__(self, mesh: Mesh | AbstractMesh, *, smallest: int = 2**14, platform: str | None = None):
        self.mesh, self.smallest, self._platform = mesh, smallest, platform

    @property
    def batch_shards(self) -> int:
        """Into how many parts a batch is divided; its size should be a multiple."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def copies(self) -> int:
        """Copies of the weights, each with its part of the batch: over `data`."""
        return self.mesh.shape["data"]

    is_whole = False
    """Whether nothing is left to divide: inside a `jax.shard_map` over all axes."""

    @property
    def manual_axes(self) -> set[str]:
        """Axes of a `jax.shard_map` over the copies: all, where `data` alone divides anything."""
        alone = all(size == 1 for axis, size in self.mesh.shape.items() if axis != "data")
        return set(self.mesh.axis_names) if alone else {"data"}

    @property
    def sums_once(self) -> bool:
        """Whether gradients of several parts of a batch are summed over the copies once, after the last of them.

        cuDNN's attention cannot be divided by the compiler inside a `jax.shard_map`, so that on GPUs, where other axes
        divide something, every part has a sum of its own.
        """
        return self.copies > 1 and (self.platform != "gpu" or "fsdp" in self.manual_axes)

    @property
    def platform(self) -> str:
        """Of the devices: "cpu", "gpu" or "tpu"."""
        return self._platform or self.mesh.devices.flat[0].platform

    def at_rest(self, tree: Any, rules: Rules) -> Any:
        """A `NamedSharding` for each leaf of parameters, EMA or optimizer state, abstract or not.

        Leaves are known by how their paths end, so that optax's wrapping does not matter.
        """
        return self._shardings(tree, rules, fsdp=True)

    def gathered(self, tree: Any, rules: Rules) -> Any:
        """`at_rest` without `fsdp`."""
        return self._shardings(tree, rules, fsdp=False)

    def spec(self, path: str, shape: tuple[int, ...], rules: Rules, *, fsdp: bool = True) -> PartitionSpec:
        """The mesh axes of an array by its dotted path."""
        if math.prod(shape) < self.smallest:
            return PartitionSpec()
        template = next((axes for pattern, axes in rules if re.search(pattern, path)), ())
        axes: list[str | None] = list(template) if len(template) == len(shape) else [None] * len(shape)
        axes = [axis if axis and self._splits(axis, size) else None for axis, size in zip(axes, shape, strict=True)]
        if fsdp:
            free = [i for i, size in enumerate(shape) if axes[i] is None and self._splits("fsdp", size)]
            if free:
                axes[max(free, key=lambda i: shape[i])] = "fsdp"
        while axes and axes[-1] is None:
            axes.pop()
        return PartitionSpec(*axes)

    def batch(self) -> NamedSharding:
        """For arrays with a leading batch axis."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "fsdp")))

    def replicated(self) -> NamedSharding:
        """Whole on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def activations(self) -> Activations:
        """How networks divide what they compute, for `models.partition.partitioned`."""
        return Activations(self.mesh)

    def inside_data(self) -> "Layout":
        """The same inside a `jax.shard_map` over `manual_axes`: what a copy of the weights does with its examples."""
        is_whole = "fsdp" in self.manual_axes
        return _InsideData(jax.sharding.get_abstract_mesh(), self.smallest, self.platform, is_whole)

    def process_shard(self, process: int | None = None) -> tuple[int, int]:
        """Which part of each batch a process reads, and of how many. Some read the same: a clip can span processes.

        Args:
            process: its index; this one, if None.

        Raises:
            ValueError: processes' parts overlap without being equal.
        """
        rows = self.mesh.devices.reshape(self.batch_shards, -1)
        parts: dict[int, set[int]] = {}
        for row, devices in enumerate(rows):
            for device in devices:
                parts.setdefault(device.process_index, set()).add(row)
        distinct = sorted({tuple(sorted(part)) for part in parts.values()})
        if sum(map(len, distinct)) != len(rows) or len(set(map(len, distinct))) != 1:
            raise UserError(f"mesh {dict(self.mesh.shape)} gives processes unequal parts of a batch: {distinct}")
        mine = parts[jax.process_index() if process is None else process]
        return distinct.index(tuple(sorted(mine))), len(distinct)

    def put_batch(self, tree: Any) -> Any:
        """NumPy arrays with this process's rows of a batch (`process_shard`) as global arrays."""
        sharding = self.batch()
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), tree)

    def abstract_batch(self, tree: Any) -> Any:
        """Shapes and shardings of what `put_batch` makes of these arrays."""
        sharding, (_, count) = self.batch(), self.process_shard()
        abstract = lambda x: jax.ShapeDtypeStruct((x.shape[0] * count, *x.shape[1:]), x.dtype, sharding=sharding)
        return jax.tree.map(abstract, tree)

    def put(self, tree: Any, shardings: Any) -> Any:
        """Host arrays straight into their shards, a few at a time, no device ever holding a whole one.

        Args:
            tree: of arrays, of anything that has `shape` and can be sliced or given to `np.asarray`, or of functions
                without arguments that return such: called a few at a time, so that a few at a time are in memory.
            shardings: the same tree of `NamedSharding`.
        """
        leaves, structure = jax.tree.flatten(tree)
        with ThreadPoolExecutor(_AT_A_TIME) as pool:  # one thread would wait for Python's lock where others trace
            return structure.unflatten(list(pool.map(_put, leaves, structure.flatten_up_to(shardings))))

    def _splits(self, axis: str, size: int) -> bool:
        return self.mesh.shape[axis] > 1 and size % self.mesh.shape[axis] == 0

    def _shardings(self, tree: Any, rules: Rules, *, fsdp: bool) -> Any:
        def sharding(path, leaf):
            name = keystr(path, simple=True, separator=".")
            return NamedSharding(self.mesh, self.spec(name, leaf.shape, rules, fsdp=fsdp))

        return tree_map_with_path(sharding, tree)


class _InsideData(Layout):
    """See `Layout.inside_data`."""

    def __init__(self, mesh: AbstractMesh, smallest: int, platform: str, is_whole: bool):
        super().__init__(mesh, smallest=smallest, platform=platform)
        self.is_whole = is_whole

    def activations(self) -> Activations:
        """Batches over fsdp: their division over data is done."""
        return Activations(self.mesh, batch=("fsdp",))


def rules_of(component: str) -> Rules:
    """The table of a network, by its name."""
    return UNET_RULES if component == "unet" else ENCODER_RULES


def _put(leaf: Any | Callable[[], Any], sharding: NamedSharding) -> jax.Array:
    value = leaf() if callable(leaf) else leaf
    if isinstance(value, jax.Array) or not hasattr(value, "__getitem__"):
        value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: np.asarray(value[index]))
