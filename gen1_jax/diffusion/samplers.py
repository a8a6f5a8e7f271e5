"""From noise to a sample: DDIM and DPM-Solver++(2M) as tables of coefficients, and the loop over them.

Every step of either solver is linear in what it knows: the latents x, the denoiser's output, the x_0 that
the step before estimated, and fresh noise. All that tells solvers apart is therefore a table with one row a
step, computed once in float64; the step itself is one short function, the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, PRNGKeyArray

from gen1_jax.diffusion.prediction import x0_coefficients
from gen1_jax.diffusion.schedule import NoiseSchedule
from gen1_jax.errors import UserError

TIMESTEP_SPACINGS = ("leading", "trailing", "linspace")

# (latents (B, ...), timesteps (B,)) -> prediction (B, ...)
Denoiser = Callable[[Float[Array, " b *dims"], Int32[Array, " b"]], Float[Array, " b *dims"]]


class SamplerTables(NamedTuple):
    """One row for each of the N steps of a run; numpy, int32 and float32. A pytree, so `jit` takes it.

    x0   = x0_from_latents x + x0_from_output output
    next = from_latents x + from_x0 x0 + from_x0_change (x0 - x0 of the step before) + from_noise eps

    Attributes:
        timesteps: what the denoiser is told, descending.
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
        key: the run's key for fresh noise, never changed (step i folds i into it); None if deterministic.
    """

    latents: Float[Array, " b *dims"]
    x0: Float[Array, " b *dims"]
    started: Bool[Array, ""]
    key: PRNGKeyArray | None


@runtime_checkable
class Sampler(Protocol):
    """What the sampling loop asks of a solver. Implementations are frozen: static arguments of `jax.jit`."""

    def tables(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        """Timesteps and coefficients of a run of N = `num_inference_steps` steps.

        Raises:
            ValueError: N is not in 1 ... T, the prediction type is unknown, or it is "epsilon" where the
                schedule leaves no signal.
        """
        ...

    def init(self, latents: Float[Array, " b *dims"], key: PRNGKeyArray | None = None) -> SamplerState:
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


@dataclass(frozen=True, kw_only=True)
class _LinearSampler:
    """What the samplers below share.

    Attributes:
        timestep_spacing: which timesteps are visited (https://arxiv.org/abs/2305.08891, table 2), named and
            rounded as in diffusers. None is "trailing" under zero terminal SNR, which must begin at the
            last timestep, and otherwise what Stable Diffusion uses with the sampler.
        steps_offset: added to "leading" timesteps; Stable Diffusion has 1.
    """

    timestep_spacing: str | None = None
    steps_offset: int = 1

    def __post_init__(self):
        if self.timestep_spacing not in (None, *TIMESTEP_SPACINGS):
            raise UserError(
                f"timestep_spacing must be one of {TIMESTEP_SPACINGS} or None, got {self.timestep_spacing!r}"
            )
        if self.steps_offset < 0:
            raise UserError(f"steps_offset must not be negative, got {self.steps_offset}")

    def init(self, latents: Float[Array, " b *dims"], key: PRNGKeyArray | None = None) -> SamplerState:
        """See `Sampler.init`; a deterministic sampler forgets the key."""
        latents = latents.astype(jnp.promote_types(latents.dtype, jnp.float32))
        key = key if self._draws_noise(key) else None
        return SamplerState(latents, jnp.zeros_like(latents), jnp.array(False), key)

    def step(
        self,
        tables: SamplerTables,
        i: int | Int[Array, ""],
        state: SamplerState,
        model_output: Float[Array, " b *dims"],
    ) -> SamplerState:
        """See `Sampler.step`."""
        row = SamplerTables(*(jnp.asarray(column)[i] for column in tables))
        latents, x0_before, started, key = state
        x0 = row.x0_from_latents * latents + row.x0_from_output * model_output
        change = jnp.where(started, x0 - x0_before, 0)
        latents = row.from_latents * latents + row.from_x0 * x0 + row.from_x0_change * change
        if key is not None:
            noise = jax.random.normal(jax.random.fold_in(key, i), latents.shape, latents.dtype)
            latents = latents + row.from_noise * noise
        return SamplerState(latents, x0, jnp.array(True), key)

    def _draws_noise(self, key: PRNGKeyArray | None) -> bool:
        return False

    def _spacing(self, schedule: NoiseSchedule, default: str) -> str:
        return self.timestep_spacing or ("trailing" if schedule.rescale_zero_terminal_snr else default)


@dataclass(frozen=True, kw_only=True)
class DDIM(_LinearSampler):
    """Denoising diffusion implicit models (https://arxiv.org/abs/2010.02502, equations 12 and 16).

    Equal to diffusers' DDIMScheduler without clipping, wherever that steps to the next timestep it visits.
    (It steps by T // N: not the next timestep for "linspace", nor for "trailing" if N does not divide T.)

    Attributes:
        timestep_spacing: as for every sampler; the default for an ordinary schedule is "leading".
        steps_offset: added to "leading" timesteps.
        eta: from 0, deterministic, to 1, ancestral sampling. Above 0, `init` needs a key.
        set_alpha_to_one: whether the last step ends at clean data rather than at the level of timestep 0.
    """

    eta: float = 0.0
    set_alpha_to_one: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must be between 0 and 1, got {self.eta}")

    def tables(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        """See `Sampler.tables`."""
        _check_steps(schedule, num_inference_steps)
        spacing = self._spacing(schedule, default="leading")
        timesteps = spaced_timesteps(schedule.num_train_timesteps, num_inference_steps, spacing, self.steps_offset)
        alphas_cumprod = schedule.alphas_cumprod_float64
        now = alphas_cumprod[timesteps]
        end = 1.0 if self.set_alpha_to_one else alphas_cumprod[0]
        return _tables(schedule, timesteps, prediction_type, now, np.append(now[1:], end), eta=self.eta)

    def _draws_noise(self, key: PRNGKeyArray | None) -> bool:
        if self.eta > 0 and key is None:
            raise ValueError("DDIM with eta > 0 draws noise: init needs a key")
        return self.eta > 0


@dataclass(frozen=True, kw_only=True)
class DPMSolverMultistep(_LinearSampler):
    """DPM-Solver++(2M), a second-order solver in x_0 (https://arxiv.org/abs/2211.01095, algorithm 2).

    Equal to diffusers' DPMSolverMultistepScheduler with algorithm_type="dpmsolver++", solver_order=2,
    solver_type="midpoint", lower_order_final=True and final_sigmas_type="zero". The default spacing for an
    ordinary schedule is "linspace"; every run ends at clean data, with a first-order step.
    """

    def tables(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        """See `Sampler.tables`."""
        _check_steps(schedule, num_inference_steps)
        spacing = self._spacing(schedule, default="linspace")
        # The other two spacings count the clean end of the run among the points that they space out.
        points = num_inference_steps + (spacing != "trailing")
        timesteps = spaced_timesteps(schedule.num_train_timesteps, points, spacing, self.steps_offset)
        timesteps = timesteps[:num_inference_steps]
        # Steps are measured in log SNR, so no signal at all is taken for the least that half precision holds.
        now = np.maximum(schedule.alphas_cumprod_float64[timesteps], 2.0**-24)
        tables = _tables(schedule, timesteps, prediction_type, now, np.append(now[1:], 1.0))

        log_snr = np.log(now / (1 - now)) / 2
        length = np.diff(log_snr)
        ratio = np.divide(length[1:], length[:-1], out=np.zeros_like(length[1:]), where=length[:-1] > 0)
        correction = np.zeros_like(now)  # none in the first step, nor in the last, which is infinitely long
        correction[1:-1] = ratio / 2
        return tables._replace(from_x0_change=np.float32(tables.from_x0 * correction))


SAMPLERS = {"ddim": DDIM, "dpm++": DPMSolverMultistep}


def get_sampler(name: str, **options) -> Sampler:
    """The sampler of that name, "ddim" or "dpm++", with the fields of its class as options.

    Raises:
        ValueError: unknown name; the message lists the choices.
    """
    if name not in SAMPLERS:
        raise UserError(f"unknown sampler {name!r}; choose one of: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](**options)


def spaced_timesteps(
    num_train_timesteps: int, points: int, spacing: str, steps_offset: int
) -> Int32[np.ndarray, " points"]:
    """Descending timesteps in 0 ... T - 1, spaced and rounded as in diffusers.

    Only "trailing" begins at T - 1 for every number of points; "leading" begins below it, and "linspace"
    runs from T - 1 to 0, both included.
    """
    if spacing == "linspace":
        timesteps = np.linspace(0, num_train_timesteps - 1, points).round()[::-1]
    elif spacing == "leading":
        timesteps = np.arange(points)[::-1] * max(1, num_train_timesteps // points) + steps_offset
    else:
        # Counted as diffusers counts, so that ties round alike; rounding may append a point below 0.
        timesteps = np.arange(num_train_timesteps, 0, -num_train_timesteps / points)[:points].round() - 1
    # The offset leads past the last timestep when (nearly) all are visited.
    return np.minimum(timesteps, num_train_timesteps - 1).astype(np.int32)


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


def sample(
    denoise: Denoiser,
    schedule: NoiseSchedule,
    sampler: Sampler,
    latents: Float[Array, " b *dims"],
    num_inference_steps: int,
    prediction_type: str,
    *,
    key: PRNGKeyArray | None = None,
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


def _check_steps(schedule: NoiseSchedule, num_inference_steps: int) -> None:
    if not 1 <= num_inference_steps <= schedule.num_train_timesteps:
        most = schedule.num_train_timesteps
        raise UserError(f"num_inference_steps must be between 1 and {most}, got {num_inference_steps}")


def _tables(
    schedule: NoiseSchedule,
    timesteps: Int32[np.ndarray, " n"],
    prediction_type: str,
    now: Float[np.ndarray, " n"],
    then: Float[np.ndarray, " n"],
    eta: float = 0.0,
) -> SamplerTables:
    """First-order steps from alpha_bar = `now` to `then`: x' = alpha' x0 + direction eps + std noise."""
    if prediction_type == "epsilon" and not schedule.alphas_cumprod_float64[timesteps].all():
        raise UserError(
            "prediction_type 'epsilon' cannot be sampled from a schedule with zero terminal SNR; "
            "use 'v_prediction' or 'sample', or a timestep_spacing that leaves the last timestep out"
        )
    alpha, sigma = np.sqrt(now), np.sqrt(1 - now)
    x0_from_latents, x0_from_output = x0_coefficients(prediction_type, alpha, sigma)
    std = eta * np.sqrt((1 - then) / (1 - now) * (1 - now / then))
    direction = np.sqrt(1 - then - std**2)
    columns = (
        x0_from_latents,
        x0_from_output,
        direction / sigma,  # eps = (x - alpha x0) / sigma
        np.sqrt(then) - alpha * direction / sigma,
        np.zeros_like(now),
        std,
    )
    return SamplerTables(timesteps, *(column.astype(np.float32) for column in columns))
