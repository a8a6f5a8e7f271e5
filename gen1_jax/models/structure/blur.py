"""t_s rounds of blur and halving, which take detail from the maps of a structure (arXiv 2302.03011, section 3.2).

Where the paper is silent: the blur is binomial with sigma 1, a round halves the size, and the way back up is bilinear.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, UInt8

from gen1_jax.models.resampling import halving_matrices

MAX_STRUCTURE_LEVEL = 7
"""Largest t_s; the paper draws it from 0 to 7."""


def blur(maps: Float[Array, "b t H W k"], level: Int[Array, " b"]) -> Float[Array, "b t H W k"]:
    """t_s rounds of blur and halving, then bilinear back to the size.

    Every round is linear and separable, so that all of them are one matrix along each axis, picked by t_s.

    Args:
        maps: of each clip.
        level: t_s of each clip, 0 to `MAX_STRUCTURE_LEVEL`; it may be traced.

    Returns:
        float32.
    """
    rows, columns = (jnp.asarray(halving_matrices(n, MAX_STRUCTURE_LEVEL))[level] for n in maps.shape[2:4])
    planes = rearrange(maps, "b t h w k -> b (t k) h w").astype(jnp.float32)
    blurred = jnp.einsum("bih,bnhw,bjw->bnij", rows, planes, columns, precision="highest")
    return rearrange(blurred, "b (t k) h w -> b t h w k", k=maps.shape[-1])


def blur_frames(
    frames: UInt8[Array, "n H W 3"] | UInt8[np.ndarray, "n H W 3"], level: int | Int[Array, ""]
) -> UInt8[Array, "n H W 3"]:
    """`blur` of pixels: how t_s takes detail from kinds that are estimated from blurred frames.

    Args:
        frames: of one clip, or a piece of it.
        level: t_s.
    """
    return _blur_pixels(frames, jnp.asarray(level, jnp.int32))


@functools.partial(jax.jit, inline=True)
def _blur_pixels(frames: Array, level: Array) -> Array:
    return jnp.rint(jnp.clip(blur(frames.astype(jnp.float32)[None], level[None])[0], 0, 255)).astype(jnp.uint8)
