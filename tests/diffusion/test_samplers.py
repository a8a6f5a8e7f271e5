"""The samplers against diffusers, step by step on random model outputs."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import PREDICTION_TYPES, SAMPLERS, NoiseSchedule, Sampler, get_sampler
from gen1_jax.diffusion.samplers import TIMESTEP_SPACINGS
from gen1_jax.errors import UserError

STEP_COUNTS = (1, 2, 5, 16, 50)
SHAPE = (2, 3, 4)
STABLE_DIFFUSION = NoiseSchedule()
ANIMATEDIFF = NoiseSchedule(beta_schedule="linear", set_alpha_to_one=True)
ZERO_SNR = NoiseSchedule(rescale_zero_terminal_snr=True)

jitted_step = jax.jit(lambda sampler, *args: sampler.step(*args), static_argnums=0)


def diffusers_ddim(prediction_type, spacing, rescale=False, **options):
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
        | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
        | options,
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


def diffusers_few_steps(name, prediction_type, **options):
    import diffusers

    scheduler = {"lcm": diffusers.LCMScheduler, "tcd": diffusers.TCDScheduler}[name]
    return scheduler(
        **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False} | options,
        prediction_type=prediction_type,
    )


def steps_to_the_next_timestep(scheduler, i):
    """Makes diffusers' DDIM step i land on timestep i + 1 of the run, for which it has T // N alone."""
    timesteps = [*scheduler.timesteps.tolist(), -1]
    scheduler.num_inference_steps = 1
    scheduler.register_to_config(num_train_timesteps=timesteps[i] - timesteps[i + 1])


def assert_same_run(
    sampler, scheduler, prediction_type, num_steps, *, schedule=STABLE_DIFFUSION, start=0, before_step=None
):
    rng = np.random.default_rng(num_steps)
    latents, *outputs = rng.normal(size=(num_steps + 1, *SHAPE)).astype(np.float32)
    tables = sampler.tables(schedule, num_steps, prediction_type)
    scheduler.set_timesteps(num_steps)
    np.testing.assert_array_equal(tables.timesteps, scheduler.timesteps.numpy())
    if start:
        scheduler.set_begin_index(start)
    steps = range(start, num_steps)
    assert_same_steps(sampler, tables, scheduler, latents, outputs, steps, steps, before_step=before_step)


def assert_same_steps(
    sampler, tables, scheduler, latents, outputs, ours, theirs, *, before_step=None, key=None, **options
):
    """Steps `ours` of the tables and `theirs` of the scheduler, which are the same ones."""
    import torch

    state, x = sampler.init(jnp.asarray(latents), key), torch.from_numpy(latents)
    for i, k in zip(ours, theirs, strict=True):
        if before_step:
            before_step(scheduler, k)
        state = jitted_step(sampler, tables, i, state, jnp.asarray(outputs[i]))
        x = scheduler.step(torch.from_numpy(outputs[i]), scheduler.timesteps[k], x, **options).prev_sample
        np.testing.assert_allclose(state.latents, x.numpy(), rtol=0, atol=1e-4 * float(x.abs().max()))


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
        assert_same_run(get_sampler(name), scheduler, prediction_type, num_steps, schedule=ZERO_SNR)


def test_defaults_are_those_of_stable_diffusion():
    assert_same_run(get_sampler("ddim"), diffusers_ddim("epsilon", "leading"), "epsilon", 50)
    assert_same_run(get_sampler("dpm++"), diffusers_dpm_solver("epsilon", "linspace"), "epsilon", 20)


@pytest.mark.parametrize("start", [1, 4, 9])
def test_dpm_solver_begun_in_the_middle_equals_diffusers(start):
    """The first step taken has no estimate before it, wherever in the run it is."""
    scheduler = diffusers_dpm_solver("v_prediction", "linspace")
    assert_same_run(get_sampler("dpm++"), scheduler, "v_prediction", 10, start=start)


def test_ancestral_steps_from_noise_alone_have_numbers():
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    for num_steps in range(1, 100):
        tables = get_sampler("ddim", eta=1.0).tables(schedule, num_steps, "v_prediction")
        assert all(np.isfinite(column).all() for column in tables), num_steps


def test_ddim_may_end_at_clean_data():
    sampler = get_sampler("ddim", set_alpha_to_one=True)
    assert_same_run(sampler, diffusers_ddim("epsilon", "leading", set_alpha_to_one=True), "epsilon", 5)


@pytest.mark.parametrize("clean", [True, False])
def test_ddim_ends_as_the_schedule_says_where_nothing_else_is_said(clean):
    """The schedules of AnimateDiff and of Stable Diffusion."""
    options = {"beta_schedule": "linear"} if clean else {}
    scheduler = diffusers_ddim("epsilon", "leading", set_alpha_to_one=clean, **options)
    schedule = ANIMATEDIFF if clean else NoiseSchedule()
    assert_same_run(get_sampler("ddim"), scheduler, "epsilon", 25, schedule=schedule)
    other = get_sampler("ddim", set_alpha_to_one=not clean).tables(schedule, 25, "epsilon")
    assert (other.from_latents[-1] == 0) == (not clean)


@pytest.mark.parametrize(("num_steps", "strength"), [(25, 0.6), (10, 0.7), (50, 0.58), (3, 0.4), (7, 1.0)])
def test_a_strength_keeps_the_last_steps_as_in_diffusers(num_steps, strength):
    rng = np.random.default_rng(0)
    for name, oracle in (("ddim", diffusers_ddim), ("dpm++", diffusers_dpm_solver)):
        sampler, scheduler = get_sampler(name, timestep_spacing="leading"), oracle("epsilon", "leading")
        scheduler.set_timesteps(num_steps)
        start = max(num_steps - min(int(num_steps * strength), num_steps), 0)  # `get_timesteps` of diffusers' img2img
        scheduler.set_begin_index(start) if name == "dpm++" else None
        tables = sampler.tables(NoiseSchedule(), num_steps, "epsilon", strength)
        np.testing.assert_array_equal(tables.timesteps, scheduler.timesteps[start:].numpy())
        run = len(tables.timesteps)
        latents, *outputs = rng.normal(size=(run + 1, *SHAPE)).astype(np.float32)
        assert_same_steps(sampler, tables, scheduler, latents, outputs, range(run), range(start, num_steps))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(
    ("name", "options", "theirs", "eta"),
    [
        ("lcm", {}, {}, {}),
        ("lcm", {"original_steps": 100}, {"original_inference_steps": 100}, {}),
        ("tcd", {}, {}, {}),
        ("tcd", {"gamma": 0.0}, {}, {"eta": 0.0}),
        ("tcd", {"gamma": 1.0, "original_steps": 100}, {"original_inference_steps": 100}, {"eta": 1.0}),
    ],
)
def test_samplers_of_few_steps_equal_diffusers(name, options, theirs, eta, prediction_type, monkeypatch):
    sampler, scheduler = get_sampler(name, **options), diffusers_few_steps(name, prediction_type, **theirs)
    schedule, key, rng = NoiseSchedule(beta_schedule="linear"), jax.random.key(3), np.random.default_rng(0)
    for num_steps, strength in ((1, 1.0), (4, 1.0), (4, 0.55), (8, 1.0)):
        scheduler.set_timesteps(num_steps, strength=strength)
        tables = sampler.tables(schedule, num_steps, prediction_type, strength)
        np.testing.assert_array_equal(tables.timesteps, scheduler.timesteps.numpy())
        latents, *outputs = rng.normal(size=(num_steps + 1, *SHAPE)).astype(np.float32)
        feed_noise(monkeypatch, scheduler, key)
        steps = range(num_steps)
        assert_same_steps(sampler, tables, scheduler, latents, outputs, steps, steps, key=key, **eta)


def feed_noise(monkeypatch, scheduler, key):
    """Lets diffusers draw what our step i draws."""
    import torch

    draws = (np.array(jax.random.normal(jax.random.fold_in(key, i), SHAPE)) for i in range(1000))
    module = sys.modules[type(scheduler).__module__]
    monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: torch.from_numpy(next(draws)))


def test_few_steps_visit_diffusers_timesteps_for_every_number_and_strength():
    schedule = NoiseSchedule()
    for original in (50, 100, 64):
        ours, theirs = get_sampler("lcm", original_steps=original), diffusers_few_steps("lcm", "epsilon")
        for strength in (1.0, 0.8, 0.58, 0.29, 0.1):
            most = int(original * strength)
            for num_steps in {1, 4, min(6, most), most // 2, most - 1, most}:
                theirs.set_timesteps(num_steps, original_inference_steps=original, strength=strength)
                timesteps = ours.tables(schedule, num_steps, "epsilon", strength).timesteps
                np.testing.assert_array_equal(timesteps, theirs.timesteps.numpy())


def test_few_steps_in_numbers():
    """Of the linear schedule, N = 4, as rows (timestep, from_x0, from_latents, from_noise)."""
    golden = {
        "lcm": [
            (999, 0.143901, 3.605e-10, 0.989592),
            (759, 0.402259, 1.746e-9, 0.915526),
            (499, 0.741717, 7.447e-9, 0.670713),
            (259, 0.999999981, 3.727e-8, 0),
        ],
        "tcd": [
            (999, 0.129155, 0.371085, 0.917500),
            (759, 0.326747, 0.524748, 0.754009),
            (499, 0.534737, 0.514546, 0.477430),
            (259, 0.967334, 0.043468, 0),
        ],
    }
    for name, rows in golden.items():
        tables = get_sampler(name).tables(ANIMATEDIFF, 4, "epsilon")
        columns = tables.timesteps, tables.from_x0, tables.from_latents, tables.from_noise
        np.testing.assert_allclose(np.stack(columns, axis=1), rows, rtol=2e-4, atol=1e-12)
        assert not tables.from_x0_change.any()


def test_ddim_of_stable_diffusion_visits_these_timesteps():
    visited = lambda n: get_sampler("ddim").tables(NoiseSchedule(), n, "epsilon").timesteps.tolist()
    for count, ends in {25: [961, 921, 881, 41, 1], 30: [958, 925, 892, 34, 1], 50: [981, 961, 941, 21, 1]}.items():
        assert visited(count)[:3] + visited(count)[-2:] == ends


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


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_keep_the_protocol_and_hash_by_value(name):
    field, usual, other = (
        ("original_steps", 50, 100) if name in ("lcm", "tcd") else ("timestep_spacing", None, "trailing")
    )
    assert isinstance(get_sampler(name), Sampler)
    assert hash(get_sampler(name)) == hash(get_sampler(name, **{field: usual}))
    assert get_sampler(name) != get_sampler(name, **{field: other})


@pytest.mark.parametrize("name", ["ddim", "dpm++"])
def test_epsilon_is_refused_where_no_signal_is_left(name):
    schedule = NoiseSchedule(rescale_zero_terminal_snr=True)
    with pytest.raises(ValueError, match=r"epsilon.*zero terminal SNR"):
        get_sampler(name).tables(schedule, 10, "epsilon")
    get_sampler(name, timestep_spacing="leading").tables(schedule, 10, "epsilon")  # begins below the end


@pytest.mark.parametrize("num_steps", [-1, 0, 1001])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_wrong_number_of_steps_is_refused(name, num_steps):
    most = 50 if name in ("lcm", "tcd") else 1000
    with pytest.raises(ValueError, match=f"num_inference_steps must be between 1 and {most}, got {num_steps}"):
        get_sampler(name).tables(NoiseSchedule(), num_steps, "epsilon")


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_strength_that_is_none_is_refused_by_name(name):
    for strength in (0.0, -0.5, 1.01, float("nan")):
        with pytest.raises(UserError, match=f"^strength must be above 0 and at most 1, got {strength}$"):
            get_sampler(name).tables(NoiseSchedule(), 4, "epsilon", strength)
    with pytest.raises(UserError, match=r"strength 0\.01"):
        get_sampler(name).tables(NoiseSchedule(), 4, "epsilon", 0.01)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        (r"'euler'; choose one of: ddim, dpm\+\+, lcm, tcd", lambda: get_sampler("euler")),
        ("timestep_spacing", lambda: get_sampler("ddim", timestep_spacing="karras")),
        ("steps_offset", lambda: get_sampler("dpm++", steps_offset=-1)),
        ("eta", lambda: get_sampler("ddim", eta=1.5)),
        ("eta", lambda: get_sampler("ddim", eta=float("nan"))),
        ("needs a key", lambda: get_sampler("ddim", eta=0.5).init(jnp.zeros((1, 2)))),
        ("needs a key", lambda: get_sampler("lcm").init(jnp.zeros((1, 2)))),
        ("gamma", lambda: get_sampler("tcd", gamma=1.2)),
        ("original_steps", lambda: get_sampler("lcm", original_steps=0)),
        (
            "original_steps is 2000",
            lambda: get_sampler("tcd", original_steps=2000).tables(NoiseSchedule(), 5, "epsilon"),
        ),
        ("between 1 and 25 at strength 0.5, got 30", lambda: get_sampler("lcm").tables(ANIMATEDIFF, 30, "sample", 0.5)),
        ("zero terminal SNR", lambda: get_sampler("tcd").tables(ZERO_SNR, 4, "epsilon")),
        ("prediction_type", lambda: get_sampler("ddim").tables(NoiseSchedule(), 5, "v")),
    ],
)
def test_wrong_options_are_named(message, make):
    with pytest.raises(ValueError, match=message):
        make()
