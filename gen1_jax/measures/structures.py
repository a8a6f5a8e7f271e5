"""Errors of other structures than depth: edges, normals, motion, regions, joints. One number a clip."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def edge_f1(edges: Float[Array, "b t h w"], truth: Float[Array, "b t h w"], tolerance: int = 1) -> Float[Array, " b"]:
    """Harmonic mean of how many found edges are true and how many true ones were found. Higher is better, 0 to 1.

    An edge counts as found where there is one at most `tolerance` pixels away. 1 where neither has any.

    Source: Martin, Fowlkes and Malik 2004, https://doi.org/10.1109/TPAMI.2004.1273918, with neighbourhoods in place of
    an assignment.

    Args:
        edges: 1 on edges, 0 elsewhere.
        truth: likewise.
        tolerance: in pixels, along each axis.
    """
    edges, truth = edges > 0.5, truth > 0.5
    precision = _share(_grown(truth, tolerance), edges)
    recall = _share(_grown(edges, tolerance), truth)
    return jnp.where(precision + recall > 0, 2 * precision * recall / jnp.maximum(precision + recall, 1e-9), 0)


def angular_error(normals: Float[Array, "b t h w 3"], truth: Float[Array, "b t h w 3"]) -> Float[Array, " b"]:
    """Mean angle between normals, in degrees. Lower is better, 0 to 180.

    Args:
        normals: of any length above 0.
        truth: likewise.
    """
    lengths = jnp.linalg.norm(normals, axis=-1) * jnp.linalg.norm(truth, axis=-1)
    cosine = (normals * truth).sum(-1) / jnp.maximum(lengths, 1e-9)
    return jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1))).mean((1, 2, 3))


def endpoint_error(flow: Float[Array, "b t h w 2"], truth: Float[Array, "b t h w 2"]) -> Float[Array, " b"]:
    """Mean distance between where two motions take a pixel, in pixels (EPE). Lower is better, from 0.

    The motion of the last frame, which no other frame shows, does not count where there are more.
    """
    flow, truth = (x[:, : max(1, x.shape[1] - 1)] for x in (flow, truth))
    return jnp.linalg.norm(flow - truth, axis=-1).mean((1, 2, 3))


def region_consistency(
    labels: Int[np.ndarray, "b t h w"], truth: Int[np.ndarray, "b t h w"]
) -> Float[np.ndarray, " b"]:
    """The share of pixels that are right when each region is taken for the true one that it overlaps most: achievable
    segmentation accuracy. Higher is better, 0 to 1.

    A region is one over the whole clip: one that jumps from thing to thing is wrong in part.

    Source: Liu et al. 2011, "Entropy Rate Superpixel Segmentation".

    Args:
        labels: from 0.
        truth: from 0.
    """
    found = []
    for ours, theirs in zip(labels, truth, strict=True):
        rows, columns = int(ours.max()) + 1, int(theirs.max()) + 1
        overlap = np.bincount((ours.astype(np.int64) * columns + theirs).ravel(), minlength=rows * columns)
        found.append(overlap.reshape(rows, columns).max(1).sum() / ours.size)
    return np.array(found)


def keypoint_distance(joints: Float[Array, "b t n 3"], truth: Float[Array, "b t n 3"], size: int) -> Float[Array, " b"]:
    """Mean distance of joints that are seen in both, as a share of the shorter side. Lower is better; NaN without any.

    Args:
        joints: x and y in pixels, and whether each is seen (above 0.5).
        truth: likewise.
        size: shorter side of the pictures, in pixels.
    """
    seen = (joints[..., 2] > 0.5) & (truth[..., 2] > 0.5)
    distance = jnp.linalg.norm(joints[..., :2] - truth[..., :2], axis=-1) / size
    return (distance * seen).sum((1, 2)) / jnp.where(seen.sum((1, 2)) > 0, seen.sum((1, 2)), jnp.nan)


def _share(there: Array, of: Array) -> Float[Array, " b"]:
    """How much of what is set in `of` is set in `there`; 1 of nothing."""
    count = of.sum((1, 2, 3))
    return jnp.where(count > 0, (there & of).sum((1, 2, 3)) / jnp.maximum(count, 1), 1)


def _grown(edges: Array, tolerance: int) -> Array:
    """Set within so many pixels of what is set."""
    width = 2 * tolerance + 1
    window = (1, 1, width, width)
    grown = jax.lax.reduce_window(edges.astype(jnp.float32), -jnp.inf, jax.lax.max, window, (1, 1, 1, 1), "SAME")
    return grown > 0.5
