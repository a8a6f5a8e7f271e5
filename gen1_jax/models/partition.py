"""Where a network says how its activations may be divided, without knowing over what.

Spatial layers need whole frames, temporal layers need all frames of a position. Networks name these two layouts; a
`Partition` that someone installs while a function is traced turns the names into placements. None is installed by
default: every function here is then the identity or a plain reshape.
"""

import contextlib
import contextvars
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Shaped


@runtime_checkable
class Partition(Protocol):
    """What the names mean."""

    def by_frame(self, x: Shaped[Array, "b t *rest"]) -> Shaped[Array, "b t *rest"]: ...
    def by_position(self, x: Float[Array, "b t p c"]) -> Float[Array, "b t p c"]: ...
    def by_feature(self, x: Float[Array, "*in d"]) -> Float[Array, "*in d"]: ...
    def by_sequence(self, x: Float[Array, "n s heads d"]) -> Float[Array, "n s heads d"]: ...
    def fold(self, x: Shaped[Array, "b s *rest"]) -> Shaped[Array, " n *rest"]: ...
    def unfold(self, x: Shaped[Array, " n *rest"], batch: int) -> Shaped[Array, "b s *rest"]: ...
    def shards(self, n: int) -> int: ...
    def per_shard(self, function: Callable[..., Array], *arrays: Float[Array, "n s heads d"]) -> Array: ...


class Undivided:
    """The default: nothing is placed anywhere."""

    def by_frame(self, x: Shaped[Array, "b t *rest"]) -> Shaped[Array, "b t *rest"]:
        """x."""
        return x

    by_position = by_frame

    def by_feature(self, x: Float[Array, "*in d"]) -> Float[Array, "*in d"]:
        """x."""
        return x

    def by_sequence(self, x: Float[Array, "n s heads d"]) -> Float[Array, "n s heads d"]:
        """x."""
        return x

    def fold(self, x: Shaped[Array, "b s *rest"]) -> Shaped[Array, " n *rest"]:
        """Rows of b after one another."""
        return x.reshape(-1, *x.shape[2:])

    def unfold(self, x: Shaped[Array, " n *rest"], batch: int) -> Shaped[Array, "b s *rest"]:
        """The inverse of `fold`."""
        return x.reshape(batch, -1, *x.shape[1:])

    def shards(self, n: int) -> int:
        """One."""
        return 1

    def per_shard(self, function: Callable[..., Array], *arrays: Float[Array, "n s heads d"]) -> Array:
        """function(*arrays)."""
        return function(*arrays)


_UNDIVIDED = Undivided()
_partition: contextvars.ContextVar[Partition] = contextvars.ContextVar("partition", default=_UNDIVIDED)


@contextlib.contextmanager
def partitioned(partition: Partition):
    """Networks that are traced inside are divided by `partition`. A function jitted before is not traced again."""
    token = _partition.set(partition)
    try:
        yield
    finally:
        _partition.reset(token)


def by_frame(x: Shaped[Array, "b t *rest"]) -> Shaped[Array, "b t *rest"]:
    """Each device holds whole frames."""
    return _partition.get().by_frame(x)


def by_position(x: Float[Array, "b t p c"]) -> Float[Array, "b t p c"]:
    """Each device holds all frames of some positions."""
    return _partition.get().by_position(x)


def by_feature(x: Float[Array, "*in d"]) -> Float[Array, "*in d"]:
    """Weights, of which each device holds some of the last axis."""
    return _partition.get().by_feature(x)


def by_sequence(x: Float[Array, "n s heads d"]) -> Float[Array, "n s heads d"]:
    """Each device holds some heads of whole sequences."""
    return _partition.get().by_sequence(x)


def fold(x: Shaped[Array, "b s *rest"]) -> Shaped[Array, " n *rest"]:
    """Frames (or positions) as one batch, n = b * s, for layers to which each is a picture (a sequence) of its own.

    Their order in the batch is the partition's affair: only `unfold` takes them back.
    """
    return _partition.get().fold(x)


def unfold(x: Shaped[Array, " n *rest"], batch: int) -> Shaped[Array, "b s *rest"]:
    """The inverse of `fold`, b = `batch`."""
    return _partition.get().unfold(x, batch)


def shards(n: int) -> int:
    """Among how many devices a folded batch of this size is divided."""
    return _partition.get().shards(n)


def per_shard(function: Callable[..., Array], *arrays: Float[Array, "n s heads d"]) -> Float[Array, "n s heads d"]:
    """`function`, which treats each of a folded batch and each head by itself, on what each device holds of them.

    For kernels that the compiler cannot divide.
    """
    return _partition.get().per_shard(function, *arrays)
