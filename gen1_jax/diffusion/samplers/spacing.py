"""Which timesteps a run of any number of steps visits."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from gen1_jax.diffusion.samplers.linear import LinearSampler, check_schedule, check_strength
from gen1_jax.diffusion.samplers.loop import SamplerTables
from gen1_jax.diffusion.schedule import NoiseSchedule
from gen1_jax.errors import UserError

TIMESTEP_SPACINGS = ("leading", "trailing", "linspace")


def steps_within(start: float, end: float, steps: int) -> range:
    """The steps i of N within a part of a run, 0 <= start < end <= 1: start <= i / N and (i + 1) / N <= end."""
    return range(
        next(i for i in range(steps + 1) if i / steps >= start),
        next(i for i in range(steps, -1, -1) if i / steps <= end),
    )


@dataclass(frozen=True, kw_only=True)
class WholeRunSampler(LinearSampler):
    """Samplers whose steps go over the whole schedule, so that a part of a run is its last steps."""

    def tables(
        self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str, strength: float = 1.0
    ) -> SamplerTables:
        """See `Sampler.tables`; of a strength s the last floor(s N) of N steps, as in diffusers' img2img."""
        check_schedule(self, schedule)
        if not 1 <= num_inference_steps <= schedule.num_train_timesteps:
            most = schedule.num_train_timesteps
            raise UserError(f"num_inference_steps must be between 1 and {most}, got {num_inference_steps}")
        check_strength(strength)
        if not (run := int(num_inference_steps * strength)):
            raise UserError(
                f"strength {strength} of num_inference_steps {num_inference_steps} leaves no step: give more of either"
            )
        whole = self._whole_run(schedule, num_inference_steps, prediction_type)
        return SamplerTables(*(column[-run:] for column in whole))

    @abstractmethod
    def _whole_run(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        """The tables of all N steps."""


@dataclass(frozen=True, kw_only=True)
class SpacedSampler(WholeRunSampler):
    """Samplers whose timesteps may be spaced in several ways.

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

    def _spacing(self, schedule: NoiseSchedule, default: str) -> str:
        return self.timestep_spacing or ("trailing" if schedule.rescale_zero_terminal_snr else default)


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
