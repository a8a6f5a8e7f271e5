"""The sampling loop with a denoiser that is known exactly: data ~ N(MEAN, STD²), coordinate by coordinate.

There the probability-flow ODE has a closed solution: the standardised (x_t - alpha MEAN) / sqrt(alpha² STD² + sigma²)
of every trajectory is constant in t.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import NoiseSchedule, get_sampler, noised_start, run_steps, sample, training_target

MEAN, STD = 0.7, 0.4
SCHEDULE = NoiseSchedule()
LATENTS = jnp.linspace(-2, 2, 18).reshape(2, 3, 3)


def exact_denoiser(prediction_type, schedule=SCHEDULE):
    def denoise(latents, timesteps):
        assert timesteps.shape == latents.shape[:1]
        alpha, sigma = (level[:, None, None] for level in schedule.alpha_sigma(timesteps))
        x0 = MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (latents - alpha * MEAN)
        epsilon = (latents - alpha * x0) / sigma
        return training_target(prediction_type, x0, epsilon, alpha[:, 0, 0], sigma[:, 0, 0])

    return denoise


def exact_solution(latents, alpha_bar, alpha_bar_end):
    standardised = (np.asarray(latents) - alpha_bar**0.5 * MEAN) / np.sqrt(alpha_bar * STD**2 + 1 - alpha_bar)
    return alpha_bar_end**0.5 * MEAN + np.sqrt(alpha_bar_end * STD**2 + 1 - alpha_bar_end) * standardised


def error_half_way(name, num_steps, prediction_type):
    sampler = get_sampler(name, timestep_spacing="trailing")
    tables = sampler.tables(SCHEDULE, num_steps, prediction_type)
    levels = SCHEDULE.alphas_cumprod_float64[tables.timesteps]
    stop = num_steps // 2
    state = run_steps(exact_denoiser(prediction_type), sampler, tables, sampler.init(LATENTS), stop=stop)
    return np.abs(state.latents - exact_solution(LATENTS, levels[0], levels[stop])).max()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_ddim_is_of_first_and_dpm_solver_of_second_order(prediction_type):
    ddim = np.array([error_half_way("ddim", n, prediction_type) for n in (10, 20, 40)])
    dpm = np.array([error_half_way("dpm++", n, prediction_type) for n in (10, 20, 40)])
    np.testing.assert_allclose(ddim[:-1] / ddim[1:], 2, rtol=0.1)
    np.testing.assert_allclose(dpm[:-1] / dpm[1:], 4, rtol=0.1)
    assert (dpm < ddim / 2).all()


@pytest.mark.parametrize(
    ("name", "options", "end"),
    [
        ("ddim", {}, SCHEDULE.alphas_cumprod_float64[0]),
        ("ddim", {"timestep_spacing": "trailing", "set_alpha_to_one": True}, 1.0),
        ("dpm++", {}, 1.0),
        ("dpm++", {"timestep_spacing": "trailing"}, 1.0),
    ],
)
def test_a_run_reaches_the_solution_of_the_ode(name, options, end):
    sampler = get_sampler(name, **options)
    errors = []
    for num_steps in (20, 80, 320):
        first = sampler.tables(SCHEDULE, num_steps, "v_prediction").timesteps[0]
        solution = exact_solution(LATENTS, SCHEDULE.alphas_cumprod_float64[first], end)
        denoise = exact_denoiser("v_prediction")
        x0 = sample(denoise, SCHEDULE, sampler, LATENTS, num_steps, "v_prediction")
        errors.append(np.abs(x0 - solution).max())
    assert errors[2] < 0.016  # of data between -0.3 and 1.7
    assert errors[2] < 0.6 * errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_zero_terminal_snr_begins_at_pure_noise(name):
    schedule, sampler = NoiseSchedule(rescale_zero_terminal_snr=True), get_sampler(name)
    assert sampler.tables(schedule, 50, "v_prediction").timesteps[0] == 999
    denoise = exact_denoiser("v_prediction", schedule)
    x0 = sample(denoise, schedule, sampler, LATENTS, 200, "v_prediction")
    np.testing.assert_allclose(x0, MEAN + STD * LATENTS, atol=0.04)


def test_ancestral_sampling_draws_from_the_data():
    denoise, noise = exact_denoiser("epsilon"), jax.random.normal(jax.random.key(0), (16, 16, 16))
    sampler = get_sampler("ddim", eta=1.0, timestep_spacing="trailing", set_alpha_to_one=True)
    run = jax.jit(lambda noise, key: sample(denoise, SCHEDULE, sampler, noise, 200, "epsilon", key=key))
    x0 = run(noise, jax.random.key(1))
    np.testing.assert_allclose([x0.mean(), x0.std()], [MEAN, STD], atol=0.03)  # biased by O(1 / N)
    assert abs(np.corrcoef(x0.ravel(), noise.ravel())[0, 1]) < 0.05  # the start is forgotten
    np.testing.assert_array_equal(run(noise, jax.random.key(1)), x0)
    assert not np.allclose(run(noise, jax.random.key(2)), x0)


@pytest.mark.parametrize(
    ("name", "options"), [("ddim", {}), ("ddim", {"eta": 0.7}), ("dpm++", {}), ("lcm", {}), ("tcd", {})]
)
def test_one_compilation_serves_a_whole_run_and_its_parts(name, options):
    sampler, denoise, traces = get_sampler(name, **options), exact_denoiser("v_prediction"), []

    @jax.jit
    def run(tables, state, start, stop):
        traces.append(None)
        return run_steps(denoise, sampler, tables, state, start=start, stop=stop)

    tables = sampler.tables(SCHEDULE, 10, "v_prediction")
    begin = sampler.init(LATENTS, jax.random.key(0))
    whole = run(tables, begin, 0, 10)
    state = begin
    for start, stop in ((0, 1), (1, 2), (2, 2), (2, 7), (7, 10)):
        state = run(tables, state, start, stop)
    np.testing.assert_array_equal(state.latents, whole.latents)
    assert not np.allclose(whole.latents, begin.latents)
    assert len(traces) == 1


def test_sample_is_the_run_by_hand():
    sampler, denoise = get_sampler("dpm++"), exact_denoiser("sample")
    tables = sampler.tables(SCHEDULE, 4, "sample")
    state = sampler.init(LATENTS)
    for i in range(4):
        timesteps = jnp.full(2, tables.timesteps[i])
        state = sampler.step(tables, i, state, denoise(state.latents, timesteps))
    x0 = sample(denoise, SCHEDULE, sampler, LATENTS, 4, "sample")
    np.testing.assert_allclose(x0, state.latents, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_a_run_may_begin_at_a_noised_sample(name):
    sampler = get_sampler(name)
    tables = sampler.tables(SCHEDULE, 100, "v_prediction")
    x0, noise = MEAN + STD * jnp.sin(jnp.arange(18.0)).reshape(2, 3, 3), LATENTS
    noised = SCHEDULE.add_noise(x0, noise, jnp.full(2, tables.timesteps[40]))
    denoise = exact_denoiser("v_prediction")
    edited = sample(denoise, SCHEDULE, sampler, noised, 100, "v_prediction", start=40)
    level = SCHEDULE.alphas_cumprod_float64[tables.timesteps[40]]
    np.testing.assert_allclose(edited, exact_solution(noised, level, 1.0), atol=0.04)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_a_strength_is_the_end_of_a_run_from_where_noised_latents_begin(name):
    sampler, denoise, noise = get_sampler(name), exact_denoiser("v_prediction"), LATENTS
    tables = sampler.tables(SCHEDULE, 10, "v_prediction", strength=0.6)
    x0 = MEAN + STD * jnp.sin(jnp.arange(18.0)).reshape(2, 3, 3)
    begin = noised_start(SCHEDULE, tables, x0, noise)
    np.testing.assert_array_equal(begin, SCHEDULE.add_noise(x0, noise, jnp.full(2, tables.timesteps[0])))
    part = run_steps(denoise, sampler, tables, sampler.init(begin)).latents
    np.testing.assert_array_equal(part, sample(denoise, SCHEDULE, sampler, begin, 10, "v_prediction", start=4))


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_half_precision_denoisers_leave_the_latents_in_full(name):
    exact = exact_denoiser("v_prediction")

    def denoise(latents, timesteps):
        assert latents.dtype == jnp.float32
        return exact(latents, timesteps).astype(jnp.bfloat16)

    args = (SCHEDULE, get_sampler(name), LATENTS.astype(jnp.bfloat16), 10, "v_prediction")
    x0 = sample(denoise, *args)
    assert x0.dtype == jnp.float32
    np.testing.assert_allclose(x0, sample(exact, *args), atol=0.02)


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_memory_does_not_grow_with_the_number_of_steps(name):
    sampler, denoise = get_sampler(name), exact_denoiser("v_prediction")
    latents = jax.ShapeDtypeStruct((2, 64, 64), jnp.float32)

    def working_memory(num_steps):
        run = jax.jit(lambda latents: sample(denoise, SCHEDULE, sampler, latents, num_steps, "v_prediction"))
        return run.lower(latents).compile().memory_analysis().temp_size_in_bytes

    few, many = working_memory(5), working_memory(500)
    assert few > 0
    assert many - few < 4 * 64 * 64  # the tables grow, by less than one example's latents
