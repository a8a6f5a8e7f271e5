"""What acts on the clean sample at each step of a sampler: from a denoiser to another.

Predictions of every type are affine in x_0, so that whatever changes the estimate of x_0 (a region that is known, a
frame that is fixed, what flows from one frame to the next) is a wrapper around the denoiser, the same for every solver.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from gen1_jax.diffusion.broadcast import per_example
from gen1_jax.diffusion.prediction import x0_coefficients
from gen1_jax.diffusion.samplers import Denoiser
from gen1_jax.diffusion.schedule import NoiseSchedule

ActOnX0 = Callable[[Float[Array, " b *dims"], Int32[Array, " b"]], Float[Array, " b *dims"]]
"""(estimate of x_0 (B, ...), timesteps (B,)) -> another estimate of x_0 (B, ...)."""


def acting_on_x0(denoise: Denoiser, schedule: NoiseSchedule, prediction_type: str, act: ActOnX0) -> Denoiser:
    """A denoiser whose prediction is that of `denoise` after `act` has changed the x_0 that it means.

    Args:
        denoise: predicts `prediction_type`.
        schedule: of the timesteps that it is told; the first of an "epsilon" prediction must hold some signal.
        prediction_type: see `PREDICTION_TYPES`.
        act: what happens to x_0.
    """

    def wrapped(latents: Float[Array, " b *dims"], timesteps: Int32[Array, " b"]) -> Float[Array, " b *dims"]:
        alpha, sigma = (per_example(level, latents) for level in schedule.alpha_sigma(timesteps))
        from_latents, from_prediction = x0_coefficients(prediction_type, alpha, sigma)
        prediction = denoise(latents, timesteps)
        x0 = from_latents * latents + from_prediction * prediction
        acted = act(x0, timesteps)
        # What is left alone stays as it was predicted, not but for the rounding of there and back.
        return jnp.where(acted == x0, prediction, (acted - from_latents * latents) / from_prediction)

    return wrapped


def keeping(known: Float[Array, " b *dims"], mask: Float[Array, "..."]) -> ActOnX0:
    """x_0 is `known` where the mask is 1, the model's where it is 0, and between them between.

    Args:
        known: (B, ...) clean latents.
        mask: in [0, 1], of a shape that broadcasts to `known`.
    """
    return lambda x0, timesteps: x0 + jnp.asarray(mask, x0.dtype) * (known - x0)


def changing(
    known: Float[Array, " b *dims"], change: Float[Array, "..."], num_train_timesteps: int, first: int = 0
) -> ActOnX0:
    """x_0 is `known` where nothing may change, the model's where everything may.

    Between 0 and 1 it is known until the noise has fallen so far: at timestep t, counted from the first, what is free
    is where change > t / T.
    Of a sampler's own noise, known regions follow their own path exactly, so that they can be let go at any step.

    Source: https://arxiv.org/abs/2306.00950, section 4 (differential diffusion), on x_0 in place of the latents.

    Args:
        known: (B, ...) clean latents.
        change: in [0, 1], of a shape that broadcasts to `known`: how strongly a place may be changed.
        num_train_timesteps: T of the schedule.
        first: its first timestep, see `NoiseSchedule.timesteps`.
    """

    def act(x0: Float[Array, " b *dims"], timesteps: Int32[Array, " b"]) -> Float[Array, " b *dims"]:
        free = change > per_example((timesteps - first) / num_train_timesteps, x0)
        return jnp.where(free, x0, known)

    return act
