"""Tables and state of a run, and the loop."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Key, PRNGKeyArray

from gen1_jax.diffusion.schedule import NoiseSchedule

# (latents (B, ...), timesteps (B,)) -> prediction (B, ...)
Denoiser = Callable[[Float[Array, " b *dims"], Int32[Array, " b"]], Float[Array, " b *dims"]]

RunKey = PRNGKeyArray | Key[Array, " b"]
"""Of a run, or of each example of its batch, whose noise then does not depend on the others."""


class SamplerTables(NamedTuple):
    """One row for each of the N steps of a run; numpy, int32 and float32. A pytree, so `jit` takes it.

    x0   = x0_from_latents x + x0_from_output output
    next = from_latents x + from_x0 x0 + from_x0_change (x0 - x0 of the step before) + from_noise eps

    Attributes:
        timesteps: what the denoiser is told; descending, but those of an inversion ascend.
        x0_from_latents: see above, as the other columns.
        x0_from_output: the prediction type is in these two columns and nowhere else.
        from_latents: kept of the latents.
        from_x0: the first-order step towards the x0 estimate.
        from_x0_change: the second-order correction; it is left out of the first step that a run takes.
        from_noise: standard deviation of fresh noise.
    """

    timesteps: Int32[np.ndarray, " n"]
    x0_from_latents: Float[np.ndarray, " n"]
    x0_from_output: Float[np.ndarray, " n"]
    from_latents: Float[np.ndarray, " n"]
    from_x0: Float[np.ndarray, " n"]
    from_x0_change: Float[np.ndarray, " n"]
    from_noise: Float[np.ndarray, " n"]


class SamplerState(NamedTuple):
    """All that a run carries from step to step.

    Attributes:
        latents: (B, ...) x_t, float32.
        x0: (B, ...) the clean sample as the last step estimated it; zeros before the first step.
        started: whether a step was taken.
        key: the run's key for fresh noise, or one of each example, never changed (step i folds i into it); None if
            deterministic.
        cache: what the model left at a step for the next ones, see `diffusion.caching`; None if it leaves nothing.
    """

    latents: Float[Array, " b *dims"]
    x0: Float[Array, " b *dims"]
    started: Bool[Array, ""]
    key: RunKey | None
    cache: Any = None


@runtime_checkable
class Sampler(Protocol):
    """What the sampling loop asks of a solver. Implementations are frozen: static arguments of `jax.jit`."""

    def tables(
        self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str, strength: float = 1.0
    ) -> SamplerTables:
        """Timesteps and coefficients of the steps that are run.

        Args:
            schedule: of the model's training, T timesteps.
            num_inference_steps: N, of a whole run.
            prediction_type: what the model answers, see `PREDICTION_TYPES`.
            strength: how noisy the run begins, in (0, 1]: 1 is noise alone; below 1 it begins with latents that
                `noised_start` made, and what lies above them is left out (SDEdit, https://arxiv.org/abs/2108.01073).

        Raises:
            ValueError: N is not in 1 ... the most that there are, the strength is out of range or leaves no step, the
                prediction type is unknown, or it is "epsilon" where the schedule leaves no signal.
        """
        ...

    def init(self, latents: Float[Array, " b *dims"], key: RunKey | None = None) -> SamplerState:
        """The state before the first step; `latents` (B, ...) is x_t of the first timestep to be visited.

        Raises:
            ValueError: the sampler draws noise and has no key.
        """
        ...

    def step(
        self,
        tables: SamplerTables,
        i: int | Int[Array, ""],
        state: SamplerState,
        model_output: Float[Array, " b *dims"],
    ) -> SamplerState:
        """Step i (it may be traced), given the denoiser's output at this state and `tables.timesteps[i]`."""
        ...


def run_steps(
    denoise: Denoiser,
    sampler: Sampler,
    tables: SamplerTables,
    state: SamplerState,
    *,
    start: int | Int[Array, ""] = 0,
    stop: int | Int[Array, ""] | None = None,
) -> SamplerState:
    """Takes the steps start <= i < stop (default: all N), keeping nothing but the state.

    Under `jax.jit` with traced bounds one compilation serves a whole run, a part of it and a single step,
    and a run in parts equals the whole.

    Args:
        denoise: (latents (B, ...), timesteps (B,) int32) -> prediction (B, ...), of `tables`' type.
        sampler: the solver that made `tables`.
        tables: the coefficients of the run.
        state: from `sampler.init` or from an earlier call.
        start: the first step to take.
        stop: the first step not to take.
    """

    def body(i: Int[Array, ""], state: SamplerState) -> SamplerState:
        timesteps = jnp.full(state.latents.shape[:1], jnp.asarray(tables.timesteps)[i])
        return sampler.step(tables, i, state, denoise(state.latents, timesteps))

    return jax.lax.fori_loop(start, len(tables.timesteps) if stop is None else stop, body, state)


def noised_start(
    schedule: NoiseSchedule, tables: SamplerTables, x0: Float[Array, " b *dims"], noise: Float[Array, " b *dims"]
) -> Float[Array, " b *dims"]:
    """Where a run of these tables begins that is to keep something of x_0: x_t of its first timestep (SDEdit).

    Args:
        schedule: the one that the tables are of.
        tables: of a run, of a strength below 1 to keep more than a trace.
        x0: (B, ...) clean latents.
        noise: (B, ...) standard normal.
    """
    return schedule.add_noise(x0, noise, jnp.full(x0.shape[:1], jnp.asarray(tables.timesteps)[0]))


def sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    sampler: Sampler,
    latents: Float[Array, " b *dims"],
    num_inference_steps: int,
    prediction_type: str,
    *,
    key: RunKey | None = None,
    start: int | Int[Array, ""] = 0,
    stop: int | Int[Array, ""] | None = None,
) -> Float[Array, " b *dims"]:
    """Denoises (B, ...) latents without guidance: `Sampler.tables`, `Sampler.init` and `run_steps` in one.

    With start = 0 the latents are standard normal noise; with start = k (SDEdit) a sample that
    `NoiseSchedule.add_noise` brought to `tables.timesteps[k]`.

    Raises:
        ValueError: as `Sampler.tables` and `Sampler.init`.
    """
    tables = sampler.tables(schedule, num_inference_steps, prediction_type)
    return run_steps(denoise, sampler, tables, sampler.init(latents, key), start=start, stop=stop).latents
