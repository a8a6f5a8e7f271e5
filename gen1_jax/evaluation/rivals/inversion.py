"""From clips to the noise that DDIM would take back to them, and what editors that begin there have in common."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion import Guidance, ddim_inversion
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.evaluation.editor import Editor
from gen1_jax.models.conditions import Conditions

Latents = Float[Array, "b t i j c"]
Indices = Int[np.ndarray, " b"]


def inverted(
    editor: Editor, sampler: GuidedSampler, told: Conditions, latents: Latents | Float[np.ndarray, "b t i j c"]
) -> Latents:
    """The noise that the sampler takes to these latents, without guidance: with w above 1 it diverges.

    Args:
        editor: counts the evaluations.
        sampler: the one that goes down.
        told: what the denoiser is told.
        latents: clean ones.
    """
    ascending = ascending_sampler(sampler)
    return editor.run(ascending, told, latents, [(0, len(ascending.tables.timesteps), unguided(sampler))])


def inversion_trajectory(
    editor: Editor, sampler: GuidedSampler, told: Conditions, latents: Latents | Float[np.ndarray, "b t i j c"]
) -> list[Latents]:
    """What `inverted` passes through, from noise on: latents at each timestep of the sampler, not the clean ones.

    Args:
        editor: see `inverted`, as what follows.
        sampler: whose steps they are.
        told: what the denoiser is told.
        latents: clean ones.
    """
    ascending, passed = ascending_sampler(sampler), []
    for step in range(len(ascending.tables.timesteps)):
        latents = editor.run(ascending, told, latents, [(step, step + 1, unguided(sampler))])
        passed.insert(0, latents)
    return passed


def ascending_sampler(sampler: GuidedSampler) -> GuidedSampler:
    """The same the other way, see `ddim_inversion`."""
    prediction_type = sampler.unet.config.prediction_type
    return sampler.with_tables(ddim_inversion(sampler.schedule, sampler.tables.timesteps, prediction_type))


def told_input(editor: Editor, told: Conditions, indices: Indices) -> Conditions:
    """The same, told what the inputs show."""
    shown = jnp.asarray(editor.source_content[indices])
    return dataclasses.replace(told, content=dict.fromkeys(told.content, shown))


def unguided(sampler: GuidedSampler) -> Guidance:
    """One evaluation a step."""
    return Guidance.of(1.0, 1.0, distilled=sampler.unet.config.guidance_embedded)
