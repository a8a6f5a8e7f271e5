"""What linear probes read in a representation: how much of something it tells that it should, or should not.

Ridge regression in closed form, each example predicted from those of other groups; NumPy alone.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

FOLDS = 5
"""Into how many parts groups are divided; each is predicted from the others."""

_STRENGTHS = 10.0 ** np.arange(-3, 5)  # of the ridge, in means of the squares of features; the best is taken


def probe_labels(
    features: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Whether the label that ridge regression finds is the right one, and whether the most frequent one is.

    Args:
        features: of each example.
        labels: of each, of few kinds.
        groups: examples of one are predicted together, lest one tells of the other; at least two groups.

    Returns:
        1 or 0 for each example; the mean of the second is what a representation reaches that tells nothing.
    """
    kinds, labels = np.unique(labels, return_inverse=True)
    one_hot = np.eye(len(kinds))[labels]
    found = ridge_predictions(features, one_hot, groups).argmax(-1)
    usual = np.empty(len(labels), int)
    for part in _folds(groups):
        usual[part] = one_hot[~part].sum(0).argmax()
    return (found == labels).astype(np.float64), (usual == labels).astype(np.float64)


def probe_values(
    features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, "n k"], groups: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """How much of what varies ridge regression explains: the mean over examples is R², at most 1, 0 for nothing.

    Args:
        features: of each example.
        targets: numbers to predict, of each.
        groups: see `probe_labels`.
    """
    error = np.square(ridge_predictions(features, targets, groups) - targets).sum(-1)
    spread = np.square(targets - targets.mean(0)).sum(-1).mean()
    return 1 - error / spread if spread > 0 else np.full(len(error), np.nan)


def ridge_predictions(
    features: Float[np.ndarray, "n d"], targets: Float[np.ndarray, "n k"], groups: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n k"]:
    """Of each example what ridge regression says that was fitted to the folds of groups without it.

    Features are standardised; the strength of each fold is that of the least error of leaving one out, which has a
    closed form (Golub, Heath and Wahba 1979, https://doi.org/10.1080/00401706.1979.10489751).
    """
    features, targets = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    predicted = np.empty(targets.shape)
    for part in _folds(groups):
        seen, known = features[~part], targets[~part]
        mean, spread, level = seen.mean(0), seen.std(0), known.mean(0)
        spread = np.where(spread > 1e-6 * spread.max(), spread, np.inf)  # what does not vary tells nothing
        seen = (seen - mean) / spread
        squares, u = np.linalg.eigh(seen @ seen.T)
        squares, inside = np.maximum(squares, 0), u.T @ (known - level)
        ridges = _STRENGTHS * max(squares.mean(), np.finfo(float).tiny)
        ridge = min(ridges, key=lambda ridge: _left_out(u, squares / (squares + ridge), inside, known - level))
        weights = seen.T @ (u @ (inside / (squares + ridge)[:, None]))
        predicted[part] = (features[part] - mean) / spread @ weights + level
    return predicted


def _left_out(u: np.ndarray, kept: np.ndarray, inside: np.ndarray, targets: np.ndarray) -> float:
    """The mean squared error of predicting each example from the others, of which this is kept of each direction."""
    leverage = np.square(u) @ kept + 1 / len(u)
    return float(np.square((targets - u @ (kept[:, None] * inside)) / (1 - leverage)[:, None]).mean())


def _folds(groups: Int[np.ndarray, " n"]) -> Iterator[Bool[np.ndarray, " n"]]:
    """Which examples each part has."""
    names, number = np.unique(groups, return_inverse=True)
    for fold in range(min(FOLDS, len(names))):
        yield number % min(FOLDS, len(names)) == fold
