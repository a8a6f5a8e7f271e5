"""Weights of eight bits: a kernel is whole numbers of -127 ... 127 times one scale for each of its output channels.

    kernel (float) ──quantise──► values (int8), scale (float32) ──weights──► values * scale, in the computation's dtype

A network keeps them so on the device and widens them where it is called (`Bound.apply`); what it computes in is as
ever. Symmetric, to the nearest: arXiv 1806.08342, sections 2.2 and 3.1.1.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8

LARGEST = 127
"""Of the values: -128 is left out, so that both signs reach equally far."""

_KEPT = re.compile(r"(^|\.)(conv_in|conv_out|time_embedding|guidance_embedding)\.")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A kernel of eight bits among the parameters of a network; a pytree of its two arrays.

    Attributes:
        values: the kernel in steps of `scale`; its last axis is that of the output channels.
        scale: (out,), the step of each of them.
        dtype: that the network is given the kernel in.
    """

    values: Int8[Array, "*inputs out"] | Int8[np.ndarray, "*inputs out"]
    scale: Float[Array, " out"] | Float[np.ndarray, " out"]
    dtype: DTypeLike = dataclasses.field(metadata={"static": True})

    def weights(self) -> Float[Array, "*inputs out"]:
        """The kernel that they stand for; each product is rounded once."""
        return (self.values.astype(np.float32) * self.scale).astype(self.dtype)


def is_quantizable(path: str, shape: tuple[int, ...]) -> bool:
    """Whether a parameter is held in eight bits: matrices and kernels of convolutions are, not tables and vectors.

    Nor are a network's first and last convolutions, and what is made of the timestep: they are small, and everything
    that a picture or a step says goes through them.

    Args:
        path: dotted.
        shape: of the parameter.
    """
    return path.rpartition(".")[2] == "kernel" and len(shape) >= 2 and not _KEPT.search(path)


def quantise(kernel: Float[np.ndarray, "*inputs out"]) -> Quantized:
    """A kernel in eight bits, float32 when it is widened again. It is at most half a step away, everywhere.

    No step is 0, so that channels that are all zero divide by none.
    """
    kernel = np.asarray(kernel, np.float32)
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    scale = np.maximum(largest / np.float32(LARGEST), np.finfo(np.float32).tiny)
    return Quantized(np.rint(kernel / scale).astype(np.int8), scale, np.float32)


def widened(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with all that is `Quantized` as the arrays that they stand for."""
    return jax.tree.map(lambda x: x.weights() if is_quantized(x) else x, params, is_leaf=is_quantized)


def is_quantized(leaf: Any) -> bool:
    """Whether a leaf of parameters is `Quantized`."""
    return isinstance(leaf, Quantized)
