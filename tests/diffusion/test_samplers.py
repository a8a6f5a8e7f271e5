"""The samplers against diffusers, step by step on random model outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import PREDICTION_TYPES, NoiseSchedule, Sampler, get_sampler
from gen1_jax.diffusion.samplers import TIMESTEP_SPACINGS

STEP_COUNTS = (1, 2, 5, 16, 50)
SHAPE = (2, 3, 4)

jitted_step = jax.jit(lambda sampler, *args: sampler.step(*args), static_argnums=0)


def diffusers_ddim(prediction_type, spacing, rescale=False, **options):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        **{"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1} | options,
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        rescale_betas_zero_snr=rescale,
    )


def diffusers_dpm_solver(prediction_type, spacing, rescale=False):
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1},
        **{"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
        **{"lower_order_final": True, "final_sigmas_type": "zero"},
        prediction_type=prediction_type,
        timestep_spacing=spacing,
        rescale_betas_zero_snr=rescale,
    )


def steps_to_the_next_timestep(scheduler, i):
    """Makes diffusers' DDIM step i land on timestep i + 1 of the run, for which it has T // N alone."""
    timesteps = [*scheduler.timesteps.tolist(), -1]
    scheduler.num_inference_steps = 1
    scheduler.register_to_config(num_train_timesteps=timesteps[i] - timesteps[i + 1])


def assert_same_run(sampler, scheduler, prediction_type, num_steps, rescale=False, start=0, before_step=None):
    import torch

    rng = np.random.default_rng(num_steps)
    latents, *outputs = rng.normal(size=(num_steps + 1, *SHAPE)).astype(np.float32)
    schedule = NoiseSchedule(rescale_zero_terminal_snr=rescale)
    tables = sampler.tables(schedule, num_steps, prediction_type)
    scheduler.set_timesteps(num_steps)
    np.testing.assert_array_equal(tables.timesteps, scheduler.timesteps.numpy())

    if start:
        scheduler.set_begin_index(start)
    state, theirs = sampler.init(jnp.asarray(latents)), torch.from_numpy(latents)
    for i, output in enumerate(outputs[start:], start):
        if before_step:
            before_step(scheduler, i)
        state = jitted_step(sampler, tables, i, state, jnp.asarray(output))
        theirs = scheduler.step(torch.from_numpy(output), scheduler.timesteps[i], theirs).prev_sample
        expected = theirs.numpy()
        np.testing.assert_allclose(state.latents, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("num_steps", STEP_COUNTS)
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_ddim_equals_diffusers(spacing, num_steps, prediction_type):
    sampler = get_sampler("ddim", timestep_spacing=spacing)
    # where T // N is the distance to the next timestep, diffusers is left as it is
    as_is = spacing == "leading" or (spacing == "trailing" and 1000 % num_steps == 0)
    before_step = None if as_is else steps_to_the_next_timestep
    scheduler = diffusers_ddim(prediction_type, spacing)
    assert_same_run(sampler, scheduler, prediction_type, num_steps, before_step=before_step)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("num_steps", STEP_COUNTS)
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_dpm_solver_equals_diffusers(spacing, num_steps, prediction_type):
    sampler = get_sampler("dpm++", timestep_spacing=spacing)
    assert_same_run(sampler, diffusers_dpm_solver(prediction_type, spacing), prediction_type, num_steps)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 50])
def test_zero_terminal_snr_equals_diffusers(num_steps, prediction_type):
    for name, oracle in (("ddim", diffusers_ddim), ("dpm++", diffusers_dpm_solver)):
        scheduler = oracle(prediction_type, "trailing", rescale=True)
        # no spacing asked for: under zero terminal SNR it is "trailing"
        assert_same_run(get_sampler(name), scheduler, prediction_type, num_steps, rescale=True)


def test_defaults_are_those_of_stable_diffusion():
    assert_same_run(get_sampler("ddim"), diffusers_ddim("epsilon", "leading"), "epsilon", 50)
    assert_same_run(get_sampler("dpm++"), diffusers_dpm_solver("epsilon", "linspace"), "epsilon", 20)


@pytest.mark.parametrize("start", [1, 4, 9])
def test_dpm_solver_begun_in_the_middle_equals_diffusers(start):
    """The first step taken has no estimate before it, wherever in the run it is."""
    scheduler = diffusers_dpm_solver("v_prediction", "linspace")
    assert_same_run(get_sampler("dpm++"), scheduler, "v_prediction", 10, start=start)


def test_ddim_may_end_at_clean_data():
    sampler = get_sampler("ddim", set_alpha_to_one=True)
    assert_same_run(sampler, diffusers_ddim("epsilon", "leading", set_alpha_to_one=True), "epsilon", 5)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise_equals_diffusers(eta):
    import torch

    sampler, scheduler = get_sampler("ddim", eta=eta), diffusers_ddim("v_prediction", "leading")
    scheduler.set_timesteps(5)
    tables = sampler.tables(NoiseSchedule(), 5, "v_prediction")
    key = jax.random.key(3)
    rng = np.random.default_rng(0)
    latents, *outputs = rng.normal(size=(6, *SHAPE)).astype(np.float32)
    state, theirs = sampler.init(jnp.asarray(latents), key), torch.from_numpy(latents)
    for i, output in enumerate(outputs):
        state = sampler.step(tables, i, state, jnp.asarray(output))
        noise = torch.from_numpy(np.array(jax.random.normal(jax.random.fold_in(key, i), SHAPE)))
        theirs = scheduler.step(
            torch.from_numpy(output), scheduler.timesteps[i], theirs, eta=eta, variance_noise=noise
        ).prev_sample
        np.testing.assert_allclose(state.latents, theirs.numpy(), atol=1e-4 * float(theirs.abs().max()))


@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_timesteps_are_those_of_diffusers_for_every_number_of_steps(spacing):
    schedule = NoiseSchedule()
    for name, oracle in (("ddim", diffusers_ddim), ("dpm++", diffusers_dpm_solver)):
        sampler, scheduler = get_sampler(name, timestep_spacing=spacing), oracle("v_prediction", spacing)
        for num_steps in range(1, 1000):
            scheduler.set_timesteps(num_steps)
            ours = sampler.tables(schedule, num_steps, "v_prediction").timesteps
            # where diffusers leaves the schedule: counting by adding floats may append a timestep of -1,
            # and the offset may lead to 1000
            theirs = np.minimum(scheduler.timesteps.numpy()[:num_steps], 999)
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}, {num_steps} steps")


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_as_many_steps_as_timesteps_is_well_defined(name, spacing, prediction_type):
    tables = get_sampler(name, timestep_spacing=spacing).tables(NoiseSchedule(), 1000, prediction_type)
    assert all(np.isfinite(column).all() for column in tables)
    assert tables.timesteps.shape == (1000,)
    assert 0 <= tables.timesteps.min() <= tables.timesteps.max() == 999
    assert (np.diff(tables.timesteps) <= 0).all()


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_samplers_keep_the_protocol_and_hash_by_value(name):
    assert isinstance(get_sampler(name), Sampler)
    assert hash(get_sampler(name)) == hash(get_sampler(name, steps_offset=1))
    assert get_sampler(name) != get_sampler(name, timestep_spacing="trailing")


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_epsilon_is_refused_where_no_signal_is_left(name):
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    with pytest.raises(ValueError, match=r"epsilon.*zero terminal SNR"):
        get_sampler(name).tables(schedule, 10, "epsilon")
    get_sampler(name, timestep_spacing="leading").tables(schedule, 10, "epsilon")  # begins below the end


@pytest.mark.parametrize("num_steps", [-1, 0, 1001])
@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_a_wrong_number_of_steps_is_refused(name, num_steps):
    with pytest.raises(ValueError, match=f"num_inference_steps must be between 1 and 1000, got {num_steps}"):
        get_sampler(name).tables(NoiseSchedule(), num_steps, "epsilon")


@pytest.mark.parametrize(
    ("message", "make"),
    [
        (r"'euler'; choose one of: ddim, dpm\+\+", lambda: get_sampler("euler")),
        ("timestep_spacing", lambda: get_sampler("ddim", timestep_spacing="karras")),
        ("steps_offset", lambda: get_sampler("dpm++", steps_offset=-1)),
        ("eta", lambda: get_sampler("ddim", eta=1.5)),
        ("eta", lambda: get_sampler("ddim", eta=float("nan"))),
        ("needs a key", lambda: get_sampler("ddim", eta=0.5).init(jnp.zeros((1, 2)))),
        ("prediction_type", lambda: get_sampler("ddim").tables(NoiseSchedule(), 5, "v")),
    ],
)
def test_wrong_options_are_named(message, make):
    with pytest.raises(ValueError, match=message):
        make()
