"""DDIM, of first order."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from gen1_jax.diffusion.samplers.linear import first_order
from gen1_jax.diffusion.samplers.loop import SamplerTables
from gen1_jax.diffusion.samplers.spacing import SpacedSampler, spaced_timesteps
from gen1_jax.diffusion.schedule import Levels, NoiseSchedule
from gen1_jax.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DDIM(SpacedSampler):
    """Denoising diffusion implicit models (https://arxiv.org/abs/2010.02502, equations 12 and 16).

    Equal to diffusers' DDIMScheduler without clipping, wherever that steps to the next timestep it visits.
    (It steps by T // N: not the next timestep for "linspace", nor for "trailing" if N does not divide T.)

    Attributes:
        timestep_spacing: as for every spaced sampler; the default for an ordinary schedule is "leading".
        steps_offset: added to "leading" timesteps.
        eta: from 0, deterministic, to 1, ancestral sampling. Above 0, `init` needs a key.
        set_alpha_to_one: whether the last step ends at clean data rather than at the level of timestep 0;
            None for the schedule's.
    """

    eta: float = 0.0
    set_alpha_to_one: bool | None = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must be between 0 and 1, got {self.eta}")

    @property
    def draws_noise(self) -> bool:
        """See `LinearSampler.draws_noise`."""
        return self.eta > 0

    def _whole_run(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        spacing = self._spacing(schedule, default="leading")
        timesteps = spaced_timesteps(schedule.num_train_timesteps, num_inference_steps, spacing, self.steps_offset)
        alphas_cumprod = schedule.alphas_cumprod_float64
        now = alphas_cumprod[timesteps]
        clean = schedule.set_alpha_to_one if self.set_alpha_to_one is None else self.set_alpha_to_one
        then = np.append(now[1:], 1.0 if clean else alphas_cumprod[0])
        fresh = self.eta * np.sqrt((1 - then) / (1 - now) * (1 - now / then)) if self.eta else np.zeros_like(now)
        kept = np.sqrt(np.maximum(1 - then - fresh**2, 0))  # of eta = 1 from noise alone 0, but for rounding
        levels = Levels.of_alpha_bar(now), Levels(np.sqrt(then), kept)
        return first_order(schedule, timesteps, prediction_type, *levels, fresh)


def ddim_inversion(schedule: NoiseSchedule, timesteps: Int32[np.ndarray, " n"], prediction_type: str) -> SamplerTables:
    """Ascending tables: from clean data to the noise that DDIM would take back to it, by the steps of a run.

    x_{t+} = alpha_{t+} x0(x_t, t) + sigma_{t+} eps(x_t, t): each step asks the network at the noise that it begins at,
    clean data at that of the first timestep. As a step down asks at its noisier end, there and back is exact to first
    order in the size of the steps. (diffusers' DDIMInverseScheduler tells the network the timestep where it ends.)
    Along the path of rectified flow these are steps of Euler's method.

    Source: https://arxiv.org/abs/2010.02502, section 5.4 (reconstruction from latent space).

    Args:
        schedule: of the timesteps.
        timesteps: of the run that goes down, descending, t_0 first; this one ends at t_0.
        prediction_type: see `PREDICTION_TYPES`.

    Returns:
        As many rows as timesteps, ascending from the schedule's first; no noise is drawn along them.

    Raises:
        ValueError: an unknown prediction type.
    """
    visited = np.append(schedule.timesteps[0], timesteps[::-1]).astype(np.int32)
    levels = (schedule.levels.at(part) for part in (visited[:-1], visited[1:]))
    return first_order(schedule, visited[:-1], prediction_type, *levels)
