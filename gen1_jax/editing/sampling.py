"""The guided sampler: noise to latents in one jitted loop."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion import NoiseSchedule, Sampler, SamplerState, run_steps
from gen1_jax.diffusion.guided import guided_denoiser, per_frame
from gen1_jax.diffusion.windows import windowed
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.partition import Partition, partitioned

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

Watch = Callable[[int, int, Array], None]
"""Called with (steps done, steps in all, running latents): these are valid until the call returns."""


class Conditions(NamedTuple):
    """What a sample is to follow. All of it is traced: changing a value never compiles.

    Attributes:
        content: CLIP image embedding tokens.
        structure: encoded structure, None for a model that takes none.
        structure_level: t_s.
        guidance_scale: w, scalar.
        temporal_guidance_scale: w_t, scalar.
    """

    content: Float[Array, "b n d"]
    structure: Float[Array, "b t h w s"] | None
    structure_level: Int[Array, " b"]
    guidance_scale: Float[Array, ""]
    temporal_guidance_scale: Float[Array, ""]


class GuidedSampler:
    """Samples latents under temporal-consistency guidance, with one compilation for each shape.

    The step count, the sampler and the shapes are static; seed, content, structure, t_s and both scales are
    traced. The loop's bounds are traced too: a run without progress is one call of the compiled function,
    one that is followed is a call of that same function for each step. Only the running latents are kept.

    Args:
        unet: the denoiser and its parameters.
        schedule: the noise schedule it was trained on.
        sampler: the solver.
        num_inference_steps: number of steps.
        window: longest clip of one evaluation; longer ones are blended from windows of this many frames.
        overlap: frames that neighbouring windows share.
        partition: how activations are divided over devices; None for not at all.
    """

    def __init__(
        self,
        unet: Bound,
        schedule: NoiseSchedule,
        sampler: Sampler,
        num_inference_steps: int,
        *,
        window: int,
        overlap: int,
        partition: Partition | None = None,
    ):
        self.unet, self.partition = unet, partition
        self.sampler = sampler
        self.tables = sampler.tables(schedule, num_inference_steps, unet.config.prediction_type)
        self.window, self.overlap = window, overlap
        self.advance = jax.jit(self._advance, donate_argnums=1)
        self.start = jax.jit(self._start, static_argnums=1)

    def __call__(
        self,
        shape: tuple[int, ...],
        seed: int,
        conditions: Conditions,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Float[Array, "b t h w c"]:
        """Latents of `shape` (B, T, h, w, C).

        Args:
            shape: batch, frames, latent height and width, channels.
            seed: the same seed and conditions give the same latents.
            conditions: what to follow.
            progress: called after each step; what it raises ends the sampling.
            watch: the same, with the running latents.
        """
        total = len(self.tables.timesteps)
        state = self.start(jnp.uint32(seed % 2**32), shape)
        if progress is None and watch is None:
            return self.advance(self.unet.params, state, conditions, 0, total).latents
        for step in range(total):
            state = self.advance(self.unet.params, state, conditions, step, step + 1)
            state.latents.block_until_ready()
            if progress is not None:
                progress(step + 1, total)
            if watch is not None:
                watch(step + 1, total, state.latents)
        return state.latents

    def _start(self, seed, shape: tuple[int, ...]) -> SamplerState:
        noise_key, step_key = jax.random.split(jax.random.key(seed))
        return self.sampler.init(jax.random.normal(noise_key, shape), step_key)

    def _advance(self, params: Params, state: SamplerState, conditions: Conditions, start, stop) -> SamplerState:
        model = partial(self.unet.apply, params)
        denoise = guided_denoiser(
            windowed(model, self.window, self.overlap),
            windowed(per_frame(model), self.window, 0),
            **conditions._asdict(),
        )
        with partitioned(self.partition) if self.partition is not None else contextlib.nullcontext():
            return run_steps(denoise, self.sampler, self.tables, state, start=start, stop=stop)
