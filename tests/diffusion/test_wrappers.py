import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import DDIM, DPMSolverMultistep, NoiseSchedule, sample
from gen1_jax.diffusion.wrappers import acting_on_x0, keeping

SHAPE = (2, 3, 4, 4, 4)
SAMPLERS = [DDIM(set_alpha_to_one=True), DPMSolverMultistep()]


def normal(seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=SHAPE), jnp.float32)


def blurry(latents, timesteps):
    """A denoiser that knows nothing, of whatever type."""
    return 0.3 * latents + jnp.sin(timesteps / 100)[:, None, None, None, None]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["ddim", "dpm++"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_known_region_comes_out_as_it_is(sampler, prediction_type):
    schedule = NoiseSchedule(rescale_zero_terminal_snr=prediction_type != "epsilon")
    known, noise = normal(0), normal(1)
    mask = jnp.zeros(SHAPE).at[:, :, :2].set(1)
    denoise = acting_on_x0(blurry, schedule, prediction_type, keeping(known, mask))
    out = sample(denoise, schedule, sampler, noise, 7, prediction_type)
    np.testing.assert_allclose(out[:, :, :2], known[:, :, :2], atol=1e-5)
    free = sample(blurry, schedule, sampler, noise, 7, prediction_type)
    np.testing.assert_allclose(out[:, :, 2:], free[:, :, 2:], atol=1e-4)  # elsewhere nothing has happened
    assert jnp.abs(free - known)[:, :, :2].max() > 0.1


def test_ddim_that_ends_at_the_noise_of_timestep_0_keeps_the_runs_own_noise():
    """x = alpha x_0 + sigma eps holds all along, with the eps that the first latents had."""
    schedule, known, noise = NoiseSchedule(rescale_zero_terminal_snr=True), normal(0), normal(1)
    denoise = acting_on_x0(blurry, schedule, "v_prediction", keeping(known, jnp.float32(1)))
    out = sample(denoise, schedule, DDIM(), noise, 5, "v_prediction")
    alpha, sigma = schedule.alpha_sigma(jnp.int32(0))
    np.testing.assert_allclose(out, alpha * known + sigma * noise, atol=1e-5)


def test_a_mask_between_0_and_1_blends():
    schedule, known = NoiseSchedule(), normal(0)
    half = acting_on_x0(blurry, schedule, "sample", keeping(known, jnp.float32(0.5)))
    latents, timesteps = normal(1), jnp.array([3, 900])
    np.testing.assert_allclose(half(latents, timesteps), (blurry(latents, timesteps) + known) / 2, atol=1e-5)
