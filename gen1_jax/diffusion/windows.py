"""Clips longer than the model: overlapping windows whose predictions are blended at every step.

All windows share one noisy clip, so no seam can grow between them (MultiDiffusion, arXiv 2302.08113, over time).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from gen1_jax.diffusion.guidance import Conditions, Model
from gen1_jax.errors import UserError


def window_starts(frames: int, window: int, overlap: int) -> np.ndarray:
    """First frames of the windows that cover a clip; the last window ends with the clip.

    Raises:
        ValueError: the overlap is not in 0 ... window - 1, or the clip is shorter than the window.
    """
    if not 0 <= overlap < window:
        raise UserError(f"overlap must be between 0 and {window - 1}, got {overlap}")
    if frames < window:
        raise UserError(f"a clip of {frames} frames is shorter than the window of {window}")
    starts = np.arange(0, frames - window, window - overlap)
    return np.append(starts, frames - window).astype(np.int32)


def window_count(frames: int, window: int, overlap: int) -> int:
    """How many windows a clip has: one where it is no longer than that."""
    return 1 if frames <= window else len(window_starts(frames, window, overlap))


def blend_weights(frames: int, window: int, overlap: int) -> Float[np.ndarray, "n window"]:
    """Weight of each window in each of its frames: ramps over the overlaps, one in total for every frame."""
    starts, ramp = window_starts(frames, window, overlap), _ramp(window, overlap)
    total = np.zeros(frames)
    for start in starts:
        total[start : start + window] += ramp
    return np.stack([ramp / total[start : start + window] for start in starts]).astype(np.float32)


def _ramp(window: int, overlap: int) -> Float[np.ndarray, " window"]:
    distance = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1.0
    return np.minimum(distance, overlap + 1)


def shifted_windows(
    frames: int, window: int, overlap: int, shift: Int[Array, ""] | int
) -> tuple[Int32[Array, " n"], Float[Array, "n window"]]:
    """First frames and weights of windows as those of `window_starts` and `blend_weights`, moved.

    Both may be traced; their number is the same for every shift, at most one more than without. A window that would
    begin before the clip, or end after it, is moved into it; where that is the place of the one before, it has no
    weight.

    Args:
        frames: of the clip.
        window: frames of a window.
        overlap: frames that neighbouring windows share, or more.
        shift: in 0 ... window - overlap - 1, frames by which windows begin earlier.
    """
    stride = window - overlap
    count = len(window_starts(frames + stride - 1, window, overlap))  # that the furthest shift leaves no frame out
    starts = jnp.clip(jnp.arange(count) * stride - shift, 0, frames - window).astype(jnp.int32)
    is_new = jnp.append(True, starts[1:] > starts[:-1])
    ramps = jnp.asarray(_ramp(window, overlap), jnp.float32) * is_new[:, None]
    where = starts[:, None] + jnp.arange(window)
    return starts, ramps / jnp.zeros(frames).at[where].add(ramps)[where]


def window_shift(timestep: Int[Array, ""] | int, stride: int) -> Int[Array, ""]:
    """By how much windows are shifted at a timestep, drawn by it: spaced evenly, timesteps would give equal ones."""
    return jax.random.randint(jax.random.fold_in(jax.random.key(0), timestep), (), 0, stride)


def windowed(model: Model, window: int, overlap: int, shift: bool = False) -> Model:
    """`model` for clips of any length: itself up to `window` frames, blended windows of that many beyond.

    Windows are evaluated one after another, so the memory of the activations does not grow with the clip.

    Args:
        model: of clips of up to `window` frames.
        window: frames of a window.
        overlap: frames that neighbouring windows share.
        shift: whether windows lie elsewhere at each timestep, so that no frame is always near a seam. Costs at most
            one more evaluation. Where they lie is drawn by the timestep alone, that of the first clip of the batch.
    """

    def apply(
        latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"], conditions: Conditions
    ) -> Float[Array, "b t h w c"]:
        frames = latents.shape[1]
        if frames <= window:
            return model(latents, timesteps, conditions)

        def add(total, item):
            start, weights = item
            cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, window, axis=1)
            out = model(cut(latents), timesteps, conditions.window(start, window))
            blended = cut(total) + out * weights[:, None, None, None]
            return jax.lax.dynamic_update_slice_in_dim(total, blended, start, axis=1), None

        if shift:
            items = shifted_windows(frames, window, overlap, window_shift(timesteps[0], window - overlap))
        else:
            items = (window_starts(frames, window, overlap), blend_weights(frames, window, overlap))
        total, _ = jax.lax.scan(add, jnp.zeros_like(latents), jax.tree.map(jnp.asarray, items))
        return total

    return apply
