"""Other editors' algorithms with the weights of the model that is measured: each a function of an `Editor`.

What begins at the input inverts it, told what the input shows, and samples back, told what is asked for.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

import jax.numpy as jnp
import numpy as np

from gen1_jax.diffusion import Guidance
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.atlas import atlas_edit
from gen1_jax.evaluation.editor import Editor, Way, noise_of_clips
from gen1_jax.evaluation.fatezero import fatezero_edit
from gen1_jax.evaluation.inputs import Fields
from gen1_jax.evaluation.inversion import Indices, Latents, guided_parts, inverted, told_input
from gen1_jax.evaluation.tokenflow import tokenflow_edit
from gen1_jax.evaluation.tuning import tuned_edit
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.models.attended import Attended, first_and_previous, first_frame
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.structure import structure_kind
from gen1_jax.pretrained.family import Gen1Config

INVERSION, FRIENDLY, TUNED, BIVDIFF = "DDIM inversion", "edit friendly noise", "Tune-A-Video", "BIVDiff"
TOKENFLOW, FATEZERO = "TokenFlow", "FateZero"
ATLAS, ATLAS_TRUE = "layered atlas", "layered atlas true masks"
WITH_DEPTH = " with depth"

FRIENDLY_STRENGTHS = (0.4, 0.64, 1.0)
"""Shares of the steps that are taken; the paper takes 64 of 100."""

CROSS_FRAME = {
    "EVE attention": (first_frame, "the first"),
    "Pix2Video attention": (first_and_previous, "the first and of the one before"),
}
"""At which frames those of the image model look, by method; and in words."""

KEY_INTERVALS = (2, 4)
"""Frames of which TokenFlow edits one as a key frame; there 8, of clips of 40 to 200."""

MIXING = (0.0, 0.25, 1.0)
"""Share of the image model's inversion in BIVDiff's; there 1 for a ControlNet, 0.25 for Prompt-to-Prompt."""


def rivals(settings: EditSettings) -> Iterator[Fields]:
    """Those that every model can be asked for.

    Args:
        settings: of the edit, filled in; rivals have its steps, guidance and structure, and DDIM's sampler.
    """
    settings = dataclasses.replace(settings, sampler="ddim")
    for sees_structure in (False, True):
        way, suffix = Way(settings=settings, sees_structure=sees_structure), WITH_DEPTH * sees_structure
        told = ", told the depth both ways" if sees_structure else ""
        what = f"the input is led up to noise by DDIM, then down again, told the new content{told}"
        yield INVERSION + suffix, None, what, _sampling(inverted_edit, way)
        for strength in FRIENDLY_STRENGTHS:
            what = f"DDPM by the noise that leads to the input at each of the last {strength:.0%} of the steps{told}"
            part = dataclasses.replace(way, strength=strength)
            yield FRIENDLY + suffix, strength, what, _sampling(edit_by_friendly_noise, part)
        what = f"the same as {INVERSION} by weights that were tuned on each clip{told}"
        yield TUNED + suffix, None, what, _sampling(tuned_edit, way)
    way = Way(settings=settings)
    if all(structure_kind(use.kind).is_estimated for use in settings.structures):
        layers = {ATLAS: "what moves otherwise than most, and the rest", ATLAS_TRUE: "all objects, and the rest"}
        for group, of in layers.items():
            what = f"two pictures, of {of}, are fitted to the clip, edited and laid under its frames"
            yield group, None, what, partial(atlas_edit, way=way, true_masks=group == ATLAS_TRUE)
    for group, (where, read) in CROSS_FRAME.items():
        what = f"the image model, told the depth, from inverted noise; every frame has keys and values of {read}"
        yield group, None, what, _sampling(partial(cross_frame_edit, where=where), way)
    for interval in KEY_INTERVALS:
        what = (
            f"the image model, told the depth, from inverted noise; one frame in {interval} is edited with all such, "
        )
        what += "the others have what attention gives these where the input is most alike"
        yield TOKENFLOW, interval, what, _sampling(partial(tokenflow_edit, interval=interval), way)
    for mixing in MIXING:
        what = (
            f"frames edited one by one, led up to noise by the image model ({mixing:.0%}) and the video model, and down"
        )
        yield BIVDIFF, mixing, f"{what} by the video model", _sampling(partial(bivdiff_edit, mixing=mixing), way)


def text_rivals(settings: EditSettings, config: Gen1Config) -> Iterator[Fields]:
    """Those that only models which read text can be asked for: they need a place of each word.

    Args:
        settings: see `rivals`.
        config: of the model.
    """
    if config.unet.content_kind != "text":
        return
    for sees_structure in (False, True):
        way = Way(settings=dataclasses.replace(settings, sampler="ddim"), sees_structure=sees_structure)
        what = "the image model from inverted noise, told a caption of the input; maps of attention from there are kept"
        what += ", of self-attention where no word of the caption changes, of cross-attention of the words that stay"
        told = "; told the depth both ways" if sees_structure else ""
        yield FATEZERO + WITH_DEPTH * sees_structure, None, what + told, _sampling(fatezero_edit, way)


def inverted_edit(editor: Editor, way: Way, indices: Indices) -> Latents:
    """DDIM inversion (https://arxiv.org/abs/2010.02502, section 5.4), then DDIM with the new content.

    Args:
        editor: of the worlds, as in what follows.
        way: which structures are told, both ways.
        indices: of the worlds.
    """
    sampler, told = editor.sampler(way.settings), editor.told(way, indices)
    noise = inverted(editor, sampler, told_input(editor, told, indices), editor.latents[indices])
    return editor.run(sampler, told, noise, guided_parts(way, sampler))


def cross_frame_edit(editor: Editor, way: Way, indices: Indices, where: Attended) -> Latents:
    """DDIM by the image model from each frame's own inversion; going down, frames have keys and values of others.

    Source: https://arxiv.org/abs/2303.12688, section 3 (Pix2Video: features are injected, not inverted with).

    Args:
        editor: of the worlds.
        way: which structures are told, both ways.
        indices: of the worlds.
        where: at which frames each one looks.
    """
    sampler, told = editor.sampler(way.settings), editor.told(way, indices).frames()
    noise = inverted(editor, sampler, told_input(editor, told, indices), editor.latents[indices])
    parts = [(start, stop, guidance.of_images()) for start, stop, guidance in guided_parts(way, sampler)]
    return editor.run(editor.sampler(way.settings, where), told, noise, parts)


def bivdiff_edit(editor: Editor, way: Way, indices: Indices, mixing: float) -> Latents:
    """Frames edited one by one; from noise by the image model's and the video model's inversion the latter samples.

    Source: https://arxiv.org/abs/2312.02813, section 3 (BIVDiff: mixed inversion and video temporal smoothing). As
    there, inversions are told no content.

    Args:
        editor: of the worlds.
        way: which structures all are told.
        indices: of the worlds.
        mixing: share of the image model's inversion.
    """
    sampler, told = editor.sampler(way.settings), editor.told(way, indices)
    frames = editor.sample(dataclasses.replace(way, frame_by_frame=True), indices)
    silent = told.without_content()
    shares = ((mixing, silent.frames()), (1 - mixing, silent))
    noise = sum(share * inverted(editor, sampler, by, frames) for share, by in shares if share)
    return editor.run(sampler, told, noise, guided_parts(way, sampler))


def edit_by_friendly_noise(editor: Editor, way: Way, indices: Indices) -> Latents:
    """Ancestral sampling, with guidance in each step, by the noise that would have led to the input.

    The input is noised to every timestep by itself, x_t. What leads from the mean of the model's step at x_t, told what
    the input shows, to x_{t-1} is that step's noise; the last step, to clean data, has none. With the same content and
    guidance a run passes through every x_t.

    Source: https://arxiv.org/abs/2304.06140, section 3 (edit-friendly DDPM inversion), with w = 1 for what the input
    shows (there 3.5).

    Args:
        editor: of the worlds.
        way: which structures are told, and the share of the steps that is taken.
        indices: of the worlds.
    """
    sampler = editor.sampler(way.settings)
    schedule, steps = sampler.schedule, len(sampler.tables.timesteps)
    ancestral = dataclasses.replace(sampler.sampler, eta=1.0)
    tables = ancestral.tables(schedule, steps, sampler.unet.config.prediction_type)
    sampler = sampler.with_tables(tables._replace(from_noise=np.zeros_like(tables.from_noise)))  # means: noise is ours
    told = editor.told(way, indices)
    source, first = told_input(editor, told, indices), way.first_step(steps)
    inputs = jnp.asarray(editor.latents[indices])
    noise = noise_of_clips(way.settings.seed, jnp.asarray(indices), (steps, *inputs.shape[1:]))

    def noised(step: int) -> Latents:
        return schedule.add_noise(inputs, noise[:, step], jnp.full(len(inputs), tables.timesteps[step]))

    def mean(latents: Latents, step: int, told: Conditions, guidance: Guidance) -> Latents:
        return editor.run(sampler, told, latents, [(step, step + 1, guidance)])

    guidance = way.settings.guidance(sampler.unet.config)
    now = latents = noised(first)
    for step in range(first, steps - 1):
        then = noised(step + 1)
        latents = mean(latents, step, told, guidance) + then - mean(now, step, source, guidance.off)
        now = then
    return mean(latents, steps - 1, told, guidance)


def _sampling(sample: Callable[[Editor, Way, Indices], Latents], way: Way) -> Callable[[Editor], EditClips]:
    return lambda editor: editor.decoded(lambda indices: sample(editor, way, indices))
