"""Rectified flow on Gaussian data, where the velocity and its trajectories are known; and against diffusers."""

import dataclasses
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import (
    FLOW_PREDICTION_TYPES,
    FLOW_SAMPLERS,
    NoiseSchedule,
    Sampler,
    TimestepDensity,
    ddim_inversion,
    default_sampler,
    denoising_loss,
    get_sampler,
    loss_weights,
    noised_start,
    run_steps,
    sample,
    samplers_of,
    to_x0_and_epsilon,
    training_target,
)
from gen1_jax.diffusion.broadcast import per_example
from gen1_jax.diffusion.schedule import shifted
from gen1_jax.diffusion.wrappers import acting_on_x0, changing, keeping
from gen1_jax.errors import UserError

FLOW = NoiseSchedule(use_flow_sigmas=True)
SHIFTED = NoiseSchedule(use_flow_sigmas=True, flow_shift=3.0)
FINE = NoiseSchedule(use_flow_sigmas=True, num_train_timesteps=2**16, flow_shift=2.0)
MEAN, STD = 0.5, 0.7
NOISE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)


def velocity(schedule, prediction_type="flow_prediction"):
    """The denoiser that is exact for data of N(MEAN, STD²)."""

    def denoise(latents, timesteps):
        levels = schedule.alpha_sigma(timesteps)
        alpha, sigma = (per_example(x, latents) for x in levels)
        gain = STD**2 * alpha / (alpha**2 * STD**2 + sigma**2)
        x0 = MEAN + gain * (latents - alpha * MEAN)
        epsilon = sigma / (alpha**2 * STD**2 + sigma**2) * (latents - alpha * MEAN)
        return training_target(prediction_type, x0, epsilon, *levels)

    return denoise


def exact(schedule, timestep, noise=NOISE):
    """Where the trajectory that begins at `noise` is at a timestep."""
    alpha, sigma = schedule.alpha_sigma(jnp.int32(timestep))
    return alpha * MEAN + jnp.sqrt(alpha**2 * STD**2 + sigma**2) * noise


def test_levels_are_those_of_the_straight_path_and_of_a_process_that_preserves_variance():
    alpha, sigma = FLOW.levels
    assert alpha.dtype == sigma.dtype == np.float64 and len(alpha) == 1001
    np.testing.assert_allclose(alpha + sigma, 1, rtol=1e-15)
    assert (alpha[0], sigma[0], alpha[1000], sigma[1000]) == (1, 0, 0, 1) and sigma[250] == 0.25
    assert (FLOW.timesteps[0], FLOW.timesteps[-1], len(FLOW.timesteps)) == (1, 1000, 1000)
    scale = np.sqrt(alpha**2 + sigma**2)
    np.testing.assert_allclose(FLOW.alphas_cumprod_float64, (alpha / scale) ** 2, rtol=1e-15)
    np.testing.assert_allclose(1 - FLOW.alphas_cumprod_float64, (sigma / scale) ** 2, atol=1e-15)
    timesteps = jnp.array([-1, 0, 1, 1000, 1001])
    assert jnp.isnan(FLOW.alpha_sigma(timesteps)[0]).tolist() == [True, False, False, False, True]
    assert jnp.isnan(FLOW.alpha_bar(timesteps)).tolist() == [True, False, False, False, True]
    for schedule in (NoiseSchedule(), NoiseSchedule(rescale_zero_terminal_snr=True)):
        np.testing.assert_allclose(schedule.levels.alpha**2 + schedule.levels.sigma**2, 1, rtol=1e-15)
        assert schedule.timesteps == range(1000)
        with pytest.raises(ValueError, match="read-only"):
            schedule.levels.sigma[0] = 0


def test_noise_is_added_as_by_diffusers_and_timesteps_mean_the_same():
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    x0, noise = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)
    timesteps = np.array([1, 30, 500, 1000])
    given = map(torch.from_numpy, (x0, timesteps.astype(np.float32), noise))
    theirs = FlowMatchEulerDiscreteScheduler().scale_noise(*given)
    ours = FLOW.add_noise(*map(jnp.asarray, (x0, noise, timesteps)))
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


@pytest.mark.parametrize("schedule", [FLOW, SHIFTED], ids=["plain", "shifted"])
@pytest.mark.parametrize("num_steps", [1, 4, 10, 25])
def test_euler_equals_diffusers(num_steps, schedule):
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=schedule.flow_shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / num_steps, num_steps).tolist())
    sampler = get_sampler("euler", schedule)
    tables = sampler.tables(schedule, num_steps, "flow_prediction")
    assert np.abs(tables.timesteps - scheduler.timesteps.numpy()).max() <= (0.501 if schedule is SHIFTED else 1e-3)
    outputs = np.random.default_rng(1).normal(size=(num_steps, *NOISE.shape)).astype(np.float32)
    state, theirs = sampler.init(NOISE), torch.tensor(np.asarray(NOISE))
    for i, output in enumerate(outputs):
        state = sampler.step(tables, i, state, jnp.asarray(output))
        theirs = scheduler.step(torch.from_numpy(output), scheduler.timesteps[i], theirs).prev_sample
    near = 1e-5 if schedule is FLOW else 0.01  # ours goes to whole timesteps
    np.testing.assert_allclose(state.latents, theirs.numpy(), atol=near)


@pytest.mark.parametrize("prediction_type", FLOW_PREDICTION_TYPES)
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2)])
def test_errors_fall_by_the_order_of_the_method(name, order, prediction_type):
    """Of two Gaussians; in one dimension the flow keeps quantiles, so that its end is known."""
    centres, std = np.array([-1.0, 1.5]), 0.4
    noise = jnp.linspace(-1.6, 1.6, 33)[:, None]

    def denoise(latents, timesteps):
        levels = FINE.alpha_sigma(timesteps)
        alpha, sigma = (x[:, None] for x in levels)
        variance = alpha**2 * std**2 + sigma**2
        share = jax.nn.softmax(-((latents - alpha * centres) ** 2) / (2 * variance))
        x0 = (share * (centres + std**2 * alpha / variance * (latents - alpha * centres))).sum(1, keepdims=True)
        epsilon = (share * (latents - alpha * centres)).sum(1, keepdims=True) * sigma / variance
        return training_target(prediction_type, x0, epsilon, *levels)

    normal, places = NormalDist(), np.linspace(-4, 5, 20_001)
    quantiles = np.vectorize(normal.cdf)((places[:, None] - centres) / std).mean(1)
    data = np.interp(np.vectorize(normal.cdf)(np.asarray(noise)), quantiles, places)
    runs = [sample(denoise, FINE, get_sampler(name, FINE), noise, n, prediction_type) for n in (16, 32, 64, 128)]
    far = [np.abs(run - data).max() for run in runs]
    orders = np.log2(np.divide(far[:-1], far[1:]))
    assert (np.abs(orders[1:] - order) < 0.25).all(), (far, orders)


@pytest.mark.parametrize(("name", "far"), [("euler", 0.035), ("midpoint", 1e-5)])
def test_of_gaussian_data_trajectories_are_the_exact_ones(name, far):
    sampler = get_sampler(name, FINE)
    tables = sampler.tables(FINE, 100, "flow_prediction")
    for stop in (10, 50, 90, 100):
        part = run_steps(velocity(FINE), sampler, tables, sampler.init(NOISE), stop=stop)
        np.testing.assert_allclose(part.latents, exact(FINE, [*tables.timesteps, 0][stop]), atol=far)


def test_the_midpoint_method_is_the_textbooks():
    """x' = x - h u(x - h / 2 u(x, t), t - h / 2), where timesteps are whole."""
    u, schedule = velocity(FLOW), FLOW
    at = lambda x, t: u(x, jnp.full(len(x), t))
    x = NOISE
    for t in (1000, 800, 600, 400, 200):
        x = x - 0.2 * at(x - 0.1 * at(x, t), t - 100)
    ours = sample(u, schedule, get_sampler("midpoint", FLOW), NOISE, 10, "flow_prediction")
    np.testing.assert_allclose(ours, x, atol=2e-6)


@pytest.mark.parametrize("steps", [2, 8, 12, 36])
def test_a_middle_that_was_rounded_to_a_timestep_costs_no_order(steps):
    """Of a velocity that is linear in time, a method of second order makes no error."""
    schedule = NoiseSchedule(use_flow_sigmas=True, num_train_timesteps=37, flow_shift=1.7)
    linear = lambda x, timesteps: jnp.broadcast_to(per_example(timesteps / 37, x), x.shape)
    ends = sample(linear, schedule, get_sampler("midpoint", schedule), NOISE, steps, "flow_prediction")
    np.testing.assert_allclose(ends, NOISE - 0.5, atol=2e-6)


@pytest.mark.parametrize("name", FLOW_SAMPLERS)
def test_any_number_of_evaluations_and_any_shift_has_numbers_and_ends_at_clean_data(name):
    x0 = jnp.full((1, 4), 0.3)
    for shift in (0.2, 1.0, 7.0):
        schedule = dataclasses.replace(FLOW, flow_shift=shift)
        for steps in (1, 2, 3, 4, 7, 50, 333, 999, 1000):
            tables = get_sampler(name, schedule).tables(schedule, steps, "flow_prediction")
            assert all(np.isfinite(column).all() and column.shape == (steps,) for column in tables)
            assert tables.timesteps[0] == 1000 and tables.timesteps.min() >= 1
            assert (np.diff(tables.timesteps) <= 0).all()
            assert tables.from_latents[-1] == 0 and tables.from_x0[-1] == 1
            assert np.abs(tables.from_x0_change).max() < 30
        known = acting_on_x0(lambda x, t: jnp.zeros_like(x), schedule, "flow_prediction", keeping(x0, jnp.ones(1)))
        result = sample(known, schedule, get_sampler(name, schedule), NOISE[0, :1], 7, "flow_prediction")
        np.testing.assert_allclose(result, x0, atol=1e-6)


def test_a_part_of_a_run_may_begin_in_the_middle_of_a_step():
    """The first step taken is Euler's there, and the run is of its order at least."""
    sampler = get_sampler("midpoint", FLOW)
    for steps, strength in ((20, 0.5), (20, 0.55), (21, 0.5), (40, 0.125)):
        tables = sampler.tables(FLOW, steps, "flow_prediction", strength)
        assert len(tables.timesteps) == int(steps * strength)
        first = tables.timesteps[0]
        noisy = noised_start(FLOW, tables, jnp.zeros_like(NOISE), NOISE)
        np.testing.assert_allclose(noisy, first / 1000 * NOISE, rtol=1e-6)
        start = exact(FLOW, first)
        ends = run_steps(velocity(FLOW), sampler, tables, sampler.init(start)).latents
        assert np.abs(ends - exact(FLOW, 0)).max() < 0.03, (steps, strength)
    whole = run_steps(velocity(FLOW), sampler, tables := sampler.tables(FLOW, 9, "sample"), sampler.init(NOISE), stop=9)
    parts = sampler.init(NOISE)
    for i in range(9):
        parts = run_steps(velocity(FLOW), sampler, tables, parts, start=i, stop=i + 1)
    np.testing.assert_allclose(parts.latents, whole.latents, atol=1e-6)


@pytest.mark.parametrize("name", FLOW_SAMPLERS)
def test_inversion_is_the_solution_and_sampling_takes_it_back(name):
    clean = exact(FLOW, 0)
    far = []
    for steps in (25, 50, 100):
        sampler = get_sampler(name, FLOW)
        down = sampler.tables(FLOW, steps, "flow_prediction")
        up = ddim_inversion(FLOW, down.timesteps, "flow_prediction")
        assert up.timesteps[0] == 1 and list(up.timesteps[1:]) == list(down.timesteps[:0:-1])
        noise = run_steps(velocity(FLOW), sampler, up, sampler.init(clean)).latents
        again = run_steps(velocity(FLOW), sampler, down, sampler.init(noise)).latents
        far.append([float(jnp.abs(x - y).max()) for x, y in ((noise, NOISE), (again, clean))])
    far = np.array(far)
    assert (far[-1] < 0.05).all() and (far[1:] < 0.65 * far[:-1]).all(), far


def test_what_may_change_is_free_from_the_first_step_on_and_the_rest_is_kept():
    known = jnp.zeros((1, 3))
    act = changing(known, jnp.array([1.0, 0.5, 0.0]), len(FLOW.timesteps), FLOW.timesteps[0])
    free = [act(jnp.ones((1, 3)), jnp.array([t]))[0].tolist() for t in (1000, 501, 500, 1)]
    assert free == [[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]]


def test_the_exact_velocity_minimises_the_loss():
    """The gradient vanishes at it, in the mean over data, noise and timesteps of a density; and beside it does not."""
    density = TimestepDensity(density="logit_normal", shift=2.0)
    keys = jax.random.split(jax.random.key(0), 200_000)
    timesteps = jax.vmap(lambda key: density.draw(key, FLOW))(keys)
    x0, noise = jax.random.normal(jax.random.key(1), (2, len(keys), 1))
    x0 = MEAN + STD * x0
    noisy, levels = FLOW.add_noise(x0, noise, timesteps), FLOW.alpha_sigma(timesteps)
    target = training_target("flow_prediction", x0, noise, *levels)
    np.testing.assert_array_equal(target, noise - x0)
    right = velocity(FLOW)(noisy, timesteps)

    def loss(scale, offset):
        options = dict(prediction_type="flow_prediction")
        return denoising_loss(scale * right + offset, target, FLOW.alpha_bar(timesteps), **options).mean()

    slopes = jax.grad(loss, (0, 1))(1.0, 0.0)
    assert np.abs(slopes).max() < 0.01 and loss(1.0, 0.0) < min(loss(1.05, 0.0), loss(0.95, 0.0), loss(1.0, 0.05))


def test_min_snr_weighs_the_error_of_x0_whatever_is_predicted():
    timesteps = jnp.array([50, 300, 500, 900])
    alpha, sigma = FLOW.alpha_sigma(timesteps)
    x0, error, noisy = jnp.float32(np.random.default_rng(0).normal(size=(3, 4, 5)))

    def loss(prediction_type):
        said = lambda x0: training_target(
            prediction_type, x0, (noisy - alpha[:, None] * x0) / sigma[:, None], alpha, sigma
        )
        options = dict(prediction_type=prediction_type, weighting="min_snr")
        return denoising_loss(said(x0 + error), said(x0), FLOW.alpha_bar(timesteps), **options)

    np.testing.assert_allclose(loss("flow_prediction"), loss("sample"), rtol=1e-4)
    options = dict(prediction_type="flow_prediction", weighting="min_snr")
    assert np.isfinite(loss_weights(FLOW.alpha_bar(jnp.array([1, 1000])), **options)).all()


def test_a_velocity_says_sample_and_noise():
    x0, noise = jnp.float32(np.random.default_rng(0).normal(size=(2, 3, 4)))
    levels = FLOW.alpha_sigma(timesteps := jnp.array([1, 400, 1000]))
    noisy = FLOW.add_noise(x0, noise, timesteps)
    found = to_x0_and_epsilon("flow_prediction", noise - x0, noisy, *levels)
    np.testing.assert_allclose(found, (x0, noise), atol=2e-6)
    alpha, sigma = np.cos(0.3), np.sin(0.3)  # the velocity eps - x_0 says as much where variance is preserved
    found = to_x0_and_epsilon("flow_prediction", noise - x0, alpha * x0 + sigma * noise, alpha, sigma)
    np.testing.assert_allclose(found, (x0, noise), atol=1e-5)


@pytest.mark.parametrize("schedule", [FLOW, NoiseSchedule()], ids=["flow", "betas"])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_densities_have_the_quantiles_of_a_shifted_logistic_of_a_normal(shift, schedule):
    keys = jax.random.split(jax.random.key(0), 20_000)
    density = TimestepDensity(density="logit_normal", logit_mean=-0.5, logit_std=0.8, shift=shift)
    drawn = jax.vmap(lambda key: density.draw(key, schedule))(keys)
    assert schedule.timesteps[0] <= drawn.min() and drawn.max() <= schedule.timesteps[-1]
    for below in (0.1587, 0.5, 0.8413):  # a standard deviation below the mean, the mean, and above
        z = {0.1587: -1, 0.5: 0, 0.8413: 1}[below]
        time = shifted(1 / (1 + np.exp(0.5 - 0.8 * z)), shift)
        assert abs(float((drawn < schedule.timesteps[0] + 1000 * time).mean()) - below) < 0.015


def test_uniform_timesteps_are_all_of_the_schedules_and_no_others_than_before():
    keys = jax.random.split(jax.random.key(0), 5000)
    for schedule in (NoiseSchedule(num_train_timesteps=8), NoiseSchedule(use_flow_sigmas=True, num_train_timesteps=8)):
        drawn = jax.vmap(lambda key, schedule=schedule: TimestepDensity().draw(key, schedule))(keys)
        assert set(drawn.tolist()) == set(schedule.timesteps)
    before = jax.vmap(lambda key: jax.random.randint(key, (), 0, 1000))(keys)
    after = jax.vmap(lambda key: TimestepDensity().draw(key, NoiseSchedule()))(keys)
    assert np.array_equal(before, after)


def test_a_shift_keeps_the_signal_to_noise_ratio_of_means_over_more_pixels():
    """The noise of a mean over n pixels falls by sqrt(n): of 4 times the pixels t' is as t is."""
    time = np.linspace(0.05, 0.95, 9)
    later = shifted(time, np.sqrt(4))
    np.testing.assert_allclose((1 - later) / later * np.sqrt(4), (1 - time) / time)
    np.testing.assert_allclose(shifted(later, 1 / 2), time)
    assert shifted(0.0, 3.0) == 0 and shifted(1.0, 3.0) == 1


def test_what_is_stored_is_read_back_and_says_nothing_of_flow_where_there_is_none():
    assert NoiseSchedule(**SHIFTED.to_dict()) == SHIFTED
    assert FLOW.to_dict()["use_flow_sigmas"] and "flow_shift" not in FLOW.to_dict()
    assert {"use_flow_sigmas", "flow_shift"}.isdisjoint(NoiseSchedule().to_dict())


@pytest.mark.parametrize("name", FLOW_SAMPLERS)
def test_samplers_keep_the_protocol(name):
    assert isinstance(get_sampler(name, FLOW), Sampler)
    assert hash(get_sampler(name, FLOW)) == hash(get_sampler(name, SHIFTED))
    assert list(samplers_of(FLOW)) == ["euler", "midpoint"]
    assert (default_sampler(FLOW), default_sampler(NoiseSchedule())) == ("euler", "ddim")


@pytest.mark.parametrize(
    ("message", "make"),
    [
        (r"'ddim'; choose one of: euler, midpoint \(ddim is for variance-pres", lambda: get_sampler("ddim", FLOW)),
        (r"'euler'; choose one of: ddim, .*tcd \(euler is for rectified flow", lambda: get_sampler("euler")),
        (r"'heun'; choose one of: euler, midpoint$", lambda: get_sampler("heun", FLOW)),
        ("DDIM is for variance-pr.* is of rect", lambda: get_sampler("ddim").tables(FLOW, 4, "sample")),
        ("DPMSolver.* is for", lambda: get_sampler("dpm++").tables(FLOW, 4, "sample")),
        ("LCM is for", lambda: get_sampler("lcm").tables(FLOW, 4, "sample")),
        ("Euler is for rect.* is of var", lambda: get_sampler("euler", FLOW).tables(NoiseSchedule(), 4, "sample")),
        ("v_prediction", lambda: get_sampler("euler", FLOW).tables(FLOW, 4, "v_prediction")),
        ("flow_prediction", lambda: get_sampler("ddim").tables(NoiseSchedule(), 4, "flow_prediction")),
        ("between 1 and 1000, got 0", lambda: get_sampler("euler", FLOW).tables(FLOW, 0, "sample")),
        ("leaves no step", lambda: get_sampler("midpoint", FLOW).tables(FLOW, 3, "sample", 0.3)),
        ("flow_shift must be positive", lambda: NoiseSchedule(use_flow_sigmas=True, flow_shift=0.0)),
        ("flow_shift .* needs use_flow_sigmas", lambda: NoiseSchedule(flow_shift=2.0)),
        ("rescale_zero", lambda: NoiseSchedule(use_flow_sigmas=True, rescale_zero_terminal_snr=True)),
        ("set_alpha_to_one", lambda: NoiseSchedule(use_flow_sigmas=True, set_alpha_to_one=True)),
        ("density", lambda: TimestepDensity(density="cosmap")),
        ("logit_mean", lambda: TimestepDensity(logit_mean=float("nan"))),
        ("logit_std", lambda: TimestepDensity(logit_std=0.0)),
        ("shift", lambda: TimestepDensity(shift=float("inf"))),
    ],
)
def test_wrong_options_are_named_in_one_line(message, make):
    with pytest.raises(UserError, match=message) as told:
        make()
    assert "\n" not in str(told.value)
