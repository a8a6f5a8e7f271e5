"""Where a model predicts another clip when it is told something else: DiffEdit's way of finding what an edit is about.

Source: https://arxiv.org/abs/2210.11427, section 4.1.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float, Float32

from gen1_jax.diffusion.windows import window_starts
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

CHANGE_NOISES, CHANGE_STRENGTH = 4, 0.8
"""Of `changed`. At four fifths of the noise the content decides what is seen, at half of it what the input left."""

_BRIGHT = 0.995  # share of the places that are below the top of Otsu's scale


def differences(
    pipeline: "Gen1Pipeline",
    latents: Float[Array, "b t i j c"],
    told: Conditions,
    other: Conditions,
    *,
    strength: float,
    noises: int,
    seed: int,
) -> Iterator[Float32[np.ndarray, "b t i j c"]]:
    """Predictions with one condition less those with another, for one noise after another.

    Args:
        pipeline: the model.
        latents: of clips.
        told: of these clips.
        other: of them, in its place.
        strength: how much noise they are given, as a share of the schedule.
        noises: how many.
        seed: of the noises.
    """
    schedule, count = pipeline.config.schedule, latents.shape[1]
    timesteps = jnp.full(2 * len(latents), round(strength * schedule.num_train_timesteps))
    window = min(count, pipeline.config.num_frames)
    for number in range(noises):
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(seed), number), latents.shape)
        noised = schedule.add_noise(latents, noise, timesteps[: len(latents)])
        difference = np.zeros(latents.shape, np.float32)
        for start in map(int, window_starts(count, window, 0)):
            both = told.window(start, window).together(other.window(start, window))
            rows = noised[:, start : start + window].repeat(2, axis=0)  # of a clip, beside each other
            predicted = np.asarray(pipeline.unet.denoise(rows, timesteps, both)[0])
            difference[:, start : start + window] = predicted[::2] - predicted[1::2]
        yield difference


def changed(found: Iterator[Float32[np.ndarray, "b t i j c"]], size: tuple[int, int]) -> Bool[np.ndarray, "b t h w"]:
    """Where differences are large, by Otsu's threshold for each clip, and a latent around it.

    Args:
        found: of clips, see `differences`: what they have in common over all noises counts.
        size: (height, width) of the mask.
    """
    import cv2

    total = sum(found)
    far = np.sqrt(np.square(total).mean(-1))
    masks = []
    for clip in far:
        levels = np.rint(255 * np.minimum(clip / max(np.quantile(clip, _BRIGHT), 1e-12), 1)).astype(np.uint8)
        threshold, _ = cv2.threshold(rearrange(levels, "t i j -> t (i j)"), 0, 255, cv2.THRESH_OTSU)
        around = (cv2.dilate(level, np.ones((3, 3), np.uint8)) for level in levels)
        shown = (cv2.resize(level, size[::-1], interpolation=cv2.INTER_LINEAR) for level in around)
        masks.append(np.stack([level > threshold for level in shown]))
    return np.stack(masks)
