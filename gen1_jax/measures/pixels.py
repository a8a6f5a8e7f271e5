"""Distances of clips in pixels from the clips that they should be, one number a clip."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ClipsInUnitRange = Float[Array, "b t h w 3"]
"""RGB in [0, 1]."""

_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def psnr(clips: ClipsInUnitRange, answers: ClipsInUnitRange) -> Float[Array, " b"]:
    """Peak signal-to-noise ratio: -10 log10 of the mean squared error over the whole clip. Higher is better.

    Returns:
        dB; 0 for black against white, 100 at most, which is what equal clips get.
    """
    return -10 * jnp.log10(jnp.maximum(_mean(jnp.square(clips - answers)), 1e-10))


def ssim(clips: ClipsInUnitRange, answers: ClipsInUnitRange) -> Float[Array, " b"]:
    """Structural similarity with the Gaussian window of 11 pixels, mean over frames, colours and positions.

    Higher is better, from -1 to 1, which is what equal clips get. Only windows inside the picture count, so that
    height and width must be at least 11.

    Source: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861.
    """
    x, y = clips.astype(jnp.float32), answers.astype(jnp.float32)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    return _mean(luminance * (2 * covariance + _K2**2) / (var_x + var_y + _K2**2))


def _smooth(x: ClipsInUnitRange) -> Float[Array, "b t i j 3"]:
    offsets = np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window = jnp.asarray(window / window.sum(), jnp.float32)
    slide = lambda row: jnp.convolve(row, window, mode="valid", precision="highest")
    along = lambda array, axis: jnp.apply_along_axis(slide, axis, array)
    return along(along(x, 2), 3)


def _mean(x: Float[Array, " b *dims"]) -> Float[Array, " b"]:
    return x.mean(range(1, x.ndim))
