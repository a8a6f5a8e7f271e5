"""From clips to the noise that DDIM would take back to them, and what editors that begin there have in common."""

import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.evaluation.editor import Editor
from gen1_jax.models.conditions import Conditions

Latents = Float[Array, "b t i j c"]
Indices = Int[np.ndarray, " b"]


def inversion_trajectory(
    editor: Editor, sampler: GuidedSampler, told: Conditions, latents: Latents | Float[np.ndarray, "b t i j c"]
) -> list[Latents]:
    """What `Editor.inverted` passes through, from noise on: latents at each timestep, but the clean ones.

    Args:
        editor: counts the evaluations.
        sampler: whose steps they are, going down.
        told: what the denoiser is told.
        latents: clean ones.
    """
    ascending, passed = sampler.ascending(), []
    for step in range(len(ascending.tables.timesteps)):
        latents = editor.run(ascending, told, latents, [(step, step + 1, sampler.unguided)])
        passed.insert(0, latents)
    return passed
