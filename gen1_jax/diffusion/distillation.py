"""Latent consistency distillation (https://arxiv.org/abs/2310.04378): one answer anywhere on a trajectory of a teacher.

    x_t  ──────────────────────────────► student f(x_t, t) ──┐
     └─► teacher ─► one step of DDIM ─► x_t' ─► target f(x_t', t') ─┴─► pseudo-Huber distance

The teacher's ODE takes x_t to x_t' to ... to x_0. A function that gives the same all along it, and x_0 itself at its
end, gives the end of every trajectory: f(x, 0) = x by its coefficients, and the loss asks for the rest.

Cut into parts (multistep consistency models, https://arxiv.org/abs/2403.06807), the function need only give the end of
the part that it is in, x_s: an easier one to learn, and N steps of DDIM from end to end are the teacher's trajectory.

Without a teacher x_t' is the same clean data with the same noise (consistency training, https://arxiv.org/abs/2310.14189):
where x_t leads is then the mean over all data that may lie behind it, exactly so as t' comes near to t, which it does
in the course of training (https://arxiv.org/abs/2406.14548).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key

from gen1_jax.diffusion.broadcast import per_example
from gen1_jax.diffusion.prediction import to_x0_and_epsilon
from gen1_jax.diffusion.samplers import LCM, Denoiser, steps_within
from gen1_jax.diffusion.schedule import NoiseSchedule
from gen1_jax.errors import UserError

_SOLVER = LCM()  # whose few timesteps are among those that are learned in one part


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """What is distilled.

    Attributes:
        teacher: whether the model that the run begins from leads; else there is none, what concerns it and the scales
            of guidance does not count, and edits are guided as those of any model.
        guidance_scales: w is drawn uniformly from the first to the second, for each example.
        temporal_guidance_scales: w_t likewise.
        plain_temporal: how often w_t is 1 instead.
        teacher_interval: the part of its steps in which the teacher is guided, see `guidance_runs`; elsewhere it is the
            conditional model, w = w_t = 1, and the trajectory is that of an edit with this interval.
        huber: c of the distance, in units of latents: far below it squares count, far above it absolute values.
        teacher_steps: of DDIM, by which the teacher follows a trajectory; 50 in one part, as LCM's tables expect.
        parts: of a trajectory. One for samplers that jump to clean data from anywhere (LCM); N for N steps of DDIM.
        guidance_scale: w of the student's edits that do not say otherwise; None for the teacher's, or what is nearest.
        first_steps: without a teacher, how many steps from t to t' a trajectory has at first.
        doubled_every: steps of training after which it has twice as many, until t' is the timestep below t.
    """

    teacher: bool = True
    guidance_scales: tuple[float, float] = (1.0, 4.0)
    temporal_guidance_scales: tuple[float, float] = (0.5, 1.5)
    plain_temporal: float = 0.5
    teacher_interval: tuple[float, float] = (0.0, 1.0)
    huber: float = 1e-3
    teacher_steps: int = _SOLVER.original_steps
    parts: int = 1
    guidance_scale: float | None = None
    first_steps: int = 10
    doubled_every: int = 1000

    def __post_init__(self):
        if min(self.first_steps, self.doubled_every) < 1:
            raise UserError(
                f"consistency.first_steps is {self.first_steps}, .doubled_every {self.doubled_every}: both from 1 on"
            )
        if self.parts < 1 or self.teacher_steps % self.parts or self.teacher_steps == self.parts > 1:
            raise UserError(
                f"consistency.parts is {self.parts}, which does not divide consistency.teacher_steps, "
                f"{self.teacher_steps}, into several steps each"
            )
        if self.parts == 1 and self.teacher_steps != _SOLVER.original_steps:
            raise UserError(
                f"consistency.teacher_steps is {self.teacher_steps}, but in one part it must be those of LCM, "
                f"{_SOLVER.original_steps}"
            )
        for name in ("guidance_scales", "temporal_guidance_scales"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UserError(f"consistency.{name} are {low:g} and {high:g}, which do not ascend from 0 on")
        low, high = self.guidance_scales
        if self.guidance_scale is not None and not low <= self.guidance_scale <= high:
            raise UserError(
                f"consistency.guidance_scale is {self.guidance_scale:g}, not in guidance_scales, {low:g} to {high:g}"
            )
        low, high = self.temporal_guidance_scales
        if not 0 <= self.plain_temporal <= 1 or not (low <= 1 <= high):
            raise UserError(
                f"consistency.plain_temporal is {self.plain_temporal:g}, not in [0, 1], or temporal_guidance_scales "
                f"{low:g} to {high:g} do not hold 1"
            )
        start, end = self.teacher_interval
        if not 0 <= start < end <= 1:
            raise UserError(f"consistency.teacher_interval must ascend within 0 ... 1, got {start:g}:{end:g}")
        if not self.huber > 0:
            raise UserError(f"consistency.huber is {self.huber:g}, not positive")

    @property
    def scales(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """What the student is told lies in these: w, and w_t."""
        return self.guidance_scales, self.temporal_guidance_scales

    def grid(self, schedule: NoiseSchedule) -> Int32[np.ndarray, " n"]:
        """The timesteps of the teacher's steps, descending.

        Raises:
            UserError: the schedule has no so many, or they are not evenly apart.
        """
        if schedule.num_train_timesteps % self.teacher_steps:
            raise UserError(
                f"consistency.teacher_steps is {self.teacher_steps}, which does not divide the schedule's "
                f"{schedule.num_train_timesteps} timesteps"
            )
        return LCM(original_steps=self.teacher_steps).candidates(schedule)

    def ends(self, timesteps: Int[Array, " b"], schedule: NoiseSchedule) -> Int[Array, " b"]:
        """Where the part of each timestep of the grid ends: the first timestep of the next part, or 0."""
        grid = self.grid(schedule)
        each = len(grid) // self.parts
        ends = jnp.asarray([*grid[each::each], 0])
        return ends[(grid[0] - timesteps) // (grid[0] - grid[1]) // each]


def draw_scales(key: Key[Array, ""], config: ConsistencyConfig) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """w and w_t of one example."""
    of_w, of_w_t, of_plain = jax.random.split(key, 3)
    between = lambda key, low, high: jax.random.uniform(key, minval=low, maxval=high)
    w_t = between(of_w_t, *config.temporal_guidance_scales)
    plain = jax.random.bernoulli(of_plain, config.plain_temporal)
    return between(of_w, *config.guidance_scales), jnp.where(plain, 1.0, w_t)


def draw_timesteps(
    key: Key[Array, ""], schedule: NoiseSchedule, config: ConsistencyConfig
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """A timestep t of the teacher's grid and the next one on the way down, t'; 0 after the lowest."""
    grid = jnp.asarray(config.grid(schedule))
    now = jax.random.choice(key, grid)
    return now, jnp.maximum(now - (grid[0] - grid[1]), 0)


def timesteps_below(
    now: Int[Array, " b"], step: Int[Array, ""] | int, schedule: NoiseSchedule, config: ConsistencyConfig
) -> Int[Array, " b"]:
    """t' of t without a teacher: nearer to it the further training is, but not beyond where the part of t ends.

    Args:
        now: t, at least 1.
        step: of training.
        schedule: of the noise.
        config: says how soon t' comes nearer.
    """
    count = schedule.num_train_timesteps
    doublings = jnp.minimum(step // config.doubled_every, count.bit_length())
    apart = jnp.maximum(count // (config.first_steps * 2**doublings), 1)
    end = 0 if config.parts == 1 else config.ends(now, schedule)
    return jnp.maximum(now - apart, end)


def teacher_scales(
    w: Float[Array, " b"],
    w_t: Float[Array, " b"],
    timesteps: Int[Array, " b"],
    schedule: NoiseSchedule,
    config: ConsistencyConfig,
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Scales of the teacher at timesteps of its grid: 1 outside its interval."""
    grid = jnp.asarray(config.grid(schedule))
    within = steps_within(*config.teacher_interval, len(grid))
    step = (grid[0] - timesteps) // (grid[0] - grid[1])
    guided = (step >= within.start) & (step < within.stop)
    return jnp.where(guided, w, 1.0), jnp.where(guided, w_t, 1.0)


def consistency_function(
    model: Denoiser,
    noisy: Float[Array, " b *dims"],
    timesteps: Int[Array, " b"],
    schedule: NoiseSchedule,
    prediction_type: str,
) -> Float[Array, " b *dims"]:
    """f(x_t, t) = c_skip(t) x_t + c_out(t) x_0, float32, the same that a step of `LCM` estimates; f(x, 0) = x.

    Args:
        model: predicts.
        noisy: x_t.
        timesteps: t.
        schedule: of the noise.
        prediction_type: what the model predicts.
    """
    x0, _ = to_x0_and_epsilon(prediction_type, model(noisy, timesteps), noisy, *schedule.alpha_sigma(timesteps))
    skip, out = _SOLVER.boundary(timesteps)
    return per_example(skip, noisy) * noisy + per_example(out, noisy) * x0


def solver_step(
    model: Denoiser,
    noisy: Float[Array, " b *dims"],
    now: Int[Array, " b"],
    then: Int[Array, " b"],
    schedule: NoiseSchedule,
    prediction_type: str,
) -> Float[Array, " b *dims"]:
    """One step of DDIM from timesteps `now` to `then`; other arguments as for `consistency_function`."""
    x0, epsilon = to_x0_and_epsilon(prediction_type, model(noisy, now), noisy, *schedule.alpha_sigma(now))
    return schedule.add_noise(x0, epsilon, then)


def leading_from(
    noisy: Float[Array, " b *dims"],
    now: Int[Array, " b"],
    reached: Float[Array, " b *dims"],
    end: Int[Array, " b"],
    schedule: NoiseSchedule,
) -> Float[Array, " b *dims"]:
    """The x_0 by which one step of DDIM leads from x_t to x_s, t > s: (x_s - r x_t) / (alpha_s - r alpha_t), where
    r = sigma_s / sigma_t. Source: https://arxiv.org/abs/2403.06807, algorithm 1 (invDDIM).
    """
    (alpha, sigma), (alpha_end, sigma_end) = schedule.alpha_sigma(now), schedule.alpha_sigma(end)
    ratio = sigma_end / sigma
    scale = lambda level: per_example(level, noisy)
    return (reached - scale(ratio) * noisy) / scale(alpha_end - ratio * alpha)


def consistency_loss(
    student: Denoiser,
    target: Denoiser,
    noisy: Float[Array, " b *dims"],
    below: Float[Array, " b *dims"],
    now: Int[Array, " b"],
    then: Int[Array, " b"],
    *,
    schedule: NoiseSchedule,
    prediction_type: str,
    huber: float,
    end: Int[Array, " b"] | None = None,
) -> Float[Array, " b"]:
    """How far the student is from the target one step further down the trajectory; no gradient reaches the target.

    Differences are small ones of large numbers: all is float32 but what happens inside the models.

    Args:
        student: that learns.
        target: the same, or its running mean.
        noisy: x_t.
        below: x_t' of the same trajectory: by `solver_step` of a teacher, or the same data with the same noise.
        now: t.
        then: t', see `draw_timesteps` and `timesteps_below`.
        schedule: of the noise.
        prediction_type: of both.
        huber: c of the distance, see `ConsistencyConfig`.
        end: of several parts that in which t lies, see `ConsistencyConfig.ends`; None for one part.

    Returns:
        (B,) the mean of sqrt(d² + c²) - c over every axis but the first, d of estimates of x_0.
    """
    given = schedule, prediction_type
    if end is None:
        wanted = consistency_function(target, below, then, *given)
        answer = consistency_function(student, noisy, now, *given)
    else:  # where t' is the end, x_t' comes back from its own step, whatever the target says
        reached = solver_step(target, below, then, end, *given)
        wanted = leading_from(noisy, now, reached, end, schedule)
        answer, _ = to_x0_and_epsilon(prediction_type, student(noisy, now), noisy, *schedule.alpha_sigma(now))
    distance = answer - jax.lax.stop_gradient(wanted)
    return jnp.mean(jnp.sqrt(jnp.square(distance) + huber**2) - huber, axis=range(1, distance.ndim))
