"""Distances of clips from the right answer, of their motion from the true one, of their shape from the true depth.

Pure functions of batches of clips in [0, 1], one number a clip.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.training.losses import scale_shift_invariant_loss

Clips = Float[Array, "b t h w 3"]

_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def psnr(clips: Clips, answers: Clips) -> Float[Array, " b"]:
    """Peak signal-to-noise ratio in dB, of the mean squared error over the whole clip; 100 at most."""
    return -10 * jnp.log10(jnp.maximum(_mean(jnp.square(clips - answers)), 1e-10))


def ssim(clips: Clips, answers: Clips) -> Float[Array, " b"]:
    """Structural similarity with the Gaussian window of 11 pixels, mean over frames, colours and positions.

    Source: Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861; only windows inside the picture count.
    """
    x, y = clips.astype(jnp.float32), answers.astype(jnp.float32)
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x**2 + mean_y**2 + _K1**2)
    return _mean(luminance * (2 * covariance + _K2**2) / (var_x + var_y + _K2**2))


def _smooth(x: Clips) -> Float[Array, "b t i j 3"]:
    offsets = np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
    window = jnp.asarray(window / window.sum(), jnp.float32)
    slide = lambda row: jnp.convolve(row, window, mode="valid", precision="highest")
    along = lambda array, axis: jnp.apply_along_axis(slide, axis, array)
    return along(along(x, 2), 3)


def warp_error(clips: Clips, flow: Float[Array, "b t h w 2"], ids: Int[Array, "b t h w"]) -> Float[Array, " b"]:
    """How much colours change along the true motion: mean absolute difference of a pixel and where it goes to.

    Only pixels that go to the same surface inside the next frame count. https://arxiv.org/abs/1808.00449, section 4.

    Args:
        clips: of at least two frames.
        flow: pixels right and down, to the next frame.
        ids: which surface is seen.
    """
    here, flow = clips[:, :-1], flow[:, :-1]
    there, inside = warp(clips[:, 1:], flow)
    surface, _ = warp(ids[:, 1:, ..., None].astype(jnp.float32), flow, order=0)
    seen = inside & (surface[..., 0] == ids[:, :-1])
    return _sum(jnp.abs(here - there).mean(-1) * seen) / jnp.maximum(_sum(seen), 1)


def warp(
    clips: Float[Array, "b t h w c"], flow: Float[Array, "b t h w 2"], *, order: int = 1
) -> tuple[Float[Array, "b t h w c"], Array]:
    """Clips seen at (x, y) + flow, and where that lies inside; beyond the border, the border.

    Args:
        clips: what is looked at.
        flow: pixels right and down.
        order: 1 bilinear, 0 nearest.
    """
    height, width = clips.shape[2:4]
    x, y = jnp.arange(width) + flow[..., 0], jnp.arange(height)[:, None] + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)

    def look(picture: Float[Array, "h w c"], x: Float[Array, "h w"], y: Float[Array, "h w"]) -> Float[Array, "h w c"]:
        channel = lambda c: jax.scipy.ndimage.map_coordinates(c, [y, x], order=order, mode="nearest")
        return jax.vmap(channel, in_axes=-1, out_axes=-1)(picture)

    return jax.vmap(jax.vmap(look))(clips, x, y), inside


def structure_error(estimate: Float[Array, "b t h w"], truth: Float[Array, "b t h w"]) -> Float[Array, " b"]:
    """Scale-and-shift-invariant error of inverse depth over a clip, in mean absolute deviations of the true one.

    https://arxiv.org/abs/1907.01341, equations 3 to 6, one scale and shift a clip.
    """
    tall = lambda x: x.reshape(x.shape[0], -1, x.shape[-1])
    return 2 * scale_shift_invariant_loss(tall(estimate), tall(truth), trim=0.0, gradient_weight=0.0, scales=1)


def _mean(x: Float[Array, " b *dims"]) -> Float[Array, " b"]:
    return x.mean(range(1, x.ndim))


def _sum(x: Array) -> Float[Array, " b"]:
    return x.sum(range(1, x.ndim), dtype=jnp.float32)
