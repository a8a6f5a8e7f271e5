"""Checksums of arrays that notice every change, one of order too, and are the same however an array is divided.

A sum, exact modulo 2^32 in any order, over the elements of mix(bits + place * K): `place` counts elements in row-major
order over the whole array, `mix` is the finaliser of MurmurHash3. As `mix` is one to one, no change of a single element
goes unnoticed; others do with a chance of 2^-32 an array. Sums of mere products of bits and place would not do: weights
that come from bfloat16 end in 16 zeros, and so do the differences of places in different shards.
"""

import hashlib
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

PLAIN, IN_ORDER = 1, 2
"""Versions: the first checkpoints hold sums of bits alone."""

_PLACE, _FIRST, _SECOND = (np.uint32(n) for n in (0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35))
_CHUNK = 2**18  # elements that stay in a processor's cache


def digest(tree: Any, version: int = IN_ORDER) -> str:
    """A hash of all arrays of a tree, in its order; arrays of JAX are summed where they lie, others on the host.

    Args:
        tree: of arrays of 1, 2 or 4 bytes an element.
        version: `PLAIN` or `IN_ORDER`.
    """
    leaves = jax.tree.leaves(tree)
    if leaves and isinstance(leaves[0], jax.Array) and not _on_host(leaves[0]):
        sums = np.asarray(_device_sums(leaves, version))
    else:
        sums = np.array([_host_sum(np.asarray(leaf), version) for leaf in leaves])
    return hashlib.sha256(np.ascontiguousarray(sums, np.uint32)).hexdigest()[:16]


def _on_host(leaf: Array) -> bool:
    """Whether its elements lie in the memory of this process, where NumPy sums them sooner than XLA compiles a sum."""
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())


@partial(jax.jit, static_argnames="version")
def _device_sums(leaves: list[Array], version: int) -> UInt32[Array, " n"]:
    return jnp.stack([_device_sum(leaf, version) for leaf in leaves])


def _device_sum(leaf: Array, version: int) -> UInt32[Array, ""]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    if version == IN_ORDER:
        bits = _mix(bits + _places(leaf.shape) * _PLACE)
    return bits.sum(dtype=jnp.uint32)


def _places(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Row-major number of each element, modulo 2^32; divided like what it is added to."""
    places = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
        places += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
    return places


def _host_sum(leaf: np.ndarray, version: int) -> int:
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[leaf.dtype.itemsize]
    bits, total = np.ascontiguousarray(leaf).reshape(-1).view(unsigned), 0
    for start in range(0, bits.size, _CHUNK):
        chunk = bits[start : start + _CHUNK].astype(np.uint32)
        if version == IN_ORDER:
            chunk = _mix(chunk + np.arange(start, start + chunk.size).astype(np.uint32) * _PLACE)
        total += int(chunk.sum(dtype=np.uint32))
    return total % 2**32


def _mix(x: Any) -> Any:
    """One to one on 32-bit words; each bit of what comes out depends on all that go in."""
    x = (x ^ (x >> np.uint32(16))) * _FIRST
    x = (x ^ (x >> np.uint32(13))) * _SECOND
    return x ^ (x >> np.uint32(16))
