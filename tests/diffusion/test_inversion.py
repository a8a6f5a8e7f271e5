"""DDIM inversion on Gaussian data, where the denoiser, its ODE and the ODE's solution are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import DDIM, NoiseSchedule, ddim_inversion, get_sampler, run_steps
from gen1_jax.diffusion.broadcast import per_example
from gen1_jax.diffusion.prediction import training_target

MEAN, STD = 0.5, 0.7
CLEAN = jnp.asarray(np.random.default_rng(0).normal(MEAN, STD, (2, 3, 4)), jnp.float32)


def there(schedule, prediction_type, steps):
    """The noise of `CLEAN` by inversion, and `CLEAN` again by sampling from it."""

    def denoise(latents, timesteps):
        levels = schedule.alpha_sigma(timesteps)
        alpha, sigma = (per_example(x, latents) for x in levels)
        x0 = MEAN + STD**2 * alpha / (alpha**2 * STD**2 + sigma**2) * (latents - alpha * MEAN)
        return training_target(prediction_type, x0, (latents - alpha * x0) / sigma, *levels)

    down, sampler = DDIM().tables(schedule, steps, prediction_type), DDIM()
    up = ddim_inversion(schedule, down.timesteps, prediction_type)
    assert list(up.timesteps[1:]) == list(down.timesteps[:0:-1]) and up.timesteps[0] == 0
    noise = run_steps(denoise, sampler, up, sampler.init(CLEAN)).latents
    return noise, run_steps(denoise, sampler, down, sampler.init(noise)).latents, down.timesteps[0]


@pytest.mark.parametrize(
    ("prediction_type", "zero_snr"),
    [("epsilon", False), ("v_prediction", False), ("v_prediction", True), ("sample", False), ("sample", True)],
)
def test_of_gaussian_data_inversion_is_the_solution_and_sampling_takes_it_back(prediction_type, zero_snr):
    schedule = NoiseSchedule(rescale_zero_terminal_snr=zero_snr)
    far = []
    for steps in (25, 50, 100):
        noise, again, first = there(schedule, prediction_type, steps)
        (a, s), (a_0, s_0) = (schedule.alpha_sigma(jnp.int32(t)) for t in (first, 0))
        scale = jnp.sqrt((a**2 * STD**2 + s**2) / (a_0**2 * STD**2 + s_0**2))
        exact = a * MEAN + scale * (CLEAN - a_0 * MEAN)
        far.append([float(jnp.abs(x - y).max()) for x, y in ((noise, exact), (again, CLEAN))])
    far = np.array(far)
    assert (far[-1] < 0.07).all() and (far[1:] < 0.65 * far[:-1]).all(), far  # of first order: half at twice the steps


def test_a_part_of_a_run_is_inverted_to_where_it_begins():
    schedule = NoiseSchedule()
    part = get_sampler("ddim").tables(schedule, 10, "v_prediction", 0.5)
    up = ddim_inversion(schedule, part.timesteps, "v_prediction")
    assert len(up.timesteps) == 5 and up.timesteps[-1] == part.timesteps[1]
    # told that there is nothing but x_0 = 0, the last step ends at the noise of the part's first timestep
    a, s = schedule.alpha_sigma(jnp.int32([part.timesteps[0], part.timesteps[1]]))
    ends = up.from_latents[-1] * CLEAN
    np.testing.assert_allclose(ends, s[0] / s[1] * CLEAN, rtol=1e-5)
