"""The denoising loss and its weighting over noise levels."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gen1_jax.diffusion.prediction import FLOW_PREDICTION_TYPES, PREDICTION_TYPES
from gen1_jax.errors import UserError

WEIGHTINGS = ("uniform", "min_snr")


def denoising_loss(
    prediction: Float[Array, " b *dims"],
    target: Float[Array, " b *dims"],
    alpha_bar: Float[Array, " b"],
    *,
    prediction_type: str,
    weighting: str = "uniform",
    gamma: float = 5.0,
) -> Float[Array, " b"]:
    """Weighted mean squared error of each example, in float32.

    Args:
        prediction: (B, ...) output of the denoiser.
        target: (B, ...) `training_target` of the same prediction type.
        alpha_bar: (B,) `NoiseSchedule.alpha_bar` of the timesteps.
        prediction_type: what `prediction` is; "min_snr" weights depend on it.
        weighting: "uniform" or "min_snr".
        gamma: where "min_snr" clips the signal-to-noise ratio.

    Returns:
        (B,) the mean over every axis but the first, times `loss_weights`; not averaged over the batch.

    Raises:
        ValueError: unknown weighting or prediction type, or a gamma that is not positive.
    """
    weights = loss_weights(alpha_bar, prediction_type=prediction_type, weighting=weighting, gamma=gamma)
    error = prediction.astype(jnp.float32) - target.astype(jnp.float32)
    return weights * jnp.mean(jnp.square(error), axis=range(1, error.ndim))


def loss_weights(
    alpha_bar: Float[Array, " b"], *, prediction_type: str, weighting: str = "uniform", gamma: float = 5.0
) -> Float[Array, " b"]:
    """The weight of each example's squared error; arguments as for `denoising_loss`.

    "min_snr" (https://arxiv.org/abs/2303.09556) weighs the error of x_0 by min(SNR, gamma), where
    SNR = alpha_bar / (1 - alpha_bar). An error of eps is that of x_0 times SNR, an error of v that of x_0
    times SNR + 1, one of the velocity eps - x_0 times (1 + sqrt(SNR))², by which min(SNR, gamma) is divided. Under zero
    terminal SNR the last timestep therefore has weight 0 but for "epsilon".
    """
    if weighting not in WEIGHTINGS:
        raise UserError(f"weighting must be one of {WEIGHTINGS}, got {weighting!r}")
    if prediction_type not in (known := tuple(dict.fromkeys(PREDICTION_TYPES + FLOW_PREDICTION_TYPES))):
        raise UserError(f"prediction_type must be one of {known}, got {prediction_type!r}")
    if not gamma > 0:
        raise UserError(f"gamma must be positive, got {gamma}")
    signal = alpha_bar.astype(jnp.float32)
    noise = 1 - signal
    if weighting == "uniform":
        return jnp.ones_like(signal)
    if prediction_type == "epsilon":
        return jnp.minimum(1.0, gamma * noise / signal)  # 1 in the limit of no signal
    if prediction_type == "v_prediction":
        return jnp.minimum(signal, gamma * noise)  # SNR + 1 = 1 / noise
    if prediction_type == "flow_prediction":
        return jnp.minimum(signal, gamma * noise) / jnp.square(jnp.sqrt(signal) + jnp.sqrt(noise))
    return jnp.minimum(signal / noise, gamma)
