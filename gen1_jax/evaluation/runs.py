"""A run of the sampler over many clips: its parts, and every clip's own noise."""

from collections.abc import Iterable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from gen1_jax.diffusion import Guidance, guidance_runs
from gen1_jax.editing.deep_cache import cache_of
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.bench import step_flops
from gen1_jax.models.conditions import Conditions

Parts = Iterable[tuple[int, int, Guidance]]
"""(first step, end, guidance), one after another."""


def guided_parts(settings: EditSettings, sampler: GuidedSampler) -> list[tuple[int, int, Guidance]]:
    """Guidance as an edit has it over the steps of a sampler: (first step, end, guidance), one after another."""
    guidance, steps = settings.guidance(sampler.unet.config), len(sampler.tables.timesteps)
    return guidance_runs(guidance, steps, settings.guidance_interval)


def steps_from(first_step: int, parts: Parts) -> Iterator[tuple[int, int, Guidance]]:
    """What is left of a run in parts that begins at one of its steps."""
    return ((max(start, first_step), stop, guidance) for start, stop, guidance in parts if stop > first_step)


def part_of_whole(sampler: GuidedSampler, told: Conditions, guidance: Guidance, shape: tuple[int, ...]) -> float:
    """Operations of a step that takes deep features from one before, of those of a whole step.

    Args:
        sampler: of a denoiser that leaves such features.
        told: what is followed.
        guidance: whose branches are evaluated.
        shape: of the latents.
    """
    count = partial(step_flops, sampler.unet, shape, told, guidance, sampler.window, sampler.overlap)
    return count(cache_of(sampler, shape, told, guidance)) / count()


def keys_of_clips(seed: int, indices: Int[np.ndarray, " b"]) -> Key[Array, " b"]:
    """Of every clip its own, for what is drawn beside `noise_of_clips`."""
    draw = lambda index: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), index), 1)
    return jax.vmap(draw)(jnp.asarray(indices))


def noise_of_clips(seed: int, indices: Array, shape: tuple[int, ...]) -> Float[Array, " b *dims"]:
    """Of every clip its own, whatever the batch."""
    draw = lambda index: jax.random.normal(jax.random.fold_in(jax.random.key(seed), index), shape)
    return jax.vmap(draw)(indices)
