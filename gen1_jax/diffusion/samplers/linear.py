"""What all solvers share: the step that tables of coefficients tell."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

from gen1_jax.diffusion.prediction import x0_coefficients
from gen1_jax.diffusion.samplers.loop import RunKey, SamplerState, SamplerTables
from gen1_jax.diffusion.schedule import Levels, NoiseSchedule
from gen1_jax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LinearSampler:
    """A `Sampler` but for its tables.

    Attributes:
        of_flow: whether it is for rectified flow, rather than for variance-preserving schedules.
    """

    of_flow: ClassVar[bool] = False

    @property
    def draws_noise(self) -> bool:
        """Whether a run needs a key."""
        return False

    def init(self, latents: Float[Array, " b *dims"], key: RunKey | None = None) -> SamplerState:
        """See `Sampler.init`; a deterministic sampler forgets the key."""
        if self.draws_noise and key is None:
            raise ValueError(f"{self} draws noise: init needs a key")
        latents = latents.astype(jnp.promote_types(latents.dtype, jnp.float32))
        return SamplerState(latents, jnp.zeros_like(latents), jnp.array(False), key if self.draws_noise else None)

    def step(
        self,
        tables: SamplerTables,
        i: int | Int[Array, ""],
        state: SamplerState,
        model_output: Float[Array, " b *dims"],
    ) -> SamplerState:
        """See `Sampler.step`."""
        row = SamplerTables(*(jnp.asarray(column)[i] for column in tables))
        latents, x0_before, started, key, _ = state
        x0 = row.x0_from_latents * latents + row.x0_from_output * model_output
        change = jnp.where(started, x0 - x0_before, 0)
        latents = row.from_latents * latents + row.from_x0 * x0 + row.from_x0_change * change
        if key is not None:
            latents = latents + row.from_noise * _noise(key, i, latents)
        return state._replace(latents=latents, x0=x0, started=jnp.array(True))


def _noise(key: RunKey, i: int | Int[Array, ""], like: Float[Array, " b *dims"]) -> Float[Array, " b *dims"]:
    """Of step i; of each example by itself where each has a key."""
    draw = lambda key, shape: jax.random.normal(jax.random.fold_in(key, i), shape, like.dtype)
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim:
        return jax.vmap(lambda key: draw(key, like.shape[1:]))(key)
    return draw(key, like.shape)


def assembled(
    schedule: NoiseSchedule,
    timesteps: Int32[np.ndarray, " n"],
    prediction_type: str,
    now: Levels,
    *,
    from_latents: Float[np.ndarray, " n"],
    from_x0: Float[np.ndarray, " n"],
    from_noise: Float[np.ndarray, " n"],
) -> SamplerTables:
    """Tables of steps that know no x_0 of before, from columns in float64; `now` are the levels of the timesteps.

    Raises:
        ValueError: the prediction type is not of the schedule, or it is "epsilon" where that leaves no signal.
    """
    if prediction_type not in (known := schedule.prediction_types):
        raise UserError(f"prediction_type must be one of {known} with this noise schedule, got {prediction_type!r}")
    if prediction_type == "epsilon" and not schedule.levels.alpha[timesteps].all():
        raise UserError(
            "prediction_type 'epsilon' cannot be sampled from a schedule with zero terminal SNR; "
            "use 'v_prediction' or 'sample', or a timestep_spacing that leaves the last timestep out"
        )
    x0_columns = x0_coefficients(prediction_type, *now)
    columns = (*x0_columns, from_latents, from_x0, np.zeros_like(now.sigma), from_noise)
    return SamplerTables(timesteps, *(column.astype(np.float32) for column in columns))


def first_order(
    schedule: NoiseSchedule,
    timesteps: Int32[np.ndarray, " n"],
    prediction_type: str,
    now: Levels,
    then: Levels,
    noise: Float[np.ndarray, " n"] | None = None,
) -> SamplerTables:
    """First-order steps between levels, in either direction: x' = alpha' x0 + sigma' eps + noise fresh eps.

    Args:
        schedule: of the timesteps.
        timesteps: that the denoiser is told, those of `now`.
        prediction_type: what it answers.
        now: where steps begin.
        then: where they end, but for fresh noise.
        noise: standard deviation of that; None for none.
    """
    return assembled(
        schedule,
        timesteps,
        prediction_type,
        now,
        from_latents=then.sigma / now.sigma,  # eps = (x - alpha x0) / sigma
        from_x0=then.alpha - now.alpha * then.sigma / now.sigma,
        from_noise=np.zeros_like(now.sigma) if noise is None else noise,
    )


def check_schedule(sampler: LinearSampler, schedule: NoiseSchedule) -> None:
    """Refuses a sampler of the other kind of schedules.

    Raises:
        ValueError: the schedule is rectified flow's and the sampler is not, or the other way round.
    """
    if sampler.of_flow != schedule.use_flow_sigmas:
        kinds = "variance-preserving schedules", "rectified flow"
        ours, theirs = kinds if schedule.use_flow_sigmas else kinds[::-1]
        raise UserError(f"sampler {type(sampler).__name__} is for {ours}, but this noise schedule is of {theirs}")


def check_strength(strength: float) -> None:
    """Refuses what is no part of a run.

    Raises:
        ValueError: the strength is not in (0, 1].
    """
    if not 0 < strength <= 1:
        raise UserError(f"strength must be above 0 and at most 1, got {strength}")
