"""How well clips move as they should, where the true motion is known."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def warp_error(
    clips: Float[Array, "b t h w 3"], flow: Float[Array, "b t h w 2"], ids: Int[Array, "b t h w"]
) -> Float[Array, " b"]:
    """How much colours change along the true motion: mean absolute difference of a pixel and where it goes to.

    Lower is better, from 0 to 1. What flickers or stands still under moving things has much of it; so has a clip whose
    light or materials really change, so it is read against the exact answer's own. Only pixels that go to the same
    surface inside the next frame count; 0 if none does.

    Source: https://arxiv.org/abs/1808.00449, section 4, with exact flow and visibility in place of estimates.

    Args:
        clips: RGB in [0, 1], at least two frames.
        flow: pixels right and down, from each frame to the next; that of the last frame is not used.
        ids: which surface is seen.
    """
    flow = flow[:, :-1]
    there, inside = warp(clips[:, 1:], flow)
    surface, _ = warp(ids[:, 1:, ..., None].astype(jnp.float32), flow, order=0)
    return _change(clips[:, :-1], there, inside & (surface[..., 0] == ids[:, :-1]))


def colour_change(
    clips: Float[Array, "b t h w 3"], flow: Float[Array, "b s h w 2"], seen: Bool[Array, "b s h w"]
) -> Float[Array, " b"]:
    """Mean absolute difference of a pixel and where it goes to in the next frame, of those that are seen there.

    Args:
        clips: RGB in [0, 1], T frames.
        flow: pixels right and down, of the first T - 1.
        seen: likewise; 0 is returned if there are none.
    """
    there, _ = warp(clips[:, 1:], flow)
    return _change(clips[:, :-1], there, seen)


def warp(
    clips: Float[Array, "b t h w c"], flow: Float[Array, "b t h w 2"], *, order: int = 1
) -> tuple[Float[Array, "b t h w c"], Bool[Array, "b t h w"]]:
    """Clips seen at (x, y) + flow, and where that lies inside the picture; beyond the border, the border.

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


def _change(
    here: Float[Array, "b s h w 3"], there: Float[Array, "b s h w 3"], seen: Bool[Array, "b s h w"]
) -> Float[Array, " b"]:
    return _sum(jnp.abs(here - there).mean(-1) * seen) / jnp.maximum(_sum(seen), 1)


def _sum(x: Array) -> Float[Array, " b"]:
    return x.sum(range(1, x.ndim), dtype=jnp.float32)
