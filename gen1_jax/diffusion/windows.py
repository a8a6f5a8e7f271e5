"""Clips longer than the model: overlapping windows whose predictions are blended at every step.

All windows share one noisy clip, so no seam can grow between them (MultiDiffusion, arXiv 2302.08113, over time).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gen1_jax.diffusion.guided import Model
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


def blend_weights(frames: int, window: int, overlap: int) -> Float[np.ndarray, "n window"]:
    """Weight of each window in each of its frames: ramps over the overlaps, one in total for every frame."""
    starts = window_starts(frames, window, overlap)
    distance = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1.0
    ramp = np.minimum(distance, overlap + 1)
    total = np.zeros(frames)
    for start in starts:
        total[start : start + window] += ramp
    return np.stack([ramp / total[start : start + window] for start in starts]).astype(np.float32)


def windowed(model: Model, window: int, overlap: int) -> Model:
    """`model` for clips of any length: itself up to `window` frames, blended windows of that many beyond.

    Windows are evaluated one after another, so the memory of the activations does not grow with the clip.
    """

    def apply(latents, timesteps, content, structure, structure_level) -> Float[Array, "b t h w c"]:
        frames = latents.shape[1]
        if frames <= window:
            return model(latents, timesteps, content, structure, structure_level)

        def add(total, item):
            start, weights = item
            cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, window, axis=1)
            part = None if structure is None else cut(structure)
            out = model(cut(latents), timesteps, content, part, structure_level)
            blended = cut(total) + out * weights[:, None, None, None]
            return jax.lax.dynamic_update_slice_in_dim(total, blended, start, axis=1), None

        items = (window_starts(frames, window, overlap), blend_weights(frames, window, overlap))
        total, _ = jax.lax.scan(add, jnp.zeros_like(latents), jax.tree.map(jnp.asarray, items))
        return total

    return apply
