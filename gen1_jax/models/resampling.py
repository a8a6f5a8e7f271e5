"""Blurring and resampling along an axis as constant matrices: linear, separable, made with NumPy when tracing."""

import functools

import numpy as np
from jaxtyping import Float

_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16  # a Gaussian of sigma 1


def bilinear_matrix(source: int, target: int, *, align_corners: bool = False) -> Float[np.ndarray, "target source"]:
    """The matrix that resamples `source` values along an axis to `target`; float64, each row sums to one.

    Torch's convention: with `align_corners` the first and last samples coincide, without it the borders of the
    pixels do, so that the centre of the picture stays where it is. Never antialiased.
    """
    index = np.arange(target)
    if align_corners:
        position = index * ((source - 1) / max(target - 1, 1))
    else:
        position = np.clip((index + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(np.floor(position).astype(int), source - 1)
    fraction = position - low
    matrix = np.zeros((target, source))
    matrix[index, low] = 1 - fraction
    matrix[index, np.minimum(low + 1, source - 1)] += fraction
    return matrix


def bicubic_matrix(source: int, target: int, *, offset: float = 0.0) -> Float[np.ndarray, "target source"]:
    """The same by cubic convolution (a = -0.75), as torch's "bicubic": borders of pixels coincide, not antialiased.

    Args:
        source: values along the axis.
        target: values that come of them.
        offset: added to `target` where the scale is computed: the vision transformers of DINO were trained with 0.1.
    """
    position = (np.arange(target) + 0.5) * source / (target + offset) - 0.5
    low, matrix = np.floor(position).astype(int), np.zeros((target, source))
    for tap in range(-1, 3):
        x = np.abs(position - low - tap)
        near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3
        np.add.at(matrix, (np.arange(target), np.clip(low + tap, 0, source - 1)), np.where(x <= 1, near, far))
    return matrix


def area_matrix(source: int, target: int) -> Float[np.ndarray, "target source"]:
    """The same by the mean of what each of fewer pixels covers."""
    edges = np.linspace(0, source, target + 1)
    pixels = np.arange(source)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) * (target / source)


def gaussian_matrix(size: int, sigma: float) -> Float[np.ndarray, "n n"]:
    """Convolution of an axis with a Gaussian, cut off at the border, where what is left counts more; float64."""
    if not sigma:
        return np.eye(size)
    index = np.arange(size)
    weights = np.exp(-np.square((index[:, None] - index) / sigma) / 2)
    return weights / weights.sum(1, keepdims=True)


def binomial_matrix(size: int) -> Float[np.ndarray, "n n"]:
    """Convolution of an axis with the binomial of five, the border pixel repeated beyond the border; float64."""
    matrix, index = np.zeros((size, size)), np.arange(size)
    for offset, weight in zip(range(-2, 3), _BINOMIAL, strict=True):
        np.add.at(matrix, (index, np.clip(index + offset, 0, size - 1)), weight)
    return matrix


@functools.cache
def halving_matrices(size: int, rounds: int) -> Float[np.ndarray, "levels n n"]:
    """For 0, 1, ... `rounds` the matrix that blurs and halves an axis as often, then resamples it back to `size`."""
    matrices, down = [np.eye(size)], np.eye(size)
    for _ in range(rounds):
        n = len(down)
        down = bilinear_matrix(n, -(-n // 2)) @ binomial_matrix(n) @ down
        matrices.append(bilinear_matrix(len(down), size) @ down)
    return np.stack(matrices).astype(np.float32)
