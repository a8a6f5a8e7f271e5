"""The mathematics of diffusion. It sees a model only as a callable.

    noise ──► x_T ─┬────────────────────► step ──► x_{T-1} ──► ... ──► x_0
                   │                       ▲  ▲
                   ▼                       │  └── tables (schedule, sampler, prediction type)
              denoise(x_t, t) ─► guidance ─┘      one row a step, computed once

`NoiseSchedule` says how noisy each timestep is, `training_target` and `denoising_loss` what a denoiser
learns, a `Sampler` turns schedule and prediction type into a table and steps along it, `temporal_guidance`
combines the predictions of one step, and `run_steps` is the loop.
"""

from gen1_jax.diffusion.guidance import (
    Conditions,
    Guidance,
    branch_weights,
    guidance_runs,
    guided_denoiser,
    temporal_guidance,
)
from gen1_jax.diffusion.losses import WEIGHTINGS, denoising_loss, loss_weights
from gen1_jax.diffusion.prediction import PREDICTION_TYPES, to_x0_and_epsilon, training_target
from gen1_jax.diffusion.samplers import (
    DDIM,
    LCM,
    SAMPLERS,
    TCD,
    Denoiser,
    DPMSolverMultistep,
    Sampler,
    SamplerState,
    SamplerTables,
    ddim_inversion,
    get_sampler,
    noised_start,
    run_steps,
    sample,
    steps_within,
)
from gen1_jax.diffusion.schedule import NoiseSchedule

__all__ = [
    "DDIM",
    "LCM",
    "PREDICTION_TYPES",
    "SAMPLERS",
    "TCD",
    "WEIGHTINGS",
    "Conditions",
    "DPMSolverMultistep",
    "Denoiser",
    "Guidance",
    "NoiseSchedule",
    "Sampler",
    "SamplerState",
    "SamplerTables",
    "branch_weights",
    "ddim_inversion",
    "denoising_loss",
    "get_sampler",
    "guidance_runs",
    "guided_denoiser",
    "loss_weights",
    "noised_start",
    "run_steps",
    "sample",
    "steps_within",
    "temporal_guidance",
    "to_x0_and_epsilon",
    "training_target",
]
