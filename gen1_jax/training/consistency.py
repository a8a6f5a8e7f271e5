"""What a U-Net of few steps learns: to give at once what guided steps of its teacher lead to.

    teacher (frozen, equation 10 with w and w_t) ──one step of DDIM──► z_t' ──► running mean of the student ─┐
    z_t, told w and w_t ──► student ───────────────────────────────────────────────────────────────────────┴─► loss

The teacher is the model that the run began from, the target the run's own EMA. The student has its weights at first,
and zeros for what it is told of the scales: see `models.unet.guidance`; the mathematics is `diffusion.distillation`.

    z_0, noise ──added at t'──► student, out of reach of gradients ─┐
             └─added at t ────► student ────────────────────────────┴─► loss      (`consistency.teacher=False`)

Without a teacher the student is told content and structure alone, and equation 10 is of its own branches, as in any
model. The target is the network itself, so that a mean as slow as one likes may ship.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from gen1_jax.diffusion import Denoiser, Guidance, guided_denoiser
from gen1_jax.diffusion.distillation import (
    ConsistencyConfig,
    consistency_loss,
    draw_scales,
    draw_timesteps,
    solver_step,
    teacher_scales,
    timesteps_below,
)
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.module import Params, cast_kernels
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.learned import BesideTeacher
from gen1_jax.training.objective import ALONE, BatchArrays, Context

CONSISTENCY = "consistency"
"""The name that recipes give."""

STEPS = 4
"""Of LCM, of an edit with a distilled model that does not say otherwise."""

_TIMESTEPS, _SCALES = 6, 7  # draws of an example, apart from those of noise, content and structure


def distilled(base: Gen1Config, settings: ConsistencyConfig) -> Gen1Config:
    """The family of a student: it edits in a few steps of LCM, or in as many of DDIM as its trajectories have parts;
    it is told w and w_t, if it has a teacher.

    Args:
        base: the teacher's.
        settings: of the distillation.

    Raises:
        UserError: the U-Net has controls, which cannot be told; or the teacher is a rectified flow, for which there are
            no samplers of few steps; or parts do not begin where steps of DDIM do.
    """
    if base.schedule.use_flow_sigmas:
        raise UserError(f"objective {CONSISTENCY}: LCM is for variance-preserving schedules, not for rectified flow")
    if settings.parts > 1 and not base.schedule.rescale_zero_terminal_snr:
        raise UserError("consistency.parts: of several, DDIM has to begin at the last timestep, with zero terminal SNR")
    few = dict(sampler="lcm", num_inference_steps=STEPS)
    if settings.parts > 1:
        few = dict(sampler="ddim", num_inference_steps=settings.parts)
    if not settings.teacher:
        return dataclasses.replace(base, **few)
    low, high = settings.guidance_scales
    own = min(max(base.guidance_scale, low), high)
    return dataclasses.replace(
        base,
        **few,
        unet=dataclasses.replace(base.unet, guidance_embedded=True),
        guidance_interval=(0.0, 1.0),
        guidance_scale=own if settings.guidance_scale is None else settings.guidance_scale,
        distilled_scales=settings.scales,
    )


class _Neighbours(NamedTuple):
    """What is to give the same, of a batch; see `consistency_loss`."""

    student: Denoiser
    target: Denoiser
    noisy: Float[Array, "b t h w c"]
    below: Float[Array, "b t h w c"]
    now: Int[Array, " b"]
    then: Int[Array, " b"]


class ConsistencyObjective(DenoisingObjective):
    """Latent consistency distillation, or consistency training. See `Objective`; arguments as for `DenoisingObjective`.

    What examples are told is what they are told there; for a teacher w, w_t and a timestep of the solver's grid are
    drawn beside it.

    Raises:
        UserError: as there, or a weighting, which this loss has not, or with a teacher a density of noise levels.
    """

    def __init__(self, config: Gen1Config, settings: DenoisingConfig, **options):
        super().__init__(config, settings, **options)
        if settings.weighting != "uniform":
            raise UserError(f"unet.weighting is {settings.weighting!r}: the objective {CONSISTENCY} has none")
        if settings.consistency.teacher:
            if not settings.timesteps.is_uniform:
                raise UserError(
                    f"unet.timesteps is a density: the objective {CONSISTENCY} has timesteps of its own, a teacher's"
                )
            self.learned = BesideTeacher(self.learned)

    def _frozen_parts(self) -> tuple[str, ...]:
        teacher = (self.component,) if self.settings.consistency.teacher else ()
        return *super()._frozen_parts(), *teacher

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The distance of each example, and the same by range of timesteps; `context.ema` is a teacher's target."""
        settings, schedule = self.settings.consistency, self.config.schedule
        neighbours = self._of_teacher if settings.teacher else self._of_data
        pair = neighbours(weights, frozen, inputs, keys, context)
        losses = consistency_loss(
            **pair._asdict(),
            schedule=schedule,
            prediction_type=self.config.unet.prediction_type,
            huber=settings.huber,
            end=None if settings.parts == 1 else settings.ends(pair.now, schedule),
        )
        return losses, self.by_noise(losses, pair.now)

    def _of_data(
        self, weights: Params, frozen: Mapping[str, Params], inputs: BatchArrays, keys: Array, context: Context
    ) -> _Neighbours:
        """The same data with the same noise."""
        given, schedule = self.prepare(weights, frozen, inputs, keys, context), self.config.schedule
        now = jnp.maximum(given.timestep, 1)
        then = timesteps_below(now, context.step, schedule, self.settings.consistency)
        noisy, below = (schedule.add_noise(given.latents, given.noise, timestep) for timestep in (now, then))
        student = self._denoiser(weights, given.conditions)
        return _Neighbours(student, student, noisy, below, now, then)

    def _of_teacher(
        self, weights: Params, frozen: Mapping[str, Params], inputs: BatchArrays, keys: Array, context: Context
    ) -> _Neighbours:
        """From where examples are to where a step of the teacher leads."""
        config, settings = self.config, self.settings.consistency
        teacher = frozen[self.component]
        encoders = {name: params for name, params in frozen.items() if name != self.component}
        given = self.prepare(weights, encoders, inputs, keys, context)
        folded = lambda number: jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
        w, w_t = jax.vmap(lambda key: draw_scales(key, settings))(folded(_SCALES))
        now, then = jax.vmap(lambda key: draw_timesteps(key, config.schedule, settings))(folded(_TIMESTEPS))

        conditions = dataclasses.replace(given.conditions, null=self.content.null(encoders))
        told = given.conditions.with_guidance(w, w_t)
        guidance = Guidance.whole(*teacher_scales(w, w_t, now, config.schedule, settings))
        guided = guided_denoiser(partial(self._predict, teacher), conditions, guidance)
        noisy = config.schedule.add_noise(given.latents, given.noise, now)
        below = solver_step(guided, noisy, now, then, config.schedule, config.unet.prediction_type)
        target = self._denoiser(self._target(teacher, context), told)
        return _Neighbours(self._denoiser(weights, told), target, noisy, below, now, then)

    def _target(self, teacher: Params, context: Context) -> Params:
        """The running mean as weights of the network, in the dtype of the computation."""
        ema = context.ema if self.learned.in_float32 else cast_kernels(context.ema, self.dtype)
        return self.learned.weights(teacher, ema)

    def _denoiser(self, weights: Params, conditions: Conditions) -> Denoiser:
        return lambda latents, timesteps: self._predict(weights, latents, timesteps, conditions)
