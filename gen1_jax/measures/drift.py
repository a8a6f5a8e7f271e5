"""How a long edit changes from its beginning to its end, where it should not: over time, and from window to window."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from gen1_jax.measures.motion import warp_error

_LEAST_PIXELS = 16  # of an object in a frame, for its mean colour to mean something


def slope(values: Float[np.ndarray, " t"]) -> float:
    """Change over a hundred frames, by least squares; frames of NaN are left out, NaN of fewer than two."""
    times = np.arange(len(values))
    known = np.isfinite(values)
    if known.sum() < 2:
        return float("nan")
    return float(100 * np.polyfit(times[known], values[known], 1)[0])


def colour_slopes(
    clip: Float[np.ndarray, "t h w 3"], answer: Float[np.ndarray, "t h w 3"], ids: Int[np.ndarray, "t h w"]
) -> Float[np.ndarray, "n 3"]:
    """Of each surface that is seen in at least half of the frames: `slope` of how far its mean colour is off.

    Light and shade change in the answer, too, so that only the difference from it is drift.

    Args:
        clip: RGB in [0, 1].
        answer: what it should be.
        ids: which surface is seen.
    """
    slopes = []
    for surface in np.unique(ids):
        seen = ids == surface
        pixels = seen.sum((1, 2))
        if (pixels >= _LEAST_PIXELS).mean() < 0.5:
            continue
        off = ((clip - answer) * seen[..., None]).sum((1, 2)) / np.maximum(pixels, 1)[:, None]
        off[pixels < _LEAST_PIXELS] = np.nan
        slopes.append([slope(channel) for channel in off.T])
    return np.array(slopes, np.float64).reshape(-1, 3)


def seam_ratio(
    clip: Float[np.ndarray, "t h w 3"],
    flow: Float[np.ndarray, "t h w 2"],
    ids: Int[np.ndarray, "t h w"],
    borders: Int[np.ndarray, " n"],
) -> float:
    """`warp_error` from the frame before a border to it, over that of all other pairs of frames; 1 is no seam.

    Args:
        clip: RGB in [0, 1].
        flow: pixels, to the next frame.
        ids: which surface is seen.
        borders: frames with which a window begins, or which come after the end of one.
    """
    pairs = lambda x: jnp.stack([x[:-1], x[1:]], axis=1)
    errors = np.asarray(warp_error(pairs(clip), pairs(flow), pairs(ids)))
    at_border = np.isin(np.arange(1, len(clip)), borders)
    return float(errors[at_border].mean() / max(errors[~at_border].mean(), 1e-12))
