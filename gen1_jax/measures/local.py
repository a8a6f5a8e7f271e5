"""How good edits of a part of a clip are, where the right answer and the part are known exactly."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gen1_jax.measures.pixels import ClipsInUnitRange


def masked_psnr(
    clips: ClipsInUnitRange, answers: ClipsInUnitRange, where: Bool[Array, "b t h w"]
) -> Float[Array, " b"]:
    """`psnr` over some of the pixels. Higher is better.

    Returns:
        dB, 100 at most; NaN where there are no pixels.
    """
    error = _mean(jnp.square(clips - answers).mean(-1), where)
    return -10 * jnp.log10(jnp.maximum(error, 1e-10))


def seam_error(
    clips: ClipsInUnitRange, answers: ClipsInUnitRange, mask: Bool[Array, "b t h w"], width: int = 3
) -> Float[Array, " b"]:
    """How much more, or less, of a border is seen around a mask than there should be. Lower is better.

    |g / g* - 1|, g the mean absolute difference of neighbouring pixels in a ring of `width` pixels that lies over the
    mask's border, half within and half without, g* the answer's own. 0 for the answer, from 0; NaN without a ring.

    Args:
        clips: in [0, 1].
        answers: what they should be.
        mask: whose border it is.
        width: of the ring, pixels, odd.
    """
    ring = border(mask, width)
    ours, own = (_mean(_steepness(x), ring) for x in (clips, answers))
    return jnp.abs(ours / own - 1)


def border(mask: Bool[Array, "b t h w"], width: int) -> Bool[Array, "b t h w"]:
    """A ring of `width` pixels over the border of a mask; the border of the picture is none."""
    grown, shrunk = grown_mask(mask, width // 2 + 1), ~grown_mask(~mask, width // 2)
    return grown & ~shrunk


def grown_mask(mask: Bool[Array, "b t h w"], steps: int) -> Bool[Array, "b t h w"]:
    """A mask with all that is at most so many pixels, right or down and left or up, from it."""
    for _ in range(steps):
        for axis in (2, 3):
            first, last = (jnp.take(mask, jnp.array([i]), axis) for i in (0, -1))
            before = jnp.concatenate([first, jnp.delete(mask, -1, axis)], axis)
            after = jnp.concatenate([jnp.delete(mask, 0, axis), last], axis)
            mask = mask | before | after
    return mask


def _steepness(clips: ClipsInUnitRange) -> Float[Array, "b t h w"]:
    down = jnp.abs(jnp.diff(clips, axis=2, append=clips[:, :, -1:])).mean(-1)
    right = jnp.abs(jnp.diff(clips, axis=3, append=clips[:, :, :, -1:])).mean(-1)
    return down + right


def _mean(values: Float[Array, "b t h w"], where: Bool[Array, "b t h w"]) -> Float[Array, " b"]:
    count = where.sum((1, 2, 3))
    return jnp.where(count > 0, (values * where).sum((1, 2, 3)) / jnp.maximum(count, 1), jnp.nan)
