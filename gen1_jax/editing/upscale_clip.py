"""`pipe.upscale(...)`: a clip that is held in memory, larger. `editing.files` enlarges files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gen1_jax.editing.enlarging import Enlargement, check_upscales, spoiled_by
from gen1_jax.editing.inputs import Clip, to_frames
from gen1_jax.editing.result import EditResult
from gen1_jax.editing.sampling import Watch
from gen1_jax.editing.settings import EditSettings, steps_as_text
from gen1_jax.editing.structures import Progress
from gen1_jax.errors import UserError
from gen1_jax.models.structure import LOW_RESOLUTION

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

NOISE_LEVEL = 1
"""t_s where nothing else is said: what an autoencoder or a codec leaves is corrected, little else is."""


def upscale_settings(noise_level: int = NOISE_LEVEL, guidance_scale: float | None = None, **settings) -> EditSettings:
    """The settings of an edit that enlarges: one evaluation a step, unless there is more guidance.

    Args:
        noise_level: t_s, 0 to 7.
        guidance_scale: w; None for 1.
        **settings: others of `EditSettings`.

    Raises:
        UserError: a level that there is not; see `EditSettings`.
    """
    try:
        scale = 1.0 if guidance_scale is None else guidance_scale
        return EditSettings(structure=LOW_RESOLUTION, structure_blur=noise_level, guidance_scale=scale, **settings)
    except UserError as error:
        raise UserError(str(error).replace("structure_blur", "noise_level")) from None


def upscale_clip(
    self: "Gen1Pipeline",
    frames: Clip,
    prompt: str | None = None,
    *,
    scale: int = 2,
    noise_level: int = NOISE_LEVEL,
    match_colour: bool = True,
    guidance_scale: float | None = None,
    temporal_guidance_scale: float = 1.0,
    num_inference_steps: int | None = None,
    negative_prompt: str | None = None,
    seed: int = 0,
    sampler: str | None = None,
    propagate: Sequence[int] | str | None = None,
    shift_windows: bool = EditSettings.shift_windows,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> EditResult:
    """A clip at a multiple of its size, by a model that was trained to (`configs/nano_upscaler.py`).

    Args:
        frames: see `edit`.
        prompt: what the clip shows, in words; None for what CLIP sees in its first frame.
        scale: how many times as high and as wide; that of the model.
        noise_level: t_s, 0 to 7, see `models.structure.low_resolution`: 0 trusts every pixel; with more, the frames are
            spoiled first, so that their artefacts are lost in what the model corrects.
        match_colour: whether the result, made small again, is the clip as far as t_s trusts it, see
            `enlarging.with_colours_of`.
        guidance_scale: w; by default 1, one evaluation a step.
        temporal_guidance_scale, num_inference_steps, negative_prompt, seed, sampler, propagate, shift_windows: see
            `edit`.
        progress, watch: see `edit`.

    Returns:
        The large frames, and as structure the small ones as the model was told of them.

    Raises:
        UserError: the model enlarges nothing, or not by this scale, or a setting is out of range.
    """
    check_upscales(self.config, self.source.name, scale)
    settings = upscale_settings(
        noise_level,
        guidance_scale,
        temporal_guidance_scale=temporal_guidance_scale,
        num_inference_steps=num_inference_steps,
        seed=seed,
        sampler=sampler,
        propagate=steps_as_text(propagate),
        shift_windows=shift_windows,
    ).of(self.config)
    small, enlargement = to_frames(frames), Enlargement(scale, self.config.size_multiple)
    seen = enlargement.of(small)
    content = self.content_of(seen) if prompt is None else self.encode_content(prompt, [], settings, negative_prompt)
    maps = self.read_structure(seen, settings, progress=progress)
    latents = self.sample(content, maps, settings, progress, watch, frames=seen)
    decoded = self.decode(latents, progress)
    spoiled = spoiled_by(self.config, noise_level, match_colour=match_colour)
    large = [*enlargement.finished(decoded, seen, small.shape[1:3], spoiled=spoiled)]
    return EditResult(frames=np.stack(large), structures=self.pictures_of(maps))
