import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.diffusion.schedule import BETA_SCHEDULES


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_alphas_cumprod_equal_diffusers(beta_schedule, rescale):
    from diffusers import DDIMScheduler

    options = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule=beta_schedule)
    theirs = DDIMScheduler(**options, rescale_betas_zero_snr=rescale).alphas_cumprod.numpy()
    ours = NoiseSchedule(**options, rescale_zero_terminal_snr=rescale).alphas_cumprod
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_defaults_are_those_of_stable_diffusion():
    alphas_cumprod = NoiseSchedule().alphas_cumprod
    np.testing.assert_allclose(alphas_cumprod[[0, -1]], [0.99915, 0.0046601], rtol=1e-4)  # published values


def test_public_schedules_in_numbers():
    """alpha_bar of AnimateDiff's schedule and of Stable Diffusion's, and sigma / alpha at their ends."""
    published = {
        "linear": ([0.99915, 0.869053, 0.550145, 0.161812, 0.020707, 0.001579], 25.146),
        "scaled_linear": ([0.99915, 0.895463, 0.658976, 0.27767, 0.052213, 0.00466], 14.615),
    }
    for beta_schedule, (expected, noisiest) in published.items():
        levels = NoiseSchedule(beta_schedule=beta_schedule).alphas_cumprod_float64
        np.testing.assert_allclose(levels[[0, 99, 259, 499, 759, 999]], expected, atol=1e-6)
        np.testing.assert_allclose(np.sqrt(1 / levels[[0, 999]] - 1), [0.029167, noisiest], rtol=1e-4)


def test_what_is_stored_of_a_schedule_is_what_was_before_there_was_set_alpha_to_one():
    """Or hashes of models that did not change would change."""
    before = ["num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "rescale_zero_terminal_snr"]
    assert list(NoiseSchedule().to_dict()) == before
    clean = NoiseSchedule(beta_schedule="linear", set_alpha_to_one=True)
    assert NoiseSchedule(**clean.to_dict()) == clean


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
def test_zero_terminal_snr_leaves_the_first_level_and_no_signal_at_the_last(beta_schedule):
    plain = NoiseSchedule(beta_schedule=beta_schedule).alphas_cumprod
    rescaled = NoiseSchedule(beta_schedule=beta_schedule, rescale_zero_terminal_snr=True).alphas_cumprod
    assert rescaled[0] == plain[0]
    assert rescaled[-1] == 0
    assert (np.diff(rescaled) < 0).all()


def test_add_noise_equals_diffusers_and_takes_each_example_to_its_own_timestep():
    import torch
    from diffusers import DDIMScheduler

    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 4, 3, 5, 5, 2)).astype(np.float32)
    timesteps = np.array([0, 10, 500, 999])
    ours = NoiseSchedule().add_noise(jnp.asarray(x0), jnp.asarray(noise), jnp.asarray(timesteps))
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    theirs = scheduler.add_noise(*map(torch.from_numpy, (x0, noise, timesteps))).numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_levels_may_be_looked_up_inside_jit():
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    timesteps = jnp.array([[0, 500], [998, 999]])
    alpha, sigma = jax.jit(schedule.alpha_sigma)(timesteps)
    assert alpha.shape == sigma.shape == (2, 2)
    assert alpha.dtype == sigma.dtype == jnp.float32
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
    np.testing.assert_allclose(alpha**2, schedule.alpha_bar(timesteps), rtol=1e-6)
    assert (alpha[1, 1], sigma[1, 1]) == (0, 1)


def test_a_timestep_out_of_range_is_loud():
    alpha, sigma = NoiseSchedule().alpha_sigma(jnp.array([-1, 0, 999, 1000]))
    assert jnp.isnan(alpha).tolist() == jnp.isnan(sigma).tolist() == [True, False, False, True]


def test_the_cached_levels_cannot_be_overwritten():
    with pytest.raises(ValueError, match="read-only"):
        NoiseSchedule().alphas_cumprod_float64[0] = 0


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("num_train_timesteps", {"num_train_timesteps": 0}),
        ("num_train_timesteps", {"num_train_timesteps": 1, "rescale_zero_terminal_snr": True}),
        ("beta_start", {"beta_start": 0.0}),
        ("beta_start", {"beta_start": float("nan")}),
        ("beta_end", {"beta_end": 0.0001}),
        ("beta_end", {"beta_end": 1.0}),
        ("beta_end", {"beta_end": float("nan")}),
        ("beta_schedule", {"beta_schedule": "cosine"}),
    ],
)
def test_a_wrong_field_is_named(field, options):
    with pytest.raises(ValueError, match=field):
        NoiseSchedule(**options)


def test_equal_schedules_are_one_static_argument():
    traces = []

    def levels(schedule, timesteps):
        traces.append(schedule)
        return schedule.alpha_bar(timesteps)

    levels = jax.jit(levels, static_argnums=0)
    levels(NoiseSchedule(), jnp.arange(3))
    levels(NoiseSchedule(beta_end=0.012), jnp.arange(3))
    assert len(traces) == 1
