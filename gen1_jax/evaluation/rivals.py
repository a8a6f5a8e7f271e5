"""Other editors' algorithms with the weights of the model that is measured: each a function of an `Editor`.

What begins at the input inverts it, told what the input shows, and samples back, told what is asked for.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion import DDIM, Guidance, ddim_inversion, guidance_runs
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor, Way, after, noise_of_clips
from gen1_jax.evaluation.inputs import Fields
from gen1_jax.models.attended import Attended, first_and_previous, first_frame
from gen1_jax.models.conditions import Conditions

INVERSION, FRIENDLY, BRIDGED = "DDIM inversion", "edit friendly noise", "BIVDiff"
FRIENDLY_STRENGTHS = (0.4, 0.64, 0.8, 1.0)
"""Shares of the steps that are taken; the paper takes 64 of 100."""

LOOKING = {
    "EVE attention": (first_frame, "the first"),
    "Pix2Video attention": (first_and_previous, "the first and of the one before"),
}
"""At which frames those of the image model look, by method; and in words."""

MIXING = (0.0, 0.25, 0.5, 1.0)
"""Share of the image model's inversion in BIVDiff's; there 1 for a ControlNet, 0.25 for Prompt-to-Prompt."""

_WITH_DEPTH = " with depth"

Latents = Float[Array, "b t i j c"]
Indices = Int[np.ndarray, " b"]


def rivals(settings: EditSettings) -> Iterator[Fields]:
    """Those that every model can be asked for.

    Args:
        settings: of the edit, filled in; rivals have its steps, guidance and structure, and DDIM's sampler.
    """
    settings = dataclasses.replace(settings, sampler="ddim")
    for sees_structure in (False, True):
        way, suffix = Way(settings=settings, sees_structure=sees_structure), _WITH_DEPTH * sees_structure
        told = ", told the depth both ways" if sees_structure else ""
        what = f"the input is led up to noise by DDIM, then down again, told the new content{told}"
        yield INVERSION + suffix, None, what, _sampling(inverted_edit, way)
        for strength in FRIENDLY_STRENGTHS:
            what = f"DDPM by the noise that leads to the input at each of the last {strength:.0%} of the steps{told}"
            part = dataclasses.replace(way, strength=strength)
            yield FRIENDLY + suffix, strength, what, _sampling(edit_by_friendly_noise, part)
    way = Way(settings=settings)
    for group, (where, read) in LOOKING.items():
        what = f"the image model, told the depth, from inverted noise; every frame has keys and values of {read}"
        yield group, None, what, _sampling(partial(looking_edit, where=where), way)
    for mixing in MIXING:
        what = (
            f"frames edited one by one, led up to noise by the image model ({mixing:.0%}) and the video model, and down"
        )
        yield BRIDGED, mixing, f"{what} by the video model", _sampling(partial(bridged_edit, mixing=mixing), way)


def inverted_edit(editor: Editor, way: Way, indices: Indices) -> Latents:
    """DDIM inversion (https://arxiv.org/abs/2010.02502, section 5.4), then DDIM with the new content."""
    sampler = editor.sampler(way.settings)
    noise = inverted(editor, sampler, editor.told(way, indices, editor.source_content), editor.latents[indices])
    return editor.run(sampler, editor.told(way, indices), noise, _guidance(way, sampler))


def looking_edit(editor: Editor, way: Way, indices: Indices, where: Attended) -> Latents:
    """The same by the image model, each of whose frames has its keys and values from others, up and down."""
    sampler = editor.sampler(way.settings, where)
    source, told = editor.told(way, indices, editor.source_content).frames(), editor.told(way, indices).frames()
    noise = inverted(editor, sampler, source, editor.latents[indices])
    parts = [(start, stop, guidance.of_images()) for start, stop, guidance in _guidance(way, sampler)]
    return editor.run(sampler, told, noise, parts)


def bridged_edit(editor: Editor, way: Way, indices: Indices, mixing: float) -> Latents:
    """Frames edited one by one, whose noise, by the image model's and the video model's inversion, the latter samples.

    Source: https://arxiv.org/abs/2312.02813, section 3 (BIVDiff: mixed inversion and video temporal smoothing).

    Args:
        editor: of the worlds.
        way: what all three are told.
        indices: of the worlds.
        mixing: share of the image model's inversion.
    """
    sampler, told = editor.sampler(way.settings), editor.told(way, indices)
    frames = editor.sample(dataclasses.replace(way, frame_by_frame=True), indices)
    shares = ((mixing, told.frames()), (1 - mixing, told))
    noise = sum(share * inverted(editor, sampler, by, frames) for share, by in shares if share)
    return editor.run(sampler, told, noise, _guidance(way, sampler))


def edit_by_friendly_noise(editor: Editor, way: Way, indices: Indices) -> Latents:
    """Ancestral sampling whose noise of each step is what would have led to the input, told what the input shows.

    The input is noised to every timestep by itself, x_t. What leads from where the model's step at x_t ends to x_{t-1}
    is the noise, as it is added, so that the last step, which draws none, is made good, too. The same content and
    guidance give the input back exactly, whatever the model.

    Source: https://arxiv.org/abs/2304.06140, section 3 (edit-friendly DDPM inversion), with w = 1 for what the input
    shows (there 3.5).
    """
    sampler = editor.sampler(way.settings)
    schedule, prediction_type = sampler.schedule, sampler.unet.config.prediction_type
    steps = len(sampler.tables.timesteps)
    sampler = sampler.with_tables(DDIM(eta=1.0).tables(schedule, steps, prediction_type))
    source, told = editor.told(way, indices, editor.source_content), editor.told(way, indices)
    inputs, first = jnp.asarray(editor.latents[indices]), min(round(steps * (1 - way.strength)), steps - 1)

    def noised(step: int) -> Latents:
        if step == steps:
            return inputs
        noise = noise_of_clips(way.settings.seed + step, jnp.asarray(indices), inputs.shape[1:])
        return schedule.add_noise(inputs, noise, jnp.full(len(inputs), sampler.tables.timesteps[step]))

    now = latents = noised(first)
    for start, stop, guidance in after(first, _guidance(way, sampler)):
        for step in range(start, stop):
            then = noised(step + 1)
            noise = then - editor.run(sampler, source, now, [(step, step + 1, _unguided())])
            latents = editor.run(sampler, told, latents, [(step, step + 1, guidance)]) + noise
            now = then
    return latents


def inverted(
    editor: Editor, sampler: GuidedSampler, told: Conditions, latents: Latents | Float[np.ndarray, "b t i j c"]
) -> Latents:
    """The noise that the sampler takes to these latents, told this, without guidance: with w above 1 it diverges."""
    prediction_type = sampler.unet.config.prediction_type
    ascending = ddim_inversion(sampler.schedule, sampler.tables.timesteps, prediction_type)
    parts = [(0, len(ascending.timesteps), _unguided())]
    return editor.run(sampler.with_tables(ascending), told, latents, parts)


def _unguided() -> Guidance:
    """One evaluation a step."""
    return Guidance.of(1.0, 1.0)


def _guidance(way: Way, sampler: GuidedSampler) -> list[tuple[int, int, Guidance]]:
    return guidance_runs(way.settings.guidance, len(sampler.tables.timesteps), way.settings.guidance_interval)


def _sampling(sample: Callable[[Editor, Way, Indices], Latents], way: Way) -> Callable[[Editor], np.ndarray]:
    return lambda editor: editor.decoded(lambda indices: sample(editor, way, indices))
