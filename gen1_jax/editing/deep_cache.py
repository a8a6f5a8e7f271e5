"""What a guided run keeps of a denoiser's deep features between its steps; see `diffusion.caching`."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from gen1_jax.diffusion import Guidance, SamplerState
from gen1_jax.diffusion.caching import check_in_one
from gen1_jax.diffusion.guidance import evaluations
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_config import DenoiserConfig

if TYPE_CHECKING:
    from gen1_jax.editing.sampling import GuidedSampler


MOST_CACHED = 10
"""Of `check_deep_cache`."""


def check_deep_cache(deep_cache: int, unet: DenoiserConfig | None = None) -> None:
    """Refuses what cannot be done.

    Args:
        deep_cache: every how many-th step is to evaluate the whole denoiser.
        unet: that denoiser; None for whichever.

    Raises:
        UserError: the number is none of 1 to `MOST_CACHED`, or above 1 for a denoiser that keeps nothing.
    """
    if not 1 <= deep_cache <= MOST_CACHED:
        raise UserError(f"deep_cache must be 1 to {MOST_CACHED}, got {deep_cache}")
    if deep_cache > 1 and unet is not None and not unet.keeps_features:
        raise UserError("deep_cache: this model has no deeper levels whose features could be kept; leave it 1")


def whole_steps(sampler: "GuidedSampler", first: int) -> Bool[np.ndarray, " n"]:
    """Which steps evaluate the whole denoiser, as many as `padded_tables` has.

    Args:
        sampler: whose `deep_cache` says how often.
        first: the step that guidance begins with. It is whole: other guidance has features of other branches.
    """
    return (np.arange(sampler.schedule.num_train_timesteps) - first) % sampler.deep_cache == 0


def cache_of(
    sampler: "GuidedSampler", shape: tuple[int, ...], conditions: Conditions, guidance: Guidance
) -> jax.ShapeDtypeStruct:
    """What a step leaves for the next ones: deep features of every branch.

    Args:
        sampler: of a denoiser that has some.
        shape: of the latents.
        conditions: that are followed.
        guidance: whose branches are evaluated.

    Raises:
        UserError: the clip is not evaluated at once.
    """
    clips, frames, height, width, channels = shape
    check_in_one(frames, sampler.window)
    if sampler.tile is not None and max(height, width) > sampler.tile:
        raise UserError("deep_cache is for pictures that are sampled in one tile, and these are larger: leave it 1")
    rows = clips * evaluations(conditions, guidance.of_images() if frames == 1 else guidance)
    return sampler.unet.module.deep_features((rows, frames, height, width, channels))


def with_empty_cache(
    sampler: "GuidedSampler", state: SamplerState, conditions: Conditions, guidance: Guidance
) -> SamplerState:
    """The state before the first step with this guidance, which fills the cache; arguments are those of `cache_of`."""
    empty = cache_of(sampler, state.latents.shape, conditions, guidance)
    return state._replace(cache=jnp.zeros(empty.shape, empty.dtype))
