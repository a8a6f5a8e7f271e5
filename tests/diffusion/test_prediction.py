import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen1_jax.diffusion import PREDICTION_TYPES, to_x0_and_epsilon, training_target

seeds = st.integers(0, 2**31)
angles = st.lists(st.floats(0.02, np.pi / 2 - 0.02), min_size=3, max_size=3)  # alpha = cos, sigma = sin


def draw(seed, angle, shape=(3, 2, 4)):
    """(x_0, eps, alpha, sigma, x_t) with a noise level for each of three examples."""
    x0, epsilon = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    alpha, sigma = np.cos(angle), np.sin(angle)
    noisy = alpha[:, None, None] * x0 + sigma[:, None, None] * epsilon
    return (*map(jnp.float32, (x0, epsilon, alpha, sigma, noisy)),)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, angle=angles)
def test_a_perfect_prediction_gives_back_sample_and_noise(prediction_type, seed, angle):
    x0, epsilon, alpha, sigma, noisy = draw(seed, np.array(angle))
    prediction = training_target(prediction_type, x0, epsilon, alpha, sigma)
    x0_again, epsilon_again = to_x0_and_epsilon(prediction_type, prediction, noisy, alpha, sigma)
    np.testing.assert_allclose(x0_again, x0, atol=1e-6 / float(alpha.min()))
    np.testing.assert_allclose(epsilon_again, epsilon, atol=1e-6 / float(sigma.min()))


@pytest.mark.parametrize("source", PREDICTION_TYPES)
@pytest.mark.parametrize("goal", PREDICTION_TYPES)
@settings(max_examples=15, deadline=None)
@given(seed=seeds, angle=angles)
def test_any_prediction_survives_a_round_trip_through_any_type(source, goal, seed, angle):
    _, prediction, alpha, sigma, noisy = draw(seed, np.array(angle))  # not a perfect prediction

    def convert(prediction, source, goal):
        estimates = to_x0_and_epsilon(source, prediction, noisy, alpha, sigma)
        return training_target(goal, *estimates, alpha, sigma)

    there_and_back = convert(convert(prediction, source, goal), goal, source)
    scale = float((alpha * sigma).min())
    np.testing.assert_allclose(there_and_back, prediction, atol=1e-6 / scale**2)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_estimates_add_up_to_the_latents(prediction_type):
    _, prediction, alpha, sigma, noisy = draw(0, np.array([0.1, 0.7, 1.4]))
    x0, epsilon = to_x0_and_epsilon(prediction_type, prediction, noisy, alpha, sigma)
    total = alpha[:, None, None] * x0 + sigma[:, None, None] * epsilon
    np.testing.assert_allclose(total, noisy, atol=1e-5)


def test_v_is_the_papers():
    x0, epsilon = jnp.full((1, 2), 2.0), jnp.full((1, 2), 3.0)
    v = training_target("v_prediction", x0, epsilon, 0.8, 0.6)
    np.testing.assert_allclose(v, 0.8 * 3 - 0.6 * 2, rtol=1e-6)
    np.testing.assert_array_equal(training_target("epsilon", x0, epsilon, 0.8, 0.6), epsilon)
    np.testing.assert_array_equal(training_target("sample", x0, epsilon, 0.8, 0.6), x0)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_zero_terminal_snr_is_exact(prediction_type):
    x0, epsilon = jnp.full((2, 3), 2.0), jnp.full((2, 3), 3.0)
    prediction = training_target(prediction_type, x0, epsilon, 0.0, 1.0)
    estimates = to_x0_and_epsilon(prediction_type, prediction, epsilon, jnp.zeros(2), jnp.ones(2))
    np.testing.assert_array_equal(estimates[0], x0)
    np.testing.assert_array_equal(estimates[1], epsilon)


def test_half_precision_is_converted_in_full():
    half = jnp.ones((2, 3), jnp.bfloat16)
    x0, epsilon = to_x0_and_epsilon("v_prediction", half, half, 0.8, 0.6)
    assert x0.dtype == epsilon.dtype == jnp.float32


def test_an_unknown_type_lists_the_choices():
    x = jnp.ones((1, 2))
    for function in (to_x0_and_epsilon, training_target):
        with pytest.raises(ValueError, match=r"prediction_type must be one of .*v_prediction.* got 'v'"):
            function("v", x, x, 0.8, 0.6)
