"""Measures of edits of real footage, whose right answer and true motion nobody knows: beside the source they edit.

Motion is estimated by whoever calls these; whatever is estimated wrong is wrong in the source's own figure, too, so
that each is read beside that of the source. No single one says that an edit is good: a clip that stands still, or one
that is blurred, has a high `frame_consistency` and a low warping error, and shows itself in `motion_fidelity` and
`sharpness`; the source itself keeps everything and follows no prompt.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gen1_jax.measures.drift import slope
from gen1_jax.measures.embeddings import unit_vectors
from gen1_jax.measures.local import grown_mask
from gen1_jax.measures.motion import colour_change, warp

_SHARE, _SLACK = 0.01, 0.5  # of squared lengths, and squared pixels, by which ways there and back may differ
_STILL = 1e-3  # pixels, root mean square, below which nothing moves


def visible(flow: Float[Array, "b t h w 2"], back: Float[Array, "b t h w 2"]) -> Bool[Array, "b t h w"]:
    """What of each frame is seen in the next, too: where the way there and the way back from there cancel out.

    Source: Sundaram, Brox and Keutzer 2010, https://doi.org/10.1007/978-3-642-15549-9_32, equation 5.

    Args:
        flow: pixels right and down, to where it is in the next frame.
        back: of the next frame, to where it was in this one.
    """
    returned, inside = warp(back, flow)
    lengths = jnp.square(flow).sum(-1) + jnp.square(returned).sum(-1)
    return inside & (jnp.square(flow + returned).sum(-1) < _SHARE * lengths + _SLACK)


def warping_error(
    clips: Float[Array, "b t h w 3"], flow: Float[Array, "b t h w 2"], back: Float[Array, "b t h w 2"]
) -> Float[Array, " b"]:
    """How much colours change along the estimated motion of the source, where the source shows the same in both.

    Mean absolute difference: lower is better, 0 to 1, 0 if nothing is seen twice. A clip that is blurred or has little
    contrast has little of it, so it is read beside `sharpness` and the source's own.

    Source: https://arxiv.org/abs/1808.00449, section 4, with absolute differences; `warp_error` is that of true motion.

    Args:
        clips: RGB in [0, 1], at least two frames.
        flow: of the source, from each frame to the next, pixels; that of the last frame is not used.
        back: of the source, from each frame's next back to it; likewise.
    """
    flow, back = flow[:, :-1], back[:, :-1]
    return colour_change(clips, flow, visible(flow, back))


def motion_fidelity(flow: Float[np.ndarray, "t h w 2"], source: Float[np.ndarray, "t h w 2"]) -> float:
    """Agreement of the estimated motion of an edit and of its source: 2 <f, g> / (<f, f> + <g, g>) over all pixels.

    Higher is better, -1 to 1: 1 for the same motion, 0 for an edit that stands still or moves anyhow, -1 for the
    opposite; NaN where neither moves. The larger motion counts more, so that of a moving camera counts most.

    Source: the coefficient of Dice, of vectors; that motion is to be compared with that of the source is the idea of
    https://arxiv.org/abs/2311.17009, section 5, by tracks.

    Args:
        flow: of the edit, pixels right and down to the next frame.
        source: of the source.
    """
    flow, source = flow.astype(np.float64), source.astype(np.float64)
    lengths = np.square(flow).sum() + np.square(source).sum()
    if lengths < 2 * _STILL**2 * flow[..., 0].size:
        return float("nan")
    return float(2 * (flow * source).sum() / lengths)


def sharpness(clips: Float[Array, "b t h w 3"]) -> Float[Array, "b t"]:
    """Standard deviation of the Laplacian of each frame's luminance. Higher is sharper, from 0.

    Noise counts as detail: more than the source's own is not better. It depends on the size of pictures, so that those
    that are compared must have one.

    Source: Pech-Pacheco et al. 2000, https://doi.org/10.1109/ICPR.2000.903548 (its square).
    """
    grey = clips @ jnp.array([0.2126, 0.7152, 0.0722], jnp.float32)
    middle = grey[..., 1:-1, 1:-1]
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (4 * middle - around).std((-2, -1))


def outside_error(
    clips: Float[Array, "b t h w 3"], sources: Float[Array, "b t h w 3"], mask: Bool[Array, "b t h w"], margin: int = 4
) -> Float[Array, " b"]:
    """Mean absolute difference from the source where nothing was to change. Lower is better, 0 to 1.

    Args:
        clips: RGB in [0, 1].
        sources: what was edited.
        mask: what was to change.
        margin: pixels around the mask that do not count, for its border is blurred by codecs and by resizing.

    Returns:
        NaN where nothing is outside.
    """
    outside = ~grown_mask(mask, margin)
    count = outside.sum((1, 2, 3))
    change = (jnp.abs(clips - sources).mean(-1) * outside).sum((1, 2, 3))
    return jnp.where(count > 0, change / jnp.maximum(count, 1), jnp.nan)


def colour_drift(colours: Float[np.ndarray, "t 3"], source: Float[np.ndarray, "t 3"]) -> float:
    """How far the mean colour moves away from the source's over a hundred frames. Lower is better, from 0.

    The length of the three `slope`s of the difference, so that a constant change of colour, which an edit may well
    be, is none; NaN of a single frame.

    Args:
        colours: mean RGB of each frame of the edit, in [0, 1].
        source: of the source.
    """
    return float(np.linalg.norm([slope(channel) for channel in (colours - source).T]))


def prompt_drift(embeddings: Float[np.ndarray, "t d"], prompt: Float[np.ndarray, " d"]) -> float:
    """`slope` of the cosine of frames and prompt: by how much the content is lost (below 0) over a hundred frames.

    Higher is better, 0 is no drift; NaN of a single frame.
    """
    return slope(unit_vectors(embeddings) @ unit_vectors(prompt))
