"""The mathematics of diffusion. It sees a model only as a callable.

    noise ──► x_T ─┬────────────────────► step ──► x_{T-1} ──► ... ──► x_0
                   │                       ▲  ▲
                   ▼                       │  └── tables (schedule, sampler, prediction type)
              denoise(x_t, t) ─► guidance ─┘      one row a step, computed once

`NoiseSchedule` says how noisy each timestep is (variance-preserving, or rectified flow's straight path),
`TimestepDensity` how often training sees it, `training_target` and `denoising_loss` what a denoiser
learns, a `Sampler` turns schedule and prediction type into a table and steps along it, `temporal_guidance`
combines the predictions of one step, and `run_steps` is the loop.
"""

from gen1_jax.diffusion.density import TimestepDensity
from gen1_jax.diffusion.guidance import (
    Conditions,
    Guidance,
    branch_weights,
    guidance_runs,
    guided_denoiser,
    temporal_guidance,
)
from gen1_jax.diffusion.losses import WEIGHTINGS, denoising_loss, loss_weights
from gen1_jax.diffusion.prediction import (
    FLOW_PREDICTION_TYPES,
    PREDICTION_TYPES,
    to_x0_and_epsilon,
    training_target,
)
from gen1_jax.diffusion.samplers import (
    DDIM,
    FLOW_SAMPLERS,
    LCM,
    SAMPLERS,
    TCD,
    Denoiser,
    DPMSolverMultistep,
    Euler,
    Midpoint,
    Sampler,
    SamplerState,
    SamplerTables,
    ddim_inversion,
    default_sampler,
    get_sampler,
    noised_start,
    run_steps,
    sample,
    samplers_of,
    steps_within,
)
from gen1_jax.diffusion.schedule import Levels, NoiseSchedule

__all__ = [
    "DDIM",
    "FLOW_PREDICTION_TYPES",
    "FLOW_SAMPLERS",
    "LCM",
    "PREDICTION_TYPES",
    "SAMPLERS",
    "TCD",
    "WEIGHTINGS",
    "Conditions",
    "DPMSolverMultistep",
    "Denoiser",
    "Euler",
    "Guidance",
    "Levels",
    "Midpoint",
    "NoiseSchedule",
    "Sampler",
    "SamplerState",
    "SamplerTables",
    "TimestepDensity",
    "branch_weights",
    "ddim_inversion",
    "default_sampler",
    "denoising_loss",
    "get_sampler",
    "guidance_runs",
    "guided_denoiser",
    "loss_weights",
    "noised_start",
    "run_steps",
    "sample",
    "samplers_of",
    "steps_within",
    "temporal_guidance",
    "to_x0_and_epsilon",
    "training_target",
]
