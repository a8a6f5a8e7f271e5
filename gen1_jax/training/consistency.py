"""What a U-Net of few steps learns: to give at once what guided steps of its teacher lead to.

    teacher (frozen, equation 10 with w and w_t) ──one step of DDIM──► z_t' ──► running mean of the student ─┐
    z_t, told w and w_t ──► student ───────────────────────────────────────────────────────────────────────┴─► loss

The teacher is the model that the run began from, the target the run's own EMA. The student has its weights at first,
and zeros for what it is told of the scales: see `models.unet.guidance`; the mathematics is `diffusion.distillation`.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial

import jax
from jaxtyping import Array, Float, Key

from gen1_jax.diffusion import Denoiser, Guidance, guided_denoiser
from gen1_jax.diffusion.distillation import (
    ConsistencyConfig,
    consistency_loss,
    draw_scales,
    draw_timesteps,
    teacher_scales,
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
    """The family of a student: it is told w and w_t, and edits in a few steps of LCM, or in as many of DDIM as its
    trajectories have parts.

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
    low, high = settings.guidance_scales
    own = min(max(base.guidance_scale, low), high)
    return dataclasses.replace(
        base,
        unet=dataclasses.replace(base.unet, guidance_embedded=True),
        sampler="lcm" if settings.parts == 1 else "ddim",
        num_inference_steps=STEPS if settings.parts == 1 else settings.parts,
        guidance_interval=(0.0, 1.0),
        guidance_scale=own if settings.guidance_scale is None else settings.guidance_scale,
        distilled_scales=settings.scales,
    )


class ConsistencyObjective(DenoisingObjective):
    """Latent consistency distillation. See `Objective`; arguments as for `DenoisingObjective`.

    What examples are told is what they are told there; w, w_t and a timestep of the solver's grid are drawn beside it.

    Raises:
        UserError: as there, or a weighting or a density of noise levels, which this loss has not.
    """

    def __init__(self, config: Gen1Config, settings: DenoisingConfig, **options):
        super().__init__(config, settings, **options)
        if settings.weighting != "uniform":
            raise UserError(f"unet.weighting is {settings.weighting!r}: the objective {CONSISTENCY} has none")
        if not settings.timesteps.is_uniform:
            raise UserError(f"unet.timesteps is a density: the objective {CONSISTENCY} has timesteps of its own")
        self.learned = BesideTeacher(self.learned)

    def _frozen_parts(self) -> tuple[str, ...]:
        return *super()._frozen_parts(), self.component

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The distance of each example, and the same by range of timesteps; `context.ema` is the target."""
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
        losses = consistency_loss(
            student=self._denoiser(weights, told),
            target=self._denoiser(self._target(teacher, context), told),
            teacher=guided_denoiser(partial(self._predict, teacher), conditions, guidance),
            noisy=config.schedule.add_noise(given.latents, given.noise, now),
            now=now,
            then=then,
            schedule=config.schedule,
            prediction_type=config.unet.prediction_type,
            huber=settings.huber,
            end=None if settings.parts == 1 else settings.ends(now, config.schedule),
        )
        return losses, self.by_noise(losses, now)

    def _target(self, teacher: Params, context: Context) -> Params:
        """The running mean as weights of the network, in the dtype of the computation."""
        ema = context.ema if self.learned.in_float32 else cast_kernels(context.ema, self.dtype)
        return self.learned.weights(teacher, ema)

    def _denoiser(self, weights: Params, conditions: Conditions) -> Denoiser:
        return lambda latents, timesteps: self._predict(weights, latents, timesteps, conditions)
