"""Propagation along motion: at some steps frames of the estimate of x_0 become more like those that they move into.

frames ──OpenCV──► flow both ways ──► at the size of latents ─┐
x_0 of all frames ──last to first, first to last──────────────┴─► half of what the neighbour has there

It reaches beyond windows, whose frames see each other only where they overlap. Source: https://arxiv.org/abs/2312.06640,
section 3.3 (Upscale-A-Video, latent propagation).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from jaxtyping import Array, Bool, Float, Float32, Int32

from gen1_jax.diffusion.wrappers import ActOnX0
from gen1_jax.editing.structures import Frames
from gen1_jax.measures import warp
from gen1_jax.models.structure.flow import estimated_flow

_RELATIVE, _ABSOLUTE = 0.001, 0.05  # of squared flow, and in squared latent pixels: how far both ways may disagree

Flow = Float[Array, "b s h w 2"]
"""Of the s = T - 1 pairs of neighbouring frames, latent pixels right and down."""


class Motion(NamedTuple):
    """How a clip moves, and when that counts; a pytree.

    Attributes:
        ahead: from each frame to the next.
        back: from each frame but the first to the one before.
        timesteps: at which x_0 is propagated.
    """

    ahead: Flow
    back: Flow
    timesteps: Int32[Array, " n"] | Int32[np.ndarray, " n"]


def estimated_motion(frames: Frames, downscale: int) -> tuple[Float32[np.ndarray, "1 s i j 2"], ...]:
    """`Motion.ahead` and `Motion.back` of the frames of one clip.

    Args:
        frames: of the model's size.
        downscale: of the autoencoder: latents are so much smaller, and so is what moves in them.

    Raises:
        UserError: OpenCV cannot be imported.
    """

    def flow(one: Frames, other: Frames) -> Float32[np.ndarray, "1 s i j 2"]:
        estimated = np.stack([estimated_flow(here, there) for here, there in zip(one, other, strict=True)])
        small = reduce(estimated, "s (h i) (w j) c -> 1 s h w c", "mean", i=downscale, j=downscale)
        return small / np.float32(downscale)

    frames = np.ascontiguousarray(frames)
    return flow(frames[:-1], frames[1:]), flow(frames[1:], frames[:-1])


def propagating(motion: Motion) -> ActOnX0:
    """At the timesteps of a motion `propagated`; at others nothing."""

    def act(x0: Float[Array, "b t h w c"], timesteps: Int32[Array, " b"]) -> Float[Array, "b t h w c"]:
        is_chosen = jnp.isin(timesteps[0], motion.timesteps)
        return jax.lax.cond(is_chosen, lambda x: propagated(x, motion.ahead, motion.back), lambda x: x, x0)

    return act


def propagated(x0: Float[Array, "b t h w c"], ahead: Flow, back: Flow) -> Float[Array, "b t h w c"]:
    """Frames from the last to the first, then from the first to the last: each half of what it is, half of what its
    neighbour has become, looked up along the flow; itself where the flow there and back does not lead home.
    """
    x0 = _carried(x0[:, ::-1], ahead[:, ::-1], agree(ahead, back)[:, ::-1])[:, ::-1]
    return _carried(x0, back, agree(back, ahead))


def agree(there: Flow, back: Flow) -> Bool[Array, "b s h w"]:
    """Where |f + b(f)|² < a₁ (|f|² + |b(f)|²) + a₂: what is seen is seen in the other frame, too."""
    returned, inside = warp(back, there)
    squared = lambda x: jnp.square(x).sum(-1)
    return inside & (squared(there + returned) < _RELATIVE * (squared(there) + squared(returned)) + _ABSOLUTE)


def _carried(x0: Float[Array, "b t h w c"], flow: Flow, seen: Bool[Array, "b s h w"]) -> Float[Array, "b t h w c"]:
    """From the first frame on, `flow` leading from each of the others to the one before."""

    def step(before: Array, item: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        here, flow, seen = item
        # The nearest, not a mean of four: that would blur a little more in every frame.
        there = warp(before[:, None], flow[:, None], order=0)[0][:, 0]
        mixed = jnp.where(seen[..., None], (here + there) / 2, here)
        return mixed, mixed

    by_frame = lambda x: jnp.moveaxis(x, 1, 0)
    _, others = jax.lax.scan(step, x0[:, 0], tuple(map(by_frame, (x0[:, 1:], flow, seen))))
    return jnp.concatenate([x0[:, :1], by_frame(others)], axis=1)
