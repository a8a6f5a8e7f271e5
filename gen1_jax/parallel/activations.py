"""How activations lie while a network computes: batch over data and fsdp, frames or positions over context.

spatial layers    (b, t/context, h w, c)     each device holds whole frames
      │ all-to-all ▲
      ▼            │
temporal layers   (b, t, h w/context, c)     each device holds all frames of some positions
full attention    (b, t h w, heads/context)  each device holds some heads of all positions
"""

import dataclasses
import math
from collections.abc import Callable

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Shaped


@dataclasses.dataclass(frozen=True)
class Activations:
    """A `models.partition.Partition` over a mesh. An axis that does not divide a size does not split it.

    Images (t = 1) have no frames to divide: their batch is over data, fsdp and context together.

    Attributes:
        mesh: with the axes of `mesh.AXES`.
        batch: the axes that divide batches; fewer inside a `jax.shard_map` over the others, which are divided already.
    """

    mesh: Mesh | AbstractMesh
    batch: tuple[str, ...] = ("data", "fsdp")

    def by_frame(self, x: Shaped[Array, "b t *rest"]) -> Shaped[Array, "b t *rest"]:
        """Whole frames: (data, fsdp), context."""
        return self._place(x, *self._leading(*x.shape[:2]))

    def by_position(self, x: Float[Array, "b t p c"]) -> Float[Array, "b t p c"]:
        """All frames of some positions: (data, fsdp), -, context."""
        batch, positions = self._leading(x.shape[0], x.shape[2])
        return self._place(x, batch, (), positions)

    def by_feature(self, x: Float[Array, "*in d"]) -> Float[Array, "*in d"]:
        """Weights divided over tensor on their last axis."""
        return self._place(x, *[()] * (x.ndim - 1), self._dividing(x.shape[-1], ("tensor",)))

    def by_sequence(self, x: Float[Array, "n s heads d"]) -> Float[Array, "n s heads d"]:
        """Whole sequences, as `per_shard` takes them."""
        batch, heads = self._sequences(x)
        return self._place(x, batch, (), heads)

    def fold(self, x: Shaped[Array, "b s *rest"]) -> Shaped[Array, " n *rest"]:
        """(b, s) as one axis, which stays where it lies.

        Rows of b that share a device alternate: were they after one another, no division of the one axis would be
        that of the two, and the partitioner would gather them.
        """
        batch, second = self._leading(*x.shape[:2])
        shards, rest = self._size(batch), x.shape[2:]
        if second:
            x = x.reshape(shards, -1, *x.shape[1:]).swapaxes(1, 2)
        return self._place(x.reshape(-1, *rest), batch + second)

    def unfold(self, x: Shaped[Array, " n *rest"], batch: int) -> Shaped[Array, "b s *rest"]:
        """The inverse of `fold`."""
        size, rest = x.shape[0] // batch, x.shape[1:]
        axes, second = self._leading(batch, size)
        if second:
            x = x.reshape(self._size(axes), size, -1, *rest).swapaxes(1, 2)
        return self._place(x.reshape(batch, size, *rest), axes, second)

    def shards(self, n: int) -> int:
        """Parts of a folded batch: over data, fsdp and context."""
        return self._size(self._dividing(n, (*self.batch, "context")))

    def per_shard(self, function: Callable[..., Array], *arrays: Float[Array, "n s heads d"]) -> Array:
        """Sequences over data, fsdp and context, heads over tensor as the rules of weights leave them; heads over
        what the number of sequences cannot use, too."""
        batch, heads = self._sequences(arrays[0])
        spec = PartitionSpec(batch or None, None, heads or None, None)
        axes = {*self.batch, "context", "tensor"}  # the others are divided already
        sharded = jax.shard_map(
            function, mesh=self.mesh, in_specs=spec, out_specs=spec, axis_names=axes, check_vma=False
        )
        return sharded(*arrays)

    def _sequences(self, x: Float[Array, "n s heads d"]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Mesh axes of the number of sequences, and of heads."""
        batch = self._dividing(x.shape[0], (*self.batch, "context"))
        left = tuple(axis for axis in (*self.batch, "context") if axis not in batch)
        return batch, self._dividing(x.shape[2], ("tensor", *left[::-1]))

    def _leading(self, batch: int, second: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Mesh axes of a batch and of what follows it."""
        if second == 1:
            return self._dividing(batch, (*self.batch, "context")), ()
        first = self._dividing(batch, self.batch)
        # What a batch cannot use goes to its frames: the three branches of a guided clip on two devices, say.
        return first, self._dividing(second, ("context", *(axis for axis in self.batch if axis not in first)))

    def _dividing(self, size: int, axes: tuple[str, ...]) -> tuple[str, ...]:
        """The longest beginning of `axes` that divides `size`."""
        while size % self._size(axes):
            axes = axes[:-1]
        return axes if self._size(axes) > 1 else ()

    def _size(self, axes: tuple[str, ...]) -> int:
        return math.prod(self.mesh.shape[axis] for axis in axes)

    def _place(self, x: Array, *axes: tuple[str, ...]) -> Array:
        spec = PartitionSpec(*(names or None for names in axes))
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))
