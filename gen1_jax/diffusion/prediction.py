"""What a denoiser may predict, and how one prediction follows from another.

With x_t = alpha x_0 + sigma eps a network may predict

    "epsilon"          the noise eps                       (https://arxiv.org/abs/2006.11239)
    "v_prediction"     v = alpha eps - sigma x_0           (https://arxiv.org/abs/2202.00512), of alpha² + sigma² = 1
    "flow_prediction"  the velocity dx/dt = eps - x_0      (https://arxiv.org/abs/2209.03003), of alpha + sigma = 1
    "sample"           the clean sample x_0

The names are those of diffusers. Each is linear in (x_t, prediction), and so are the conversions.
"""

from typing import Any

from jaxtyping import Array, Float

from gen1_jax.diffusion.broadcast import PerExample, per_example

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
"""Of variance-preserving schedules."""

FLOW_PREDICTION_TYPES = ("flow_prediction", "sample")
"""Of rectified flow."""


def x0_coefficients(prediction_type: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """The pair (k, m) for which x_0 = k x_t + m prediction.

    Args:
        prediction_type: one of `PREDICTION_TYPES` or `FLOW_PREDICTION_TYPES`, as in what follows.
        alpha: signal level, a number or an array (numpy or JAX) of any shape.
        sigma: noise level, as `alpha`.

    Returns:
        Two numbers or arrays like `alpha`. For "epsilon" they are infinite at alpha = 0: where no signal
        is left, the noise says nothing about x_0.

    Raises:
        ValueError: unknown prediction type.
    """
    if prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    if prediction_type == "flow_prediction":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if prediction_type == "sample":
        return 0 * alpha, 1 + 0 * alpha
    raise _unknown(prediction_type)


def epsilon_coefficients(prediction_type: str, alpha: Any, sigma: Any) -> tuple[Any, Any]:
    """The pair (k, m) for which eps = k x_t + m prediction; arguments as for `x0_coefficients`.

    For "sample" they are infinite at sigma = 0, where x_t holds no noise to be found.
    """
    if prediction_type == "epsilon":
        return 0 * alpha, 1 + 0 * alpha
    if prediction_type == "v_prediction":
        return sigma, alpha
    if prediction_type == "flow_prediction":
        return 1 / (alpha + sigma), alpha / (alpha + sigma)
    if prediction_type == "sample":
        return 1 / sigma, -alpha / sigma
    raise _unknown(prediction_type)


def to_x0_and_epsilon(
    prediction_type: str,
    prediction: Float[Array, " b *dims"],
    noisy: Float[Array, " b *dims"],
    alpha: PerExample,
    sigma: PerExample,
) -> tuple[Float[Array, " b *dims"], Float[Array, " b *dims"]]:
    """Reads a prediction as an estimate of the clean sample and of the noise.

    Args:
        prediction_type: see `x0_coefficients`.
        prediction: (B, ...) output of the denoiser.
        noisy: (B, ...) its input x_t.
        alpha: signal level of x_t, a scalar or (B,).
        sigma: noise level of x_t, a scalar or (B,).

    Returns:
        (x_0, eps), each (B, ...), at least float32, with alpha x_0 + sigma eps = x_t. At zero terminal
        SNR (alpha = 0) both are finite but for "epsilon", whose x_0 is not.

    Raises:
        ValueError: unknown prediction type.
    """
    alpha, sigma = per_example(alpha, noisy), per_example(sigma, noisy)
    x0_noisy, x0_prediction = x0_coefficients(prediction_type, alpha, sigma)
    eps_noisy, eps_prediction = epsilon_coefficients(prediction_type, alpha, sigma)
    return x0_noisy * noisy + x0_prediction * prediction, eps_noisy * noisy + eps_prediction * prediction


def training_target(
    prediction_type: str,
    x0: Float[Array, " b *dims"],
    epsilon: Float[Array, " b *dims"],
    alpha: PerExample,
    sigma: PerExample,
) -> Float[Array, " b *dims"]:
    """What the denoiser should answer at x_t = alpha x_0 + sigma eps.

    After `to_x0_and_epsilon` it turns a prediction of one type into another.

    Args:
        prediction_type: see `x0_coefficients`.
        x0: (B, ...) clean sample.
        epsilon: (B, ...) noise.
        alpha: signal level, a scalar or (B,).
        sigma: noise level, a scalar or (B,).

    Raises:
        ValueError: unknown prediction type.
    """
    if prediction_type == "epsilon":
        return epsilon
    if prediction_type == "v_prediction":
        return per_example(alpha, x0) * epsilon - per_example(sigma, x0) * x0
    if prediction_type == "flow_prediction":
        return epsilon - x0
    if prediction_type == "sample":
        return x0
    raise _unknown(prediction_type)


def _unknown(prediction_type: str) -> ValueError:
    known = tuple(dict.fromkeys(PREDICTION_TYPES + FLOW_PREDICTION_TYPES))
    return ValueError(f"prediction_type must be one of {known}, got {prediction_type!r}")
