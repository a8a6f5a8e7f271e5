"""The input beside its edit, step by step in one batch, for editors that take attention from the one into the other.

latents of the inversion at t, told what the input shows ──┐
the edit's latents at t, told nothing ─────────────────────┼─► image model ─► guidance ─► the edit's latents at t - 1
the edit's latents at t, told the new content ─────────────┘   one batch, one `Attending`

What such editors keep of the inversion, features or maps of attention, is computed again at each step from its latents,
which is one evaluation more and no memory.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Int

from gen1_jax.diffusion import Guidance, Sampler, SamplerTables
from gen1_jax.diffusion.guidance import branch_conditions
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.rivals.inversion import Latents
from gen1_jax.evaluation.runs import guided_parts
from gen1_jax.evaluation.told import Way
from gen1_jax.models.attended import Attending, attending_by
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.module import Bound, Params

How = Callable[[int, Any], Attending]
"""Of the number of rows of a clip, the input first and the new content last, and what there is to know of a step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lockstep:
    """A run down that has its input beside it.

    Attributes:
        editor: counts the evaluations.
        sampler: of the steps; deterministic.
        way: whose guidance there is.
        how: attention is computed; a function of a module, since programs are shared by it.
    """

    editor: Editor
    sampler: GuidedSampler
    way: Way
    how: How

    def __call__(self, source: Conditions, told: Conditions, trajectory: list[Latents], steps: list[Any]) -> Latents:
        """Latents of the edit.

        Args:
            source: what the input is told, frame by frame.
            told: what the edit is told, frame by frame.
            trajectory: latents of the inversion, from noise to the input; the edit begins at the first.
            steps: what `how` is told at each step, a pytree.
        """
        latents, unet, tables = trajectory[0], self.sampler.unet, self.sampler.padded_tables
        for start, stop, guidance in guided_parts(self.way.settings, self.sampler):
            guidance = guidance.of_images()
            for step in range(start, stop):
                beside = (latents, trajectory[step], source, told, guidance, tables, step, steps[step])
                latents = _step(unet, self.sampler.sampler, self.how, unet.params, *beside)
                self.editor.count(1 + len(guidance.branches), latents)
        return latents


@partial(jax.jit, static_argnums=(0, 1, 2))
def _step(
    unet: Bound,
    solver: Sampler,
    how: How,
    params: Params,
    latents: Array,
    beside: Array,
    source: Conditions,
    told: Conditions,
    guidance: Guidance,
    tables: SamplerTables,
    step: int | Int[Array, ""],
    known: Any,
) -> Latents:
    branches = branch_conditions(told, guidance)
    others = [one for branch in guidance.branches for one in branches[branch]]
    n = 1 + len(others)
    batch = rearrange(jnp.stack([beside, *[latents] * len(others)], axis=1), "b n ... -> (b n) ...")
    timesteps = jnp.full(len(batch), jnp.asarray(tables.timesteps)[step])
    with attending_by(how(n, known)):
        rows, _ = unet.apply(params, batch, timesteps, source.together(*others), method="denoise")
    rows = rearrange(rows, "(b n) ... -> n b ...", n=n)
    return solver.step(tables, step, solver.init(latents), guidance.combine([*rows[1:]])).latents
