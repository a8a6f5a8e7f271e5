"""The guided sampler: noise to latents in one jitted loop."""

import contextlib
import copy
import dataclasses
import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gen1_jax.diffusion import (
    Denoiser,
    Guidance,
    NoiseSchedule,
    Sampler,
    SamplerState,
    SamplerTables,
    ddim_inversion,
    guidance_runs,
    guided_denoiser,
    noised_start,
    run_steps,
)
from gen1_jax.diffusion.caching import CachingModel, keeping, run_cached_steps
from gen1_jax.diffusion.guidance import Model
from gen1_jax.diffusion.noise import shared_noise_order
from gen1_jax.diffusion.sweep import Band, Round, take_round
from gen1_jax.diffusion.tiles import tiled
from gen1_jax.diffusion.windows import windowed
from gen1_jax.diffusion.wrappers import acting_on_x0, changing
from gen1_jax.editing.deep_cache import whole_steps, with_empty_cache
from gen1_jax.editing.motion import Motion, propagating
from gen1_jax.errors import UserError
from gen1_jax.kept import KeptProgram
from gen1_jax.models.attended import Attended, attending_to
from gen1_jax.models.conditions import SHARES, Conditions
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.partition import Partition, partitioned

StepsDone = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""

Watch = Callable[[int, int, Array], None]
"""Called with (steps done, steps in all, running latents): these are valid until the call returns."""


class Known(NamedTuple):
    """What a run is to leave as it is; a pytree.

    Attributes:
        latents: (B, T, h, w, C), clean.
        change: (B, T, h, w, 1), how strongly each place may be changed all the same, see `diffusion.wrappers.changing`.
    """

    latents: Float[Array, "b t h w c"]
    change: Float[Array, "b t h w 1"]


def in_32_bits(seed: int) -> int:
    """A seed as JAX takes it: itself up to 32 bits; longer ones, of which JAX would drop the rest, by a hash."""
    return seed if seed < 2**32 else int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:4])


class GuidedSampler:
    """Samples latents under temporal-consistency guidance, from noise or from latents that are to be changed.

    One compilation for each shape, solver and set of branches that have weight (`Guidance.branches`); seed, conditions,
    scales and the solver's tables are traced, so that another number of steps compiles nothing. The loop's bounds are
    traced too: a run without progress is one call of the compiled function, one that is followed is a call of that
    same function for each step. Only the running latents are kept.

    Args:
        unet: the denoiser and its parameters, see `models.denoiser.Denoiser`.
        schedule: the noise schedule it was trained on.
        sampler: the solver.
        num_inference_steps: number of steps.
        window: longest clip of one evaluation; longer ones are blended from windows of this many frames.
        overlap: frames that neighbouring windows share.
        shift: whether windows lie elsewhere at each step, see `windowed`.
        partition: how activations are divided over devices; None for not at all.
        attended: which frames self-attention within a frame looks at, see `models.attended`; None for its own.
        tile: height and width of the latents of one evaluation; larger ones are blended from tiles, see `tiled`. None
            for any size.

    Attributes:
        tables: of the solver, one row a step that is run.
        strength: of the tables, see `Sampler.tables`.
        deep_cache: every how many-th step of the same guidance evaluates the whole denoiser; those between take deep
            features from it, see `diffusion.caching`. 1 for all of them.
        advance: the jitted (parameters, state, conditions, guidance, padded tables, first step, end, known, motion,
            which steps are whole or None for all) -> state.
        start: the jitted (seed, shape, latents to begin with or None, padded tables or None, order of frames' noise or
            None) -> state.
        round: the jitted (parameters, band, conditions without maps, guidance, padded tables, windows, key, first step,
            end) -> band, see `diffusion.sweep`.
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
        shift: bool = False,
        partition: Partition | None = None,
        attended: Attended | None = None,
        tile: int | None = None,
    ):
        self.unet, self.partition, self.schedule, self.attended = unet, partition, schedule, attended
        self.sampler = sampler
        self.tables = sampler.tables(schedule, num_inference_steps, unet.config.prediction_type)
        self.strength, self.deep_cache = 1.0, 1
        self.window, self.overlap, self.shift, self.tile = window, overlap, shift, tile
        self._compiled: set[tuple] = set()
        self.advance = KeptProgram(self._advance, self._identity, donated=[1])
        self.start = KeptProgram(self._start, self._identity, static=[1])
        self.round = KeptProgram(self._round, self._identity, donated=[1])

    def _identity(self) -> tuple | None:
        """See `KeptProgram`; None where activations are divided over devices, or frames look at others."""
        if self.partition is not None or self.attended is not None or self.unet.identity is None:
            return None
        how = self.window, self.overlap, self.shift, self.tile
        return self.unet.identity, self.schedule, self.sampler, *how

    def compiles(
        self,
        shape: tuple[int, ...],
        guidance: Guidance,
        *,
        masked: bool = False,
        moved: bool = False,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> list[int]:
        """The steps of the next call with these that compile first, as far as this process has not done so yet.

        Args:
            shape: of the latents.
            guidance: which branches have weight matters, not how much.
            masked: whether something is known; what does not matter.
            moved: whether there is a motion.
            interval: see `__call__`.
        """
        firsts: dict[tuple, int] = {}
        for start, _, part in guidance_runs(guidance, len(self.tables.timesteps), interval):
            firsts.setdefault((shape, part.branches, masked, moved, self.deep_cache > 1), start)
        return [step for program, step in firsts.items() if program not in self._compiled]

    def with_steps(self, num_inference_steps: int, strength: float = 1.0) -> "GuidedSampler":
        """The same with another number of steps and another strength; what is compiled is shared.

        Raises:
            ValueError: as `Sampler.tables`.
        """
        prediction_type = self.unet.config.prediction_type
        other = self.with_tables(self.sampler.tables(self.schedule, num_inference_steps, prediction_type, strength))
        other.strength = strength
        return other

    def with_deep_cache(self, deep_cache: int) -> "GuidedSampler":
        """The same with the whole denoiser at every so many-th step; other numbers than 1 share what is compiled."""
        other = copy.copy(self)
        other.deep_cache = deep_cache
        return other

    def looking_at(self, attended: Attended) -> "GuidedSampler":
        """The same whose frames look at others, see `models.attended`; it compiles its own programs."""
        how = dict(window=self.window, overlap=self.overlap, shift=self.shift, partition=self.partition, tile=self.tile)
        other = GuidedSampler(self.unet, self.schedule, self.sampler, 1, **how, attended=attended)
        other.strength = self.strength
        return other.with_tables(self.tables).with_deep_cache(self.deep_cache)

    def with_weights(self, unet: Bound) -> "GuidedSampler":
        """The same of other weights of the denoiser, bound to its module; what is compiled is shared."""
        other = copy.copy(self)
        other.unet, other._compiled = unet, set()
        return other

    def with_tables(self, tables: SamplerTables) -> "GuidedSampler":
        """The same along other tables, as those of `ddim_inversion`; what is compiled is shared.

        Args:
            tables: whose fresh noise is drawn only if `sampler` draws some.
        """
        other = copy.copy(self)
        other.__dict__.pop("padded_tables", None)
        other.tables = tables
        return other

    @cached_property
    def padded_tables(self) -> SamplerTables:
        """The tables with as many rows for every number of steps, so that they have one shape."""
        missing = self.schedule.num_train_timesteps - len(self.tables.timesteps)
        return SamplerTables(*(np.pad(column, (0, missing)) for column in self.tables))

    def __call__(
        self,
        shape: tuple[int, ...],
        seed: int,
        conditions: Conditions,
        guidance: Guidance,
        progress: StepsDone | None = None,
        watch: Watch | None = None,
        latents: Float[Array, "b t h w c"] | Float[np.ndarray, "b t h w c"] | None = None,
        known: Known | None = None,
        interval: tuple[float, float] = (0.0, 1.0),
        shared_noise: bool = False,
        noise: Float[Array, "b t h w c"] | None = None,
        motion: Motion | None = None,
    ) -> Float[Array, "b t h w c"]:
        """Latents of `shape` (B, T, h, w, C).

        Args:
            shape: batch, frames, latent height and width, channels.
            seed: the same seed, conditions and guidance give the same latents.
            conditions: what to follow.
            guidance: how strictly.
            progress: called after each step; what it raises ends the sampling.
            watch: the same, with the running latents.
            latents: clean ones that the sampling begins with, noised to the first timestep of the tables, rather than
                with noise alone; a strength below 1 needs them.
            known: what stays as it is; None for nothing.
            interval: parts of the run between which there is guidance, see `guidance_runs`.
            shared_noise: whether noise of the first window is that of all others, too, see `noise_order`.
            noise: that the sampling begins with, in the place of what the seed draws; of `inverted`, say.
            motion: along which x_0 is propagated at some steps, see `editing.motion`; None for no such steps.

        Raises:
            ValueError: a strength below 1 without latents, or a deep cache of a clip that is not evaluated at once.
        """
        if latents is None and self.strength < 1:
            raise UserError(f"a strength of {self.strength} needs latents to begin with")
        total = len(self.tables.timesteps)
        runs = guidance_runs(guidance, total, interval)
        own = known is not None, motion is not None, self.deep_cache > 1
        self._compiled.update((shape, part.branches, *own) for _, _, part in runs)
        beginning = (None, None) if latents is None else (latents, self.padded_tables)
        order = self.noise_order(shape[1], seed) if shared_noise and shape[1] > self.window else None
        state = self.start(np.uint32(in_32_bits(seed)), shape, *beginning, order)
        state = state if noise is None else state._replace(latents=jnp.array(noise))
        parts = [(start, start, stop, part) for start, stop, part in runs]
        if progress is not None or watch is not None:
            parts = [(first, step, step + 1, part) for first, _, stop, part in parts for step in range(first, stop)]
        for first, start, stop, part in parts:
            state = self.run(state, conditions, part, known, motion, start=start, stop=stop, first=first)
            if progress is None and watch is None:
                continue
            state.latents.block_until_ready()
            if progress is not None:
                progress(stop, total)
            if watch is not None:
                watch(stop, total, state.latents)
        return state.latents

    def inverted(
        self, latents: Float[Array, "b t h w c"], conditions: Conditions, progress: StepsDone | None = None
    ) -> Float[Array, "b t h w c"]:
        """The noise that DDIM would take back to some latents, without guidance, with which going up diverges.

        Args:
            latents: clean ones.
            conditions: what they show.
            progress: see `__call__`.
        """
        up = self.ascending()
        total, state = len(up.tables.timesteps), up.sampler.init(jnp.array(latents))
        for step in range(total):
            state = up.run(state, conditions, self.unguided, start=step, stop=step + 1)
            if progress is not None:
                state.latents.block_until_ready()
                progress(step + 1, total)
        return state.latents

    def ascending(self) -> "GuidedSampler":
        """The same the other way, for a solver of first order, every step whole; see `ddim_inversion`."""
        tables = ddim_inversion(self.schedule, self.tables.timesteps, self.unet.config.prediction_type)
        return self.with_tables(tables).with_deep_cache(1)

    @property
    def unguided(self) -> Guidance:
        """One evaluation a step."""
        return Guidance.of(1.0, 1.0, distilled=self.unet.config.guidance_embedded)

    def noise_order(self, frames: int, seed: int) -> np.ndarray:
        """Of which frame of the first window each frame has its noise, see `diffusion.noise.shared_noise_order`."""
        return shared_noise_order(frames, self.window, self.window - self.overlap, in_32_bits(seed))

    def run(
        self,
        state: SamplerState,
        conditions: Conditions,
        guidance: Guidance,
        known: Known | None = None,
        motion: Motion | None = None,
        *,
        start: int = 0,
        stop: int | None = None,
        first: int | None = None,
    ) -> SamplerState:
        """The state after the steps start <= i < stop (all of them by default); the one given is donated.

        With `deep_cache`, steps are counted from `first`, the one with which this guidance began; by default `start`.
        """
        stop = len(self.tables.timesteps) if stop is None else stop
        first, tables, whole = start if first is None else first, self.padded_tables, None
        if self.deep_cache > 1:
            state = with_empty_cache(self, state, conditions, guidance) if start == first else state
            whole = whole_steps(self, first)
        return self.advance(self.unet.params, state, conditions, guidance, tables, start, stop, known, motion, whole)

    def _start(
        self,
        seed,
        shape: tuple[int, ...],
        latents: Array | None = None,
        tables: SamplerTables | None = None,
        order: Array | None = None,
    ) -> SamplerState:
        noise_key, step_key = jax.random.split(jax.random.key(seed))
        noise = jax.random.normal(noise_key, shape)
        noise = noise if order is None else noise[:, order]
        begin = noise if latents is None else noised_start(self.schedule, tables, latents, noise)
        return self.sampler.init(begin, step_key)

    def _advance(
        self,
        params: Params,
        state: SamplerState,
        conditions: Conditions,
        guidance: Guidance,
        tables: SamplerTables,
        start,
        stop,
        known: Known | None = None,
        motion: Motion | None = None,
        whole: Array | None = None,
    ) -> SamplerState:
        predicts, run = self.unet.config.prediction_type, (self.sampler, tables, state)

        def around(model: Model) -> Denoiser:
            denoise = guided_denoiser(windowed(model, self.window, self.overlap, self.shift), conditions, guidance)
            if motion is not None:
                denoise = acting_on_x0(denoise, self.schedule, predicts, propagating(motion))
            if known is not None:
                timesteps = self.schedule.timesteps
                act = changing(known.latents, known.change, len(timesteps), timesteps[0])
                denoise = acting_on_x0(denoise, self.schedule, predicts, act)
            return denoise

        with partitioned(self.partition) if self.partition is not None else contextlib.nullcontext():
            if whole is None:
                return run_steps(around(self._model(params)), *run, start=start, stop=stop)
            return run_cached_steps(keeping(around, self._caching(params)), *run, whole, start=start, stop=stop)

    def _round(
        self,
        params: Params,
        band: Band,
        conditions: Conditions,
        guidance: Guidance,
        tables: SamplerTables,
        windows: Round,
        key,
        first,
        stop,
    ) -> Band:
        model = self._model(params)
        signals = {kind: dataclasses.replace(x, maps=band.told[kind]) for kind, x in conditions.structure.items()}
        told = dataclasses.replace(conditions, structure=signals, shares=band.told.get(SHARES))

        def denoise(latents: Array, timesteps: Array, start: Array) -> Array:
            return guided_denoiser(model, told.window(start, self.window), guidance)(latents, timesteps)

        with partitioned(self.partition) if self.partition is not None else contextlib.nullcontext():
            return take_round(
                denoise, self.sampler, tables, band, windows, key, window=self.window, first=first, stop=stop
            )

    def _caching(self, params: Params) -> CachingModel:
        def model(*told: Any) -> tuple[Array, Any]:
            with attending_to(self.attended):
                return self.unet.apply(params, *told, method="denoise")

        return model

    def _model(self, params: Params) -> Model:
        caching = self._caching(params)
        model = lambda latents, timesteps, told: caching(latents, timesteps, told)[0]
        return model if self.tile is None else tiled(model, self.tile, self.tile // 4)
