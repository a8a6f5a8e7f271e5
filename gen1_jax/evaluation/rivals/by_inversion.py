"""What begins at the input: it is inverted, told what it shows, and sampled back, told what is asked for."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from gen1_jax.diffusion import Guidance
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.rivals.inversion import Indices, Latents
from gen1_jax.evaluation.runs import guided_parts, noise_of_clips
from gen1_jax.evaluation.told import Way
from gen1_jax.models.attended import Attended
from gen1_jax.models.conditions import Conditions


def inverted_edit(editor: Editor, way: Way, indices: Indices) -> Latents:
    """DDIM inversion (https://arxiv.org/abs/2010.02502, section 5.4), then DDIM with the new content.

    Args:
        editor: of the worlds, as in what follows.
        way: which structures are told, both ways.
        indices: of the worlds.
    """
    sampler, told = editor.sampler(way.settings), editor.told(way, indices)
    noise = editor.inverted(sampler, editor.told_input(told, indices), editor.latents[indices])
    return editor.run(sampler, told, noise, guided_parts(way.settings, sampler))


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
    noise = editor.inverted(sampler, editor.told_input(told, indices), editor.latents[indices])
    parts = [(start, stop, guidance.of_images()) for start, stop, guidance in guided_parts(way.settings, sampler)]
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
    noise = sum(share * editor.inverted(sampler, by, frames) for share, by in shares if share)
    return editor.run(sampler, told, noise, guided_parts(way.settings, sampler))


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
    source, first = editor.told_input(told, indices), way.first_step(steps)
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
