"""From noise to a sample: solvers as tables of coefficients, and the loop over them.

Every step of every solver is linear in what it knows: the latents x, the denoiser's output, the x_0 that
the step before estimated, and fresh noise. All that tells solvers apart is therefore a table with one row a
step, computed once in float64; the step itself is one short function, the same for all.

    loop         tables, state, the protocol, and the loop
    linear       the step, and what solvers share
    ddim, dpm    any number of steps
    consistency  LCM and TCD: few steps, of models that were distilled for them
    flow         Euler's and the midpoint method, for rectified flow
"""

from gen1_jax.diffusion.samplers.consistency import LCM, TCD
from gen1_jax.diffusion.samplers.ddim import DDIM, ddim_inversion
from gen1_jax.diffusion.samplers.dpm import DPMSolverMultistep
from gen1_jax.diffusion.samplers.flow import Euler, Midpoint
from gen1_jax.diffusion.samplers.loop import (
    Denoiser,
    Sampler,
    SamplerState,
    SamplerTables,
    noised_start,
    run_steps,
    sample,
)
from gen1_jax.diffusion.samplers.spacing import TIMESTEP_SPACINGS, spaced_timesteps, steps_within
from gen1_jax.diffusion.schedule import NoiseSchedule
from gen1_jax.errors import UserError

SAMPLERS = {"ddim": DDIM, "dpm++": DPMSolverMultistep, "lcm": LCM, "tcd": TCD}
"""For variance-preserving schedules."""

FLOW_SAMPLERS = {"euler": Euler, "midpoint": Midpoint}
"""For rectified flow."""


def samplers_of(schedule: NoiseSchedule) -> dict[str, type[Sampler]]:
    """The samplers for a schedule, by name."""
    return FLOW_SAMPLERS if schedule.use_flow_sigmas else SAMPLERS


def default_sampler(schedule: NoiseSchedule) -> str:
    """The one that every model of a schedule can use, deterministic and of first order: "ddim" or "euler"."""
    return next(iter(samplers_of(schedule)))


def get_sampler(name: str, schedule: NoiseSchedule | None = None, **options) -> Sampler:
    """The sampler of that name for a schedule, with the fields of its class as options.

    Args:
        name: of `samplers_of`.
        schedule: whose it is to be; which of its kind does not matter. None for one that preserves variance.
        options: see the class.

    Raises:
        ValueError: unknown name, or one for other schedules; the message lists the choices.
    """
    known, others, kind = SAMPLERS, FLOW_SAMPLERS, "rectified flow"
    if schedule is not None and schedule.use_flow_sigmas:
        known, others, kind = FLOW_SAMPLERS, SAMPLERS, "variance-preserving schedules"
    if name not in known:
        hint = f" ({name} is for {kind}, which this is not)" if name in others else ""
        raise UserError(f"unknown sampler {name!r}; choose one of: {', '.join(known)}{hint}")
    return known[name](**options)


__all__ = [
    "DDIM",
    "FLOW_SAMPLERS",
    "LCM",
    "SAMPLERS",
    "TCD",
    "TIMESTEP_SPACINGS",
    "DPMSolverMultistep",
    "Denoiser",
    "Euler",
    "Midpoint",
    "Sampler",
    "SamplerState",
    "SamplerTables",
    "ddim_inversion",
    "default_sampler",
    "get_sampler",
    "noised_start",
    "run_steps",
    "sample",
    "samplers_of",
    "spaced_timesteps",
    "steps_within",
]
