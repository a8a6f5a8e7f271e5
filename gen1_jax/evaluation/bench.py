"""`gen1 bench`: speed and memory on random weights, with an analytic count of operations."""

import dataclasses
import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.diffusion import Guidance, SamplerState, default_sampler, get_sampler, guided_denoiser
from gen1_jax.diffusion.windows import windowed
from gen1_jax.editing.deep_cache import cache_of, check_deep_cache, whole_steps, with_empty_cache
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.errors import UserError, counted
from gen1_jax.evaluation.kernels import traced
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser_inputs import abstract_conditions
from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Bound, Params, abstract_parameters, parameter_count
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.parallel.sharding import UNET_RULES, Layout
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.sizes import size_named


def bench_sample(
    *,
    size: str = "nano",
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int = 50,
    guidance_scale: float = 7.5,
    temporal_guidance_scale: float = 1.5,
    deep_cache: int = 1,
    repeats: int = 3,
    profile: bool = False,
) -> dict:
    """Time the guided sampler on one clip: structure, content and weights are random.

    Args:
        size: of the model, a key of `SIZES`.
        frames: frames of the clip; the window of the model if None. More are windows one after another.
        height: of the pictures, in pixels; that of the model if None.
        width: see height.
        steps: steps of the sampler.
        guidance_scale: w.
        temporal_guidance_scale: w_t.
        deep_cache: see `EditSettings`.
        repeats: timed runs; the median is reported.
        profile: tell what each operation takes, a list of `kernels.Operation` by the name "operations".

    Returns:
        Plain values, times in seconds, memory in bytes.

    Raises:
        ValueError: an unknown size, or numbers below one.
    """
    config = size_named(size)
    frames = config.num_frames if frames is None else frames
    if min(frames, steps, repeats) < 1:
        raise UserError("frames, steps and repeats must be at least 1")
    config = dataclasses.replace(config, height=height or config.height, width=width or config.width)
    guidance = Guidance.of(guidance_scale, temporal_guidance_scale)
    check_deep_cache(deep_cache, config.unet)
    sampler = CompiledSampler(config, frames=frames, steps=steps, guidance=guidance, deep_cache=deep_cache)
    finite = bool(np.isfinite(np.asarray(sampler(0))).all())
    times = [_seconds(lambda seed=seed: sampler(seed)) for seed in range(repeats)]
    seconds = statistics.median(times)
    flops = sampler.flops()
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "jax": jax.__version__,
        "size": size,
        "parameters": parameter_count(sampler.unet.params),
        "dtype": jnp.dtype(default_dtype()).name,
        "frames": frames,
        "height": config.height,
        "width": config.width,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "temporal_guidance_scale": temporal_guidance_scale,
        "deep_cache": deep_cache,
        "compile_seconds": sampler.compile_seconds,
        "seconds": seconds,
        "all_seconds": times,
        "step_milliseconds": 1000 * seconds / steps,
        "step_tflop": flops / steps / 1e12,
        "tflop_per_second": flops / seconds / 1e12,
        "temporary_bytes": sampler.compiled.memory_analysis().temp_size_in_bytes,
        "peak_bytes": _peak_bytes(device),
        "finite": finite,
        **({"operations": traced(lambda: sampler(0), sampler.compiled)} if profile else {}),
    }


class CompiledSampler:
    """The guided sampler, compiled for one clip; structure, content and weights are random.

    Args:
        config: of the model; its height and width are those of the clip.
        frames: of the clip; more than the window of the model are windows one after another.
        steps: of the sampler.
        guidance: how strictly it follows what it is told; which branches are evaluated depends on it.
        layout: devices that divide the clip and the weights; None for the first alone.
        deep_cache: see `EditSettings`.

    Attributes:
        unet: the network and its weights.
        compiled: the program.
        compile_seconds: how long that took.
    """

    def __init__(
        self,
        config: Gen1Config,
        *,
        frames: int,
        steps: int,
        guidance: Guidance,
        layout: Layout | None = None,
        deep_cache: int = 1,
    ):
        dtype = default_dtype()
        module = config.build("unet", dtype)
        abstract = abstract_parameters(module)
        weights = random_parameters(abstract, dtype)
        if layout is None:
            self._placed, weights = lambda tree: tree, jax.device_put(weights)
        else:
            self._placed = lambda tree: jax.device_put(tree, layout.replicated())
            weights = layout.put(weights, layout.gathered(abstract, UNET_RULES))
        self._config, self._guidance, self._steps = config, guidance, steps
        self.unet = Bound(module, weights)
        size = (side // config.vae.downscale for side in (config.height, config.width))
        self._shape = (1, frames, *size, config.unet.latent_channels)
        self._conditions = self._placed(_random_conditions(config, self._shape, dtype))
        sampler = GuidedSampler(
            self.unet,
            config.schedule,
            get_sampler(default_sampler(config.schedule), config.schedule),
            steps,
            window=config.num_frames,
            overlap=config.window_overlap,
            partition=None if layout is None else layout.activations(),
        )
        self._sampler = sampler.with_deep_cache(deep_cache)
        arguments, began = self._arguments(0), time.perf_counter()
        self.compiled = self._sampler.advance.lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - began

    def __call__(self, seed: int) -> jax.Array:
        """The latents, when they are there."""
        return self.compiled(*self._arguments(seed)).latents.block_until_ready()

    def step_flops(self, cache: jax.ShapeDtypeStruct | None = None) -> int:
        """See the function of this name."""
        window, overlap = self._config.num_frames, self._config.window_overlap
        return step_flops(self.unet, self._shape, self._conditions, self._guidance, window, overlap, cache)

    def flops(self) -> int:
        """Operations of the evaluations of all steps."""
        whole, in_part = self.step_flops(), 0
        steps = int(whole_steps(self._sampler, 0)[: self._steps].sum())
        if steps < self._steps:
            in_part = self.step_flops(cache_of(self._sampler, self._shape, self._conditions, self._guidance))
        return steps * whole + (self._steps - steps) * in_part

    def _arguments(self, seed: int) -> tuple:
        sampler, state, told, more = self._sampler, self._state(seed), (self._conditions, self._guidance), ()
        if sampler.deep_cache > 1:
            state, more = with_empty_cache(sampler, state, *told), (None, None, whole_steps(sampler, 0))
        return (self.unet.params, state, *told, sampler.padded_tables, 0, self._steps, *more)

    def _state(self, seed: int) -> SamplerState:
        return self._placed(self._sampler.start(jnp.uint32(seed), self._shape))


def _random_conditions(config: Gen1Config, shape: tuple[int, ...], dtype: DTypeLike) -> Conditions:
    """Of an edit that follows every structure that the model can follow, at full weight."""
    shapes = abstract_conditions(config.unet, shape, config.content_tokens, dtype)
    noise = lambda x: jax.random.normal(jax.random.key(1), x.shape, x.dtype)
    signals = {kind: Signal.of(noise(signal.maps)) for kind, signal in shapes.structure.items()}
    return Conditions(content=jax.tree.map(noise, shapes.content), structure=signals)


def render_sample(result: dict) -> str:
    """The result as a person reads it."""
    cached = "" if result["deep_cache"] == 1 else f", every {result['deep_cache']}. step whole"
    return (
        "{size} denoiser, {parameters:,} parameters, {dtype}, on {device} (jax {jax})\n"
        f"{counted(result['frames'], 'frame')} of {{width}}x{{height}}, {counted(result['steps'], 'step')}, "
        "w = {guidance_scale}, w_t = {temporal_guidance_scale}{cached}\n"
        "compile     {compile_seconds:8.1f} s\n"
        "sample      {seconds:8.3f} s\n"
        "step        {step_milliseconds:8.2f} ms\n"
        "operations  {step_tflop:8.3f} TFLOP a step, {tflop_per_second:.1f} TFLOP/s\n"
        "memory      {temporary:8.2f} GiB temporaries, {peak:.2f} GiB peak"
    ).format(**result, cached=cached, temporary=result["temporary_bytes"] / 2**30, peak=result["peak_bytes"] / 2**30)


def random_parameters(abstract: Params, dtype: DTypeLike = jnp.float32) -> Params:
    """Small random weights on the host, matrices in `dtype`: what they are does not matter for time.

    One block of noise is repeated in all of them, for drawing 1.2 billion numbers takes longer than the benchmark.
    """
    noise = 0.02 * np.random.default_rng(0).normal(size=1 << 20)
    kinds = {True: noise.astype(jnp.dtype(dtype)), False: noise.astype(np.float32)}
    return jax.tree.map(lambda leaf: np.resize(kinds[leaf.ndim > 1], leaf.shape), abstract)


def step_flops(
    unet: Bound,
    shape: tuple[int, ...],
    conditions: Conditions,
    guidance: Guidance,
    window: int,
    overlap: int,
    cache: jax.ShapeDtypeStruct | None = None,
) -> int:
    """Operations of the evaluations that a step runs, on each of the windows of a longer clip.

    With the shape of a cache (`editing.deep_cache.cache_of`), those of a step that takes deep features from it.
    """
    kept = () if cache is None else (cache,)

    def step(params: Params, latents: jax.Array, timesteps: jax.Array, conditions: Conditions, *kept) -> jax.Array:
        model = lambda *args: unet.apply(params, *args, *kept, method="denoise")[0]
        return guided_denoiser(windowed(model, window, overlap), conditions, guidance)(latents, timesteps)

    latents, timesteps = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    return count_flops(step, unet.params, latents, timesteps, conditions, *kept)


def _seconds(function) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _peak_bytes(device) -> int:
    """Peak memory of the device, or of this process where the device is the CPU."""
    stats = device.memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
