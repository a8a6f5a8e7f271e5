"""Weights of eight bits: a kernel is whole numbers of -127 ... 127 times one step for each of its output channels.

    kernel (float) ──quantise──► values (int8), scale (float32) ──beside(x)──► values * scale, in the dtype of x

A network keeps them so on the device and each layer widens its own when it computes; what it computes in is as ever.
Symmetric, to the nearest: arXiv 1806.08342, sections 2.2 and 3.1.1.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LARGEST = 127
"""Of the values: -128 is left out, so that both signs reach equally far."""

_KEPT = re.compile(r"(^|\.)(conv_in|conv_out|time_embedding|guidance_embedding)\.|^(embeddings|head)\.")
"""Of the U-Net and the autoencoder; and of the depth network, whose smallest and largest pixels scale all others."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Quantized:
    """A kernel of eight bits among the parameters of a network; a pytree of its two arrays.

    Attributes:
        values: (*inputs, out), int8: the kernel in steps of `scale`.
        scale: (out,), float32, the step of each output channel.
    """

    values: Any  # arrays, or whatever else JAX puts into the leaves of a tree
    scale: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.values.shape

    def weights(self) -> Float[Array, "*inputs out"] | Float[np.ndarray, "*inputs out"]:
        """The kernel that they stand for, float32."""
        return self.values.astype(np.float32) * self.scale

    def beside(self, x: Float[Array, "*batch"]) -> Float[Array, "*inputs out"]:
        """The kernel in the dtype of what a layer is given, no earlier than that is there.

        Nothing in the loop of a sampler changes the kernel, so XLA would widen those of the whole network once, in
        front of the loop, or all of them first in each step: then they are in memory twice, and wide.
        """
        narrow, _ = jax.lax.optimization_barrier((self, x))
        return narrow.weights().astype(x.dtype)


def kernel_beside(kernel: Array | np.ndarray | Quantized, x: Float[Array, "*batch"]) -> Float[Array, "*inputs out"]:
    """A layer's kernel, as it is held, in the dtype of what the layer is given."""
    return kernel.beside(x) if is_quantized(kernel) else jnp.asarray(kernel, x.dtype)


def widened(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters with all that is `Quantized` as float32, for who trains them."""
    return jax.tree.map(lambda x: x.weights() if is_quantized(x) else x, params, is_leaf=is_quantized)


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
    """A kernel in eight bits; what they stand for is at most half a step away, everywhere.

    No step is 0, so that channels that are all zero divide by none.
    """
    kernel = np.asarray(kernel, np.float32)
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    scale = np.maximum(largest / np.float32(LARGEST), np.finfo(np.float32).tiny)
    return Quantized(np.rint(kernel / scale).astype(np.int8), scale)


def is_quantized(leaf: Any) -> bool:
    """Whether a leaf of parameters is `Quantized`."""
    return isinstance(leaf, Quantized)
