import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import NoiseSchedule, denoising_loss, loss_weights, training_target

# SNR 0.25, 1, 4, 9 and 99, the last two above gamma = 5
ALPHA_BAR = jnp.array([0.2, 0.5, 0.8, 0.9, 0.99])


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [
        ("sample", [0.25, 1, 4, 5, 5]),
        ("epsilon", [1, 1, 1, 5 / 9, 5 / 99]),
        ("v_prediction", [0.25 / 1.25, 1 / 2, 4 / 5, 5 / 10, 5 / 100]),
    ],
)
def test_min_snr_weights_by_hand(prediction_type, expected):
    weights = loss_weights(ALPHA_BAR, prediction_type=prediction_type, weighting="min_snr", gamma=5.0)
    np.testing.assert_allclose(weights, expected, rtol=1e-4)


@pytest.mark.parametrize(("prediction_type", "at_zero"), [("sample", 0), ("epsilon", 1), ("v_prediction", 0)])
def test_min_snr_weights_are_finite_at_zero_terminal_snr(prediction_type, at_zero):
    alpha_bar = NoiseSchedule(rescale_zero_terminal_snr=True).alpha_bar(jnp.array([0, 999]))
    weights = loss_weights(alpha_bar, prediction_type=prediction_type, weighting="min_snr")
    assert np.isfinite(weights).all()
    assert weights[1] == at_zero


@pytest.mark.parametrize("weighting", ["min_snr"])
def test_min_snr_measures_the_same_error_whatever_is_predicted(weighting):
    """The same wrong x_0, said as x_0, eps or v, costs the same: that is what the three weights are for."""
    rng = np.random.default_rng(0)
    x0, error, noisy = jnp.float32(rng.normal(size=(3, 5, 4, 3)))
    alpha, sigma = jnp.sqrt(ALPHA_BAR), jnp.sqrt(1 - ALPHA_BAR)

    def loss(prediction_type):
        def said(x0):
            epsilon = (noisy - alpha[:, None, None] * x0) / sigma[:, None, None]
            return training_target(prediction_type, x0, epsilon, alpha, sigma)

        options = dict(prediction_type=prediction_type, weighting=weighting)
        return denoising_loss(said(x0 + error), said(x0), ALPHA_BAR, **options)

    np.testing.assert_allclose(loss("v_prediction"), loss("sample"), rtol=1e-3)
    np.testing.assert_allclose(loss("epsilon"), loss("sample"), rtol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_uniform_loss_is_the_mean_square_of_each_example(dtype):
    prediction = jnp.stack([jnp.full((2, 8, 8, 4), 1.0), jnp.full((2, 8, 8, 4), 3.0)]).astype(dtype)
    loss = denoising_loss(prediction, jnp.zeros_like(prediction), ALPHA_BAR[:2], prediction_type="epsilon")
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, [1, 9])


def test_half_precision_is_compared_in_full():
    """1 - 2^-9 has no bfloat16: taken there, the difference would be 1."""
    prediction, target = jnp.ones((1, 8), jnp.bfloat16), jnp.full((1, 8), 2**-9, jnp.bfloat16)
    loss = denoising_loss(prediction, target, ALPHA_BAR[:1], prediction_type="sample")
    np.testing.assert_allclose(loss, (1 - 2**-9) ** 2, rtol=1e-6)


def test_gradient_is_finite_under_every_weighting():
    def total(prediction, prediction_type):
        alpha_bar = jnp.array([0.0, 0.999])
        options = dict(prediction_type=prediction_type, weighting="min_snr")
        return denoising_loss(prediction, jnp.zeros((2, 3)), alpha_bar, **options).sum()

    for prediction_type in ("epsilon", "v_prediction", "sample"):
        assert np.isfinite(jax.grad(total)(jnp.ones((2, 3)), prediction_type)).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("weighting", {"weighting": "snr"}),
        ("prediction_type", {"prediction_type": "v"}),
        ("gamma", {"gamma": 0.0}),
        ("gamma", {"gamma": float("nan")}),
    ],
)
def test_a_wrong_option_is_named(name, options):
    with pytest.raises(ValueError, match=name):
        loss_weights(ALPHA_BAR, **{"prediction_type": "epsilon", "weighting": "min_snr"} | options)
