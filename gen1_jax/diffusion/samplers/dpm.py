"""DPM-Solver++(2M), of second order."""

from dataclasses import dataclass

import numpy as np

from gen1_jax.diffusion.samplers.linear import first_order
from gen1_jax.diffusion.samplers.loop import SamplerTables
from gen1_jax.diffusion.samplers.spacing import SpacedSampler, spaced_timesteps
from gen1_jax.diffusion.schedule import Levels, NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class DPMSolverMultistep(SpacedSampler):
    """DPM-Solver++(2M), a second-order solver in x_0 (https://arxiv.org/abs/2211.01095, algorithm 2).

    Equal to diffusers' DPMSolverMultistepScheduler with algorithm_type="dpmsolver++", solver_order=2,
    solver_type="midpoint", lower_order_final=True and final_sigmas_type="zero". The default spacing for an
    ordinary schedule is "linspace"; every run ends at clean data, with a first-order step.
    """

    def _whole_run(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        spacing = self._spacing(schedule, default="linspace")
        # The other two spacings count the clean end of the run among the points that they space out.
        points = num_inference_steps + (spacing != "trailing")
        timesteps = spaced_timesteps(schedule.num_train_timesteps, points, spacing, self.steps_offset)
        timesteps = timesteps[:num_inference_steps]
        # Steps are measured in log SNR, so no signal at all is taken for the least that half precision holds.
        now = np.maximum(schedule.alphas_cumprod_float64[timesteps], 2.0**-24)
        levels = (Levels.of_alpha_bar(alpha_bar) for alpha_bar in (now, np.append(now[1:], 1.0)))
        tables = first_order(schedule, timesteps, prediction_type, *levels)

        log_snr = np.log(now / (1 - now)) / 2
        length = np.diff(log_snr)
        ratio = np.divide(length[1:], length[:-1], out=np.zeros_like(length[1:]), where=length[:-1] > 0)
        correction = np.zeros_like(now)  # none in the first step, nor in the last, which is infinitely long
        correction[1:-1] = ratio / 2
        return tables._replace(from_x0_change=np.float32(tables.from_x0 * correction))
