"""Structure: depth of a clip, normalised, blurred t_s times, as the pictures that the autoencoder encodes.

arXiv 2302.03011, section 3.2. Where the paper is silent: depth is normalised over the whole clip, near is bright, the
blur is binomial with sigma 1, a round halves the size, and the way back up is bilinear.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

MAX_STRUCTURE_LEVEL = 7
"""Largest t_s; the paper draws it from 0 to 7."""

_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def normalise_depth(depth: Float[Array, "*batch t h w"]) -> Float[Array, "*batch t h w"]:
    """Inverse depth of any scale and shift to [-1, 1] over the clip, near is 1. Constant depth becomes 0."""
    low, high = depth.min((-3, -2, -1), keepdims=True), depth.max((-3, -2, -1), keepdims=True)
    span = high - low
    return jnp.where(span > 0, (depth - low) / jnp.where(span > 0, span, 1) * 2 - 1, 0)


def blur_depth(depth: Float[Array, "b t h w"], structure_level: Int[Array, " b"]) -> Float[Array, "b t h w"]:
    """t_s rounds of blur and halving, then bilinear back to the size.

    Every round is linear and separable, so that all of them are one matrix along each axis, picked by t_s.

    Args:
        depth: of each clip.
        structure_level: t_s of each clip, 0 to 7; it may be traced.
    """
    rows, columns = (jnp.asarray(_blur_matrices(n))[structure_level] for n in depth.shape[-2:])
    return jnp.einsum("bih,bthw,bjw->btij", rows, depth.astype(jnp.float32), columns, precision="highest")


def structure_images(depth: Float[Array, "b t h w"], structure_level: Int[Array, " b"]) -> Float[Array, "b t h w 3"]:
    """What the autoencoder encodes: blurred depth in [-1, 1] as three equal channels.

    Args:
        depth: from `normalise_depth`.
        structure_level: t_s of each clip, 0 to 7.
    """
    return jnp.repeat(blur_depth(depth, structure_level)[..., None], 3, axis=-1)


@functools.cache
def _blur_matrices(size: int) -> Float[np.ndarray, "levels n n"]:
    """For each t_s the matrix that blurs, halves and restores an axis of `size` pixels."""
    matrices, down = [np.eye(size)], np.eye(size)
    for _ in range(MAX_STRUCTURE_LEVEL):
        n = len(down)
        down = _resize_matrix(n, -(-n // 2)) @ _binomial_matrix(n) @ down
        matrices.append(_resize_matrix(len(down), size) @ down)
    return np.stack(matrices).astype(np.float32)


def _binomial_matrix(n: int) -> Float[np.ndarray, "n n"]:
    """Convolution with the binomial of five, the border pixel repeated beyond the border."""
    matrix = np.zeros((n, n))
    for offset, weight in zip(range(-2, 3), _BINOMIAL, strict=True):
        np.add.at(matrix, (np.arange(n), np.clip(np.arange(n) + offset, 0, n - 1)), weight)
    return matrix


def _resize_matrix(n: int, m: int) -> Float[np.ndarray, "m n"]:
    """Linear interpolation from n to m pixels that leaves the centre of the picture where it is."""
    position = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    left = np.floor(position).astype(int)
    right, fraction = np.minimum(left + 1, n - 1), position - left
    matrix = np.zeros((m, n))
    np.add.at(matrix, (np.arange(m), left), 1 - fraction)
    np.add.at(matrix, (np.arange(m), right), fraction)
    return matrix
