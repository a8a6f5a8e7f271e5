"""Solvers of rectified flow, dx/dt = u(x, t) from noise (t = 1) to clean data (t = 0): Euler's and the midpoint method.

Where x_0 is what the velocity means, x - t u, a step of Euler's from t to t' keeps t' / t of x and takes the rest of
x_0: the first-order step between the levels of the straight path.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int32

from gen1_jax.diffusion.samplers.linear import first_order
from gen1_jax.diffusion.samplers.loop import SamplerTables
from gen1_jax.diffusion.samplers.spacing import WholeRunSampler
from gen1_jax.diffusion.schedule import NoiseSchedule, shifted


@dataclass(frozen=True, kw_only=True)
class Euler(WholeRunSampler):
    """Euler's method, of first order: N equal steps, moved by the schedule's `flow_shift`.

    Equal to diffusers' FlowMatchEulerDiscreteScheduler that is given the times 1, 1 - 1 / N, ..., 1 / N, wherever T
    times these are whole numbers; elsewhere this one goes to the nearest timestep.
    """

    of_flow: ClassVar[bool] = True

    def _whole_run(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        visited = _timesteps(schedule, np.arange(num_inference_steps, 0, -1) / num_inference_steps)
        return _between(schedule, visited, prediction_type)


@dataclass(frozen=True, kw_only=True)
class Midpoint(WholeRunSampler):
    """The explicit midpoint method, of second order: each step is taken with the velocity at its middle.

    N counts evaluations of the denoiser. Two of them are a step, which is twice as long as one of Euler's; of an odd N
    the last is a step of Euler's. A part of a run that begins in the middle of a step ends that step by Euler's method.
    """

    of_flow: ClassVar[bool] = True

    def _whole_run(self, schedule: NoiseSchedule, num_inference_steps: int, prediction_type: str) -> SamplerTables:
        visited = _timesteps(schedule, np.arange(num_inference_steps, 0, -1) / num_inference_steps)
        ends = np.append(visited[2::2], 0)[: num_inference_steps // 2]  # of whole steps, which begin at visited[:-1:2]
        visited[1::2] = np.maximum((visited[:-1:2] + ends) // 2, 1)
        tables = _between(schedule, visited, prediction_type)

        # The row before went from t_0 to t_1, the middle, along u_0; this one goes on to t_2 along u_1. Had all been
        # along u_1, x would be (t_0 - t_1) (u_0 - u_1) further, and t_1 (u_0 - u_1) is the change of x_0. Where the
        # middle was rounded, second order needs some of u_0 to stay: `length` is t_0 - t_2 where it was not.
        t_0, t_1, t_2 = (schedule.levels.sigma[t] for t in (visited[:-1:2], visited[1::2], ends))
        length = np.divide((t_0 - t_2) ** 2, 2 * (t_0 - t_1), out=np.zeros_like(t_0), where=t_0 > t_1)
        correction = np.zeros(len(visited), np.float32)
        correction[1::2] = np.where(t_0 > t_1, (length - (t_1 - t_2)) / t_1, 0)
        return tables._replace(from_x0_change=correction)


def _timesteps(schedule: NoiseSchedule, times: np.ndarray) -> Int32[np.ndarray, " n"]:
    """The timesteps nearest to times of the straight path, in (0, 1], after the schedule's shift."""
    total = schedule.num_train_timesteps
    return np.maximum(np.round(total * shifted(times, schedule.flow_shift)), 1).astype(np.int32)


def _between(schedule: NoiseSchedule, visited: Int32[np.ndarray, " n"], prediction_type: str) -> SamplerTables:
    """Steps of Euler's from each timestep to the next, the last to clean data."""
    levels = (schedule.levels.at(timesteps) for timesteps in (visited, np.append(visited[1:], 0)))
    return first_order(schedule, visited, prediction_type, *levels)
