"""What words name in a clip, by the difference that they make to predictions of noise."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from gen1_jax.diffusion.windows import window_starts
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, Maps, Progress, reporter
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

_NOISES, _STRENGTH, _RATIO, _LEAST = 10, 0.5, 3.0, 0.5


def named(
    pipeline: "Gen1Pipeline",
    words: str,
    frames: Frames,
    maps: Maps,
    settings: EditSettings,
    progress: Progress | None = None,
) -> Bool[np.ndarray, "t h w"]:
    """Where predictions with words and without them differ most, at half of the noise.

    Source: https://arxiv.org/abs/2210.11427 (DiffEdit), section 4.1, with the null content in place of a description
    of the input: ten noises at strength 0.5, differences clipped at three times their mean, cut at half of that.

    Args:
        pipeline: the model.
        words: for what may change.
        frames: of the model's size.
        maps: of the structures that the edit follows.
        settings: filled in.
        progress: told of the noises.
    """
    import cv2

    report = reporter(progress, "mask")
    told = pipeline.encode_content(words, [], settings)
    told = dataclasses.replace(told, structure=pipeline.encode_structure(maps, settings))
    latents, config = pipeline.encode_frames(frames), pipeline.config
    timesteps = jnp.array([round(_STRENGTH * config.schedule.num_train_timesteps)])
    total = np.zeros(latents.shape[1:4], np.float32)
    for number in range(_NOISES):
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(settings.seed), number), latents.shape)
        noised = config.schedule.add_noise(latents, noise, timesteps)
        total += _difference(pipeline, noised, timesteps, told)
        if report is not None:
            report(number + 1, _NOISES)
    height, width = frames.shape[1:3]
    shown = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in total])
    most = _RATIO * shown.mean()
    return np.minimum(shown, most) >= _LEAST * most


def _difference(
    pipeline: "Gen1Pipeline", noised: Float[Array, "1 t i j c"], timesteps: Int[Array, " b"], told: Conditions
) -> Float32[np.ndarray, "t i j"]:
    """How far predictions with the content and without it are apart, mean over channels."""
    count = noised.shape[1]
    window = min(count, pipeline.config.num_frames)
    difference = np.zeros(noised.shape[1:4], np.float32)
    for start in map(int, window_starts(count, window, 0)):
        part = told.window(start, window)
        both = part.together(part.without_content())
        rows = noised[:, start : start + window].repeat(2, axis=0)
        with_words, without = pipeline.unet.denoise(rows, timesteps.repeat(2), both)[0]
        difference[start : start + window] = np.abs(with_words - without).mean(-1)
    return difference
