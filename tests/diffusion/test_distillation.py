"""Consistency distillation on data whose trajectories are known: affine maps, for Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import relative_error

from gen1_jax.diffusion import DDIM, LCM, NoiseSchedule, sample
from gen1_jax.diffusion.distillation import (
    ConsistencyConfig,
    consistency_function,
    consistency_loss,
    draw_scales,
    draw_timesteps,
    leading_from,
    solver_step,
    teacher_scales,
    timesteps_below,
)
from gen1_jax.errors import UserError

SCHEDULE = NoiseSchedule(rescale_zero_terminal_snr=True)
MEAN, DEVIATION = 1.5, 0.5
KIND = "v_prediction"
GRID = LCM().candidates(SCHEDULE)


def teacher(noisy, timesteps):
    """The best prediction of v there is where data are N(MEAN, DEVIATION²)."""
    alpha, sigma = (level[:, None] for level in SCHEDULE.alpha_sigma(timesteps))
    variance = alpha**2 * DEVIATION**2 + sigma**2
    x0 = MEAN + alpha * DEVIATION**2 / variance * (noisy - alpha * MEAN)
    return (alpha * noisy - x0) / sigma


def ends():
    """(slope, offset) at every timestep of the map to where steps of DDIM end that begin there, the grid descending."""
    slope, offset = np.ones(1000), np.zeros(1000)
    for now in GRID[::-1]:
        then = max(now - 20, 0)
        at = jnp.array([now, now]), jnp.array([then, then])
        low, high = np.asarray(solver_step(teacher, jnp.array([[0.0], [1.0]]), *at, SCHEDULE, KIND))[:, 0]
        slope[now], offset[now] = slope[then] * (high - low), slope[then] * low + offset[then]
    return jnp.asarray(slope, jnp.float32), jnp.asarray(offset, jnp.float32)


def answering(slope, offset):
    """The model whose consistency function is x -> slope_t x + offset_t."""

    def model(noisy, timesteps):
        skip, out = (x[:, None] for x in LCM().boundary(timesteps))
        alpha, sigma = (level[:, None] for level in SCHEDULE.alpha_sigma(timesteps))
        wanted = slope[timesteps][:, None] * noisy + offset[timesteps][:, None]
        x0 = (wanted - skip * noisy) / jnp.where(out == 0, 1, out)
        return (alpha * noisy - x0) / sigma

    return model


@pytest.fixture(scope="module")
def exact():
    return ends()


@pytest.fixture(scope="module")
def batch():
    """Noisy data at each timestep of the grid, eight of each."""
    now = jnp.asarray(np.repeat(GRID, 8))
    keys = jax.random.split(jax.random.key(0))
    x0, noise = (jax.random.normal(key, (len(now), 4)) for key in keys)
    return SCHEDULE.add_noise(MEAN + DEVIATION * x0, noise, now), now, jnp.maximum(now - 20, 0)


def loss(slopes, target, batch):
    given = dict(schedule=SCHEDULE, prediction_type=KIND, huber=1e-3)
    noisy, now, then = batch
    return consistency_loss(answering(*slopes), answering(*target), noisy, led(*batch), now, then, **given)


def led(noisy, now, then):
    """By a step of the teacher."""
    return solver_step(teacher, noisy, now, then, SCHEDULE, KIND)


def test_what_solves_the_teachers_trajectories_is_the_fixed_point(exact, batch):
    slope_of = jax.jit(jax.value_and_grad(lambda own, target: loss(own, target, batch).sum()))
    (at_rest, gradients), none = slope_of(exact, exact), 1e-3
    assert at_rest / len(batch[0]) < 1e-6 and max(jnp.abs(g).max() for g in gradients) < 0.05
    for changed in ((exact[0] * 1.1, exact[1]), (exact[0], exact[1] + 0.1)):
        distance, gradients = slope_of(changed, exact)
        assert distance / len(batch[0]) > 10 * none and max(jnp.abs(g).max() for g in gradients) > 1
    (noisy, now, then), given = batch, dict(schedule=SCHEDULE, prediction_type=KIND, huber=1e-3)
    plain = consistency_loss(teacher, teacher, noisy, led(*batch), now, then, **given)
    assert plain.mean() > 1e-3  # what the denoiser itself says of x_0 differs along the way


def test_the_solution_is_learned_from_the_target_alone(exact, batch):
    """From nothing, by the loss and a running mean as target; each timestep waits for those below it."""

    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))

    @jax.jit
    def descend(own, target, state):
        slopes = jax.grad(lambda own: loss(own, target, batch).sum())(own)
        updates, state = optimizer.update(slopes, state)
        own = optax.apply_updates(own, updates)
        return own, jax.tree.map(lambda old, new: 0.5 * old + 0.5 * new, target, own), state

    own = target = begun = jnp.ones(1000), jnp.zeros(1000)
    state = optimizer.init(own)
    for _ in range(2000):
        own, target, state = descend(own, target, state)
    noisy, now, _ = batch
    function = lambda of: consistency_function(answering(*of), noisy, now, SCHEDULE, KIND)
    error = lambda of: jnp.abs(function(of) - function(exact)).mean()
    assert error(own) < 0.05 * error(begun)


def test_one_step_of_the_solution_is_fifty_of_the_teacher(exact):
    noise = jax.random.normal(jax.random.key(1), (512, 4))
    fast = sample(answering(*exact), SCHEDULE, LCM(), noise, 1, KIND, key=jax.random.key(2))
    slow = sample(teacher, SCHEDULE, DDIM(), noise, 50, KIND)
    assert relative_error(fast, slow) < 1e-4
    assert abs(fast.mean() - MEAN) < 0.05 and abs(fast.std() - DEVIATION) < 0.05


FOUR = ConsistencyConfig(parts=4, teacher_steps=40)


def jumping(slope, offset):
    """The model whose step of DDIM to the end of each part is x -> slope_t x + offset_t."""

    def model(noisy, timesteps):
        alpha, sigma = (level[:, None] for level in SCHEDULE.alpha_sigma(timesteps))
        reached = slope[timesteps][:, None] * noisy + offset[timesteps][:, None]
        x0 = leading_from(noisy, timesteps, reached, FOUR.ends(timesteps, SCHEDULE), SCHEDULE)
        x0 = jnp.where(timesteps[:, None] == 0, noisy, x0)  # at the end nothing is asked of it
        return (alpha * noisy - x0) / sigma

    return model


@pytest.fixture(scope="module")
def in_parts():
    """(slope, offset) at every timestep of the map to where the part ends that it is in."""
    grid = FOUR.grid(SCHEDULE)
    slope, offset = np.ones(1000), np.zeros(1000)
    for now, end in zip(grid[::-1], np.asarray(FOUR.ends(jnp.asarray(grid), SCHEDULE))[::-1], strict=True):
        then = max(now - 25, 0)
        at = jnp.array([now, now]), jnp.array([then, then])
        low, high = np.asarray(solver_step(teacher, jnp.array([[0.0], [1.0]]), *at, SCHEDULE, KIND))[:, 0]
        further = (slope[then], offset[then]) if then != end else (1.0, 0.0)
        slope[now], offset[now] = further[0] * (high - low), further[0] * low + further[1]
    return jnp.asarray(slope, jnp.float32), jnp.asarray(offset, jnp.float32)


def test_parts_end_where_steps_of_ddim_begin():
    grid = jnp.asarray(FOUR.grid(SCHEDULE))
    ends = np.asarray(FOUR.ends(grid, SCHEDULE))
    begun = DDIM().tables(SCHEDULE, 4, KIND).timesteps
    assert np.array_equal(begun, [999, 749, 499, 249]) and np.array_equal(ends[::10], [*begun[1:], 0])
    assert (np.diff(ends) <= 0).all() and (ends < grid).all() and len(set(ends)) == 4


def test_in_parts_the_teachers_trajectories_are_the_fixed_point_too(in_parts):
    grid = FOUR.grid(SCHEDULE)
    now = jnp.asarray(np.repeat(grid, 8))
    x0, noise = (jax.random.normal(key, (len(now), 4)) for key in jax.random.split(jax.random.key(0)))
    noisy = SCHEDULE.add_noise(MEAN + DEVIATION * x0, noise, now)
    then = jnp.maximum(now - 25, 0)
    at = noisy, led(noisy, now, then), now, then
    given = dict(schedule=SCHEDULE, prediction_type=KIND, huber=1e-3, end=FOUR.ends(now, SCHEDULE))
    distance = lambda own, target: consistency_loss(own, target, *at, **given).mean()
    exact = jumping(*in_parts)
    assert distance(exact, exact) < 1e-5 < 1e-3 < distance(teacher, teacher)
    for changed in (jumping(in_parts[0] * 1.1, in_parts[1]), jumping(in_parts[0], in_parts[1] + 0.1)):
        assert distance(changed, exact) > 1e-2 and distance(exact, changed) > 1e-2


def test_four_steps_in_parts_are_forty_of_the_teacher(in_parts):
    noise = jax.random.normal(jax.random.key(1), (512, 4))
    fast = sample(jumping(*in_parts), SCHEDULE, DDIM(), noise, 4, KIND)
    slow = sample(teacher, SCHEDULE, DDIM(), noise, 40, KIND)
    assert relative_error(fast, slow) < 1e-4 < relative_error(sample(teacher, SCHEDULE, DDIM(), noise, 4, KIND), slow)


def test_the_end_of_a_trajectory_is_itself(batch):
    noisy, first = batch[0], jnp.zeros(len(batch[0]), jnp.int32)
    assert np.array_equal(consistency_function(teacher, noisy, first, SCHEDULE, KIND), noisy)


def test_draws_lie_where_sampling_will_be():
    keys = jax.random.split(jax.random.key(0), 2000)
    now, then = map(np.asarray, jax.vmap(lambda key: draw_timesteps(key, SCHEDULE, ConsistencyConfig()))(keys))
    assert set(now) == set(GRID) and set(then) == {*GRID[1:], 0} and np.array_equal(then, np.maximum(now - 20, 0))
    w, w_t = map(np.asarray, jax.vmap(lambda key: draw_scales(key, ConsistencyConfig()))(keys))
    assert 1 <= w.min() < 1.1 and 3.9 < w.max() <= 4 and 0.5 <= w_t.min() < 0.6 and 1.4 < w_t.max() <= 1.5
    assert 0.45 < (w_t == 1).mean() < 0.55 and abs(np.corrcoef(w, w_t)[0, 1]) < 0.1


def test_a_teacher_is_guided_in_its_interval_alone():
    w = jnp.full(50, 3.0)
    of_w, of_w_t = teacher_scales(w, w / 2, jnp.asarray(GRID), SCHEDULE, ConsistencyConfig(teacher_interval=(0.1, 0.6)))
    assert np.array_equal(of_w, [1] * 5 + [3] * 25 + [1] * 20) and np.array_equal(of_w_t == 1.5, of_w == 3)
    assert np.array_equal(teacher_scales(w, w, jnp.asarray(GRID), SCHEDULE, ConsistencyConfig())[0], w)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(guidance_scales=(4.0, 1.0)),
        dict(temporal_guidance_scales=(1.2, 1.5)),
        dict(plain_temporal=1.5),
        dict(teacher_interval=(0.6, 0.1)),
        dict(huber=0.0),
        dict(parts=3),
        dict(parts=50),
        dict(teacher_steps=40),
    ],
)
def test_refuses(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        ConsistencyConfig(**wrong)


TRAINED = ConsistencyConfig(teacher=False, first_steps=10, doubled_every=100)


def test_without_a_teacher_the_next_timestep_comes_nearer():
    now = jnp.array([999, 500, 40, 1])
    below = lambda step, config=TRAINED: np.asarray(timesteps_below(now, step, SCHEDULE, config)).tolist()
    assert below(0) == below(99) == [899, 400, 0, 0] and below(100) == [949, 450, 0, 0]
    assert below(650) == [998, 499, 39, 0] == below(10**6)
    in_parts = ConsistencyConfig(teacher=False, parts=4, teacher_steps=40)
    assert below(0, in_parts) == [899, 499, 0, 0]
    assert np.asarray(timesteps_below(jnp.array([760, 749]), 0, SCHEDULE, in_parts)).tolist() == [749, 649]
    with pytest.raises(UserError, match=r"first_steps is 0, \.doubled_every 1000: both from 1 on"):
        ConsistencyConfig(first_steps=0)


def test_the_nearer_it_is_the_more_the_data_themselves_lead_as_their_trajectories_do():
    """Of Gaussian data the slope of the loss at what solves their trajectories, a timestep of way: it is to vanish."""
    slope, offset = of_trajectories()
    keys = jax.random.split(jax.random.key(0))
    now = jnp.repeat(jnp.arange(110, 991, 220), 5000)
    x0, noise = (jax.random.normal(key, (len(now), 4)) for key in keys)
    given = dict(schedule=SCHEDULE, prediction_type=KIND, huber=10.0)

    @jax.jit
    def slopes(then):
        noisy, below = (SCHEDULE.add_noise(MEAN + DEVIATION * x0, noise, at) for at in (now, then))
        exact = answering(slope, offset)
        total = lambda own: consistency_loss(answering(*own), exact, noisy, below, now, then, **given).sum()
        return jax.grad(total)((slope, offset))[0]

    far, near = (np.abs(slopes(timesteps_below(now, step, SCHEDULE, TRAINED))).sum() for step in (0, 500))
    assert near / 3 < 0.1 * far / 100


def of_trajectories():
    """(slope, offset) at every timestep of the map to the end of the trajectory, of infinitely many steps."""
    alpha, sigma = SCHEDULE.alpha_sigma(jnp.arange(1000))
    slope = jnp.sqrt((alpha[0] ** 2 * DEVIATION**2 + sigma[0] ** 2) / (alpha**2 * DEVIATION**2 + sigma**2))
    return slope, alpha[0] * MEAN - slope * alpha * MEAN
