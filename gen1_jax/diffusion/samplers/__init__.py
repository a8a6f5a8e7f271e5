"""From noise to a sample: solvers as tables of coefficients, and the loop over them.

Every step of every solver is linear in what it knows: the latents x, the denoiser's output, the x_0 that
the step before estimated, and fresh noise. All that tells solvers apart is therefore a table with one row a
step, computed once in float64; the step itself is one short function, the same for all.

    loop         tables, state, the protocol, and the loop
    linear       the step, and what solvers share
    ddim, dpm    any number of steps
    consistency  LCM and TCD: few steps, of models that were distilled for them
"""

from gen1_jax.diffusion.samplers.consistency import LCM, TCD
from gen1_jax.diffusion.samplers.ddim import DDIM, ddim_inversion
from gen1_jax.diffusion.samplers.dpm import DPMSolverMultistep
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
from gen1_jax.errors import UserError

SAMPLERS = {"ddim": DDIM, "dpm++": DPMSolverMultistep, "lcm": LCM, "tcd": TCD}


def get_sampler(name: str, **options) -> Sampler:
    """The sampler of that name, a key of `SAMPLERS`, with the fields of its class as options.

    Raises:
        ValueError: unknown name; the message lists the choices.
    """
    if name not in SAMPLERS:
        raise UserError(f"unknown sampler {name!r}; choose one of: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](**options)


__all__ = [
    "DDIM",
    "LCM",
    "SAMPLERS",
    "TCD",
    "TIMESTEP_SPACINGS",
    "DPMSolverMultistep",
    "Denoiser",
    "Sampler",
    "SamplerState",
    "SamplerTables",
    "ddim_inversion",
    "get_sampler",
    "noised_start",
    "run_steps",
    "sample",
    "spaced_timesteps",
    "steps_within",
]
