"""Solvers of few steps, for models (or LoRAs of them) that were distilled to jump along a trajectory: LCM and TCD.

Such a model has learned to answer at some timesteps only, the candidates; a run of few steps visits some of these.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from gen1_jax.diffusion.samplers.linear import LinearSampler, assembled, check_schedule, check_strength, first_order
from gen1_jax.diffusion.samplers.loop import SamplerTables
from gen1_jax.diffusion.schedule import Levels, NoiseSchedule
from gen1_jax.errors import UserError

_DATA_VARIANCE = 0.25  # of clean data, as the coefficients of consistency models take it to be


@dataclass(frozen=True, kw_only=True)
class _ConsistencySampler(LinearSampler):
    """What LCM and TCD share.

    Attributes:
        original_steps: number of candidates, T // original_steps apart; 50 for the public checkpoints, 100 in
            AnimateLCM's own code. A run has at most as many steps.
    """

    original_steps: int = 50

    def __post_init__(self):
        if self.original_steps < 1:
            raise UserError(f"original_steps must be at least 1, got {self.original_steps}")

    def candidates(self, schedule: NoiseSchedule) -> Int32[np.ndarray, " n"]:
        """The timesteps at which such a model answers, descending from the last of the schedule."""
        total = schedule.num_train_timesteps
        if self.original_steps > total:
            raise UserError(f"original_steps is {self.original_steps}, but the schedule has {total} timesteps")
        return (np.arange(self.original_steps, 0, -1) * (total // self.original_steps) - 1).astype(np.int32)

    def _timesteps(self, schedule: NoiseSchedule, num_inference_steps: int, strength: float) -> Int32[np.ndarray, " n"]:
        """N of the candidates, descending, evenly by index; of a strength s, of the floor(s original_steps) lowest."""
        check_schedule(self, schedule)
        check_strength(strength)
        count = int(self.original_steps * strength)
        if not 1 <= num_inference_steps <= count:
            if not count:
                raise UserError(f"strength {strength} of original_steps {self.original_steps} leaves no step")
            at = "" if strength == 1 else f" at strength {strength}"
            raise UserError(f"num_inference_steps must be between 1 and {count}{at}, got {num_inference_steps}")
        candidates = self.candidates(schedule)[self.original_steps - count :]
        chosen = np.floor(np.linspace(0, count, num_inference_steps, endpoint=False)).astype(int)
        return candidates[chosen]


@dataclass(frozen=True, kw_only=True)
class LCM(_ConsistencySampler):
    """Multistep sampling of latent consistency models (https://arxiv.org/abs/2310.04378).

    Each step estimates clean data and draws noise anew at the next timestep; the last one keeps the estimate. Equal
    to diffusers' LCMScheduler without clipping. `init` needs a key.

    Attributes:
        original_steps: see `_ConsistencySampler`.
        timestep_scaling: of t in the coefficients that make the estimate equal to x_t at t = 0.
    """

    timestep_scaling: float = 10.0

    @property
    def draws_noise(self) -> bool:
        """See `LinearSampler.draws_noise`."""
        return True

    def boundary(self, timesteps: Any) -> tuple[Any, Any]:
        """(c_skip, c_out) at timesteps of numpy or JAX: the estimate is c_skip x_t + c_out x_0, and x_t at t = 0."""
        time = self.timestep_scaling * timesteps
        return _DATA_VARIANCE / (time**2 + _DATA_VARIANCE), time / (time**2 + _DATA_VARIANCE) ** 0.5

    def tables(
        self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str, strength: float = 1.0
    ) -> SamplerTables:
        """See `Sampler.tables`; a strength leaves N steps, closer to each other."""
        timesteps = self._timesteps(schedule, num_inference_steps, strength)
        now = schedule.alphas_cumprod_float64[timesteps]
        then = np.append(now[1:], 1.0)
        skip, out = self.boundary(timesteps)
        return assembled(
            schedule,
            timesteps,
            prediction_type,
            Levels.of_alpha_bar(now),
            from_latents=np.sqrt(then) * skip,
            from_x0=np.sqrt(then) * out,
            from_noise=np.sqrt(1 - then),
        )


@dataclass(frozen=True, kw_only=True)
class TCD(_ConsistencySampler):
    """Strategic stochastic sampling of trajectory consistency models (https://arxiv.org/abs/2402.19159).

    Each step goes by DDIM to a timestep s below the next one and comes back up to that by drawing noise. Equal to
    diffusers' TCDScheduler without clipping, where gamma is the `eta` of its steps.

    Attributes:
        original_steps: see `_ConsistencySampler`.
        gamma: how far below: s = floor((1 - gamma) next timestep). From 0, deterministic, to 1. Above 0, `init`
            needs a key.
    """

    gamma: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.gamma <= 1:
            raise UserError(f"gamma must be between 0 and 1, got {self.gamma}")

    @property
    def draws_noise(self) -> bool:
        """See `LinearSampler.draws_noise`."""
        return self.gamma > 0

    def tables(
        self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str, strength: float = 1.0
    ) -> SamplerTables:
        """See `Sampler.tables`; a strength leaves N steps, closer to each other."""
        timesteps = self._timesteps(schedule, num_inference_steps, strength)
        following = np.append(timesteps[1:], 0)
        below = np.floor((1 - self.gamma) * following).astype(int)
        now, then, low = (schedule.alphas_cumprod_float64[t] for t in (timesteps, following, below))
        levels = (Levels.of_alpha_bar(alpha_bar) for alpha_bar in (now, low))
        tables = first_order(schedule, timesteps, prediction_type, *levels)
        return tables._replace(
            from_latents=np.float32(np.sqrt(then / low) * tables.from_latents),
            from_x0=np.float32(np.sqrt(then / low) * tables.from_x0),
            from_noise=np.float32(np.sqrt(1 - then / low)),
        )
