"""Fréchet distance of two sets of features, which with I3D's of clips is FVD."""

import numpy as np
from jaxtyping import Float


def frechet_distance(ours: Float[np.ndarray, "n d"], theirs: Float[np.ndarray, "m d"]) -> float:
    """|m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^1/2), of normal distributions with the means and covariances of two sets.

    Lower is nearer, from 0. The covariances of few examples are far off, and the distance with them: of n of the same
    distribution it is well above 0 and falls with n, so that only distances of the same n may be compared. In float64;
    the trace of the root is that of the symmetric matrix S1^1/2 S2 S1^1/2, whose eigenvalues are the same.

    Source: https://arxiv.org/abs/1706.08500 (FID); https://arxiv.org/abs/1812.01717 (FVD: I3D's logits of clips).

    Returns:
        NaN of fewer than two examples on either side.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if min(len(ours), len(theirs)) < 2:
        return float("nan")
    gap = np.square(ours.mean(0) - theirs.mean(0)).sum()
    mine, other = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (ours, theirs))
    values, vectors = np.linalg.eigh(mine)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    between = np.linalg.eigvalsh(root @ other @ root)
    return float(gap + np.trace(mine) + np.trace(other) - 2 * np.sqrt(np.maximum(between, 0)).sum())
