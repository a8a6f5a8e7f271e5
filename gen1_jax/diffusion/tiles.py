"""Pictures larger than those that a model knows: overlapping tiles whose predictions are blended at every step.

What `windows` are to the frames of a clip, in height and width (MultiDiffusion, arXiv 2302.08113).
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion.guidance import Conditions, Model
from gen1_jax.diffusion.windows import blend_weights, window_starts


def tiled(model: Model, tile: int, overlap: int) -> Model:
    """`model` for latents of any size: itself up to `tile` in height and width, blended tiles beyond.

    Tiles are evaluated one after another, so the memory of the activations does not grow with the picture.

    Args:
        model: of latents of up to `tile` x `tile`.
        tile: height and width of a tile; of less where the latents are less.
        overlap: rows or columns that neighbouring tiles share.
    """

    def apply(
        latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"], conditions: Conditions
    ) -> Float[Array, "b t h w c"]:
        if max(latents.shape[2:4]) <= tile:
            return model(latents, timesteps, conditions)
        size = tuple(min(side, tile) for side in latents.shape[2:4])
        (tops, down), (lefts, right) = (_along(side, tile, overlap) for side in latents.shape[2:4])
        corners = np.array([*itertools.product(tops, lefts)], np.int32)
        weights = np.stack([np.outer(y, x) for y, x in itertools.product(down, right)])

        def add(total, item):
            corner, weight = item
            start = (0, 0, *corner, 0)
            cut = lambda x: jax.lax.dynamic_slice(x, start, (*x.shape[:2], *size, x.shape[4]))
            out = model(cut(latents), timesteps, conditions.tile(corner, size))
            return jax.lax.dynamic_update_slice(total, cut(total) + out * weight[..., None], start), None

        return jax.lax.scan(add, jnp.zeros_like(latents), (jnp.asarray(corners), jnp.asarray(weights)))[0]

    return apply


def _along(side: int, tile: int, overlap: int) -> tuple[np.ndarray, Float[np.ndarray, "n size"]]:
    """Where tiles begin along an axis, and what each place of them counts."""
    if side <= tile:
        return np.zeros(1, np.int32), np.ones((1, side), np.float32)
    return window_starts(side, tile, overlap), blend_weights(side, tile, overlap)
