"""Errors of inverse depth that is known up to a scale and a shift, as a network sees it in one picture.

`gen1_jax.training.losses` builds MiDaS's loss from the same alignment.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gen1_jax.measures.motion import warp

_TINY = 1e-8
_MIN_CORRELATION = 0.1


def structure_error(estimate: Float[Array, "b t h w"], truth: Float[Array, "b t h w"]) -> Float[Array, " b"]:
    """Mean absolute error of inverse depth over a clip, in mean absolute deviations of the true one. Lower is better.

    From 0; about 1 for an estimate that knows nothing. One scale and one shift a clip are free, so that depth that
    flickers has an error even where each frame is right by itself. 0 where the truth is constant.

    Source: https://arxiv.org/abs/1907.01341, equations 3 to 7 without trimming.

    Args:
        estimate: inverse depth up to scale and shift, of the edit, say.
        truth: inverse depth.
    """
    return jnp.abs(_residual(estimate, truth)).mean((1, 2, 3))


def _residual(estimate: Float[Array, "b t h w"], truth: Float[Array, "b t h w"]) -> Float[Array, "b t h w"]:
    """Errors, in mean absolute deviations of the truth, with the scale and shift of each clip that make them least."""
    tall = lambda x: x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
    target = standardise_inverse_depth(tall(truth))
    return (align_inverse_depth(tall(estimate), target) - target).reshape(truth.shape)


def depth_change_error(
    estimate: Float[Array, "b t h w"],
    truth: Float[Array, "b t h w"],
    flow: Float[Array, "b t h w 2"],
    ids: Int[Array, "b t h w"],
) -> Float[Array, " b"]:
    """How much the error of a surface's inverse depth changes from one frame to the next, along the true motion.

    Lower is better, from 0; in mean absolute deviations of the truth, one scale and one shift a clip, as
    `structure_error`, of which this is the part that flickers. Pixels count as in `warp_error`.

    The idea of TAE (https://arxiv.org/abs/2501.12375, section 4.1), with exact motion of everything in place of camera
    poses, and errors in place of depth, so that what really moves to or from the camera has none.

    Args:
        estimate: inverse depth up to scale and shift, of at least two frames.
        truth: inverse depth.
        flow: pixels right and down, from each frame to the next; that of the last frame is not used.
        ids: which surface is seen.
    """
    residual = _residual(estimate, truth)[..., None]
    there, inside = warp(residual[:, 1:], flow[:, :-1])
    surface, _ = warp(ids[:, 1:, ..., None].astype(jnp.float32), flow[:, :-1], order=0)
    seen = inside & (surface[..., 0] == ids[:, :-1])
    change = jnp.abs(there - residual[:, :-1])[..., 0] * seen
    return change.sum((1, 2, 3)) / jnp.maximum(seen.sum((1, 2, 3)), 1)


def depth_errors(
    prediction: Float[Array, "b h w"], target: Float[Array, "b h w"], *, depth_range: float
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """(AbsRel, delta < 1.25) of each picture, of depth and not of its inverse.

    Inverse depth is aligned, then both sides are inverted. AbsRel is the mean of |z - z*| / z*: from 0, lower is
    better. The other is the share of pixels where max(z / z*, z* / z) < 1.25: 0 to 1, higher is better.

    Source: https://arxiv.org/abs/1406.2283 (Eigen et al. 2014), after alignment as in https://arxiv.org/abs/1907.01341.

    Args:
        prediction: inverse depth up to scale and shift.
        target: inverse depth up to scale only, or the numbers mean little; NaN where it is nowhere positive.
        depth_range: on both sides, what is farther than this many times the nearest target is taken to be there.
    """
    nearest = target.max((1, 2), keepdims=True)
    least = nearest / depth_range
    aligned = align_inverse_depth(prediction.astype(jnp.float32), target)
    ratio = jnp.maximum(target, least) / jnp.maximum(aligned, least)  # z / z*
    ratio = jnp.where(nearest > 0, ratio, jnp.nan)
    close = jnp.maximum(ratio, 1 / ratio) < 1.25
    return jnp.abs(ratio - 1).mean((1, 2)), jnp.where(jnp.isnan(ratio), jnp.nan, close).mean((1, 2))


def align_inverse_depth(prediction: Float[Array, "b h w"], target: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """The prediction with the scale and shift of each picture that bring it nearest to the target (least squares).

    https://arxiv.org/abs/1907.01341, equations 3 and 4, with one change: least squares would also turn a prediction
    upside down, and a network could settle there. A correlation below 0.1 counts as 0.1 here, so that the scale is
    positive and the gradient leads the right way up.
    """
    centre = target.mean((1, 2), keepdims=True)
    x, y = prediction - prediction.mean((1, 2), keepdims=True), target - centre
    variance = jnp.square(x).mean((1, 2), keepdims=True) + _TINY
    # not the root of a ratio: for a constant target its gradient would be 0 / 0
    least = _MIN_CORRELATION * jnp.sqrt(jnp.square(y).mean((1, 2), keepdims=True)) / jnp.sqrt(variance)
    scale = jnp.maximum((x * y).mean((1, 2), keepdims=True) / variance, least)
    return scale * x + centre


def standardise_inverse_depth(target: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """Median 0 and mean absolute deviation 1 in each picture; zeros where it is constant to rounding.

    Source: https://arxiv.org/abs/1907.01341, equations 5 and 6.
    """
    x = target - jnp.median(target, axis=(1, 2), keepdims=True)
    deviation = jnp.abs(x).mean((1, 2), keepdims=True)
    varies = deviation > 1e-6 * jnp.abs(target).max((1, 2), keepdims=True)
    return jnp.where(varies, x / jnp.where(varies, deviation, 1), 0)
