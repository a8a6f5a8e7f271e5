"""`gen1 bench`: speed and memory on random weights, with an analytic count of operations."""

import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.diffusion import Guidance, get_sampler, guided_denoiser
from gen1_jax.diffusion.windows import windowed
from gen1_jax.editing.sampling import GuidedSampler
from gen1_jax.errors import UserError, counted
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Bound, Params, abstract_parameters, parameter_count
from gen1_jax.models.unet import abstract_conditions
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.sizes import SIZES


def bench_sample(
    *,
    size: str = "nano",
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int = 50,
    guidance_scale: float = 7.5,
    temporal_guidance_scale: float = 1.5,
    repeats: int = 3,
) -> dict:
    """Time the guided sampler on one clip: structure, content and weights are random.

    Args:
        size: "tiny", "nano", "full" or "public".
        frames: frames of the clip; the window of the model if None. More are windows one after another.
        height: of the pictures, in pixels; that of the model if None.
        width: see height.
        steps: steps of the sampler.
        guidance_scale: w.
        temporal_guidance_scale: w_t.
        repeats: timed runs; the median is reported.

    Returns:
        Plain values, times in seconds, memory in bytes.

    Raises:
        ValueError: an unknown size, or numbers below one.
    """
    if size not in SIZES:
        raise UserError(f"size is {size!r}, not one of {', '.join(SIZES)}")
    config = SIZES[size]
    frames = config.num_frames if frames is None else frames
    if min(frames, steps, repeats) < 1:
        raise UserError("frames, steps and repeats must be at least 1")
    height, width = height or config.height, width or config.width
    device = jax.devices()[0]
    dtype = default_dtype()
    module = config.build("unet", dtype)
    unet = Bound(module, jax.device_put(random_parameters(abstract_parameters(module), dtype)))
    shape = (1, frames, height // config.vae.downscale, width // config.vae.downscale, config.unet.latent_channels)
    sampler = GuidedSampler(
        unet, config.schedule, get_sampler("ddim"), steps, window=config.num_frames, overlap=config.window_overlap
    )
    conditions = _random_conditions(config, shape, dtype)
    guidance = Guidance.of(guidance_scale, temporal_guidance_scale)
    began = time.perf_counter()
    state = sampler.start(jnp.uint32(0), shape)
    compiled = sampler.advance.lower(
        unet.params, state, conditions, guidance, sampler.padded_tables, 0, steps
    ).compile()
    compile_seconds = time.perf_counter() - began
    run = lambda seed: sampler(shape, seed, conditions, guidance).block_until_ready()
    run(0)
    times = [_seconds(lambda seed=seed: run(seed)) for seed in range(repeats)]
    seconds = statistics.median(times)
    flops = steps * step_flops(unet, shape, conditions, guidance, config.num_frames, config.window_overlap)
    return {
        "device": device.device_kind,
        "jax": jax.__version__,
        "size": size,
        "parameters": parameter_count(unet.params),
        "dtype": jnp.dtype(dtype).name,
        "frames": frames,
        "height": height,
        "width": width,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "temporal_guidance_scale": temporal_guidance_scale,
        "compile_seconds": compile_seconds,
        "seconds": seconds,
        "all_seconds": times,
        "step_milliseconds": 1000 * seconds / steps,
        "step_tflop": flops / steps / 1e12,
        "tflop_per_second": flops / seconds / 1e12,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "peak_bytes": _peak_bytes(device),
        "finite": bool(np.isfinite(np.asarray(sampler(shape, 0, conditions, guidance))).all()),
    }


def _random_conditions(config: Gen1Config, shape: tuple[int, ...], dtype: DTypeLike) -> Conditions:
    """Of an edit that follows every structure that the model can follow, at full weight."""
    tokens = 1 if config.unet.content_kind == "image" else config.text.max_position_embeddings
    shapes = abstract_conditions(config.unet, shape, tokens, dtype)
    noise = lambda x: jax.random.normal(jax.random.key(1), x.shape, x.dtype)
    signals = {kind: Signal.of(noise(signal.maps)) for kind, signal in shapes.structure.items()}
    return Conditions(content=jax.tree.map(noise, shapes.content), structure=signals)


def render_sample(result: dict) -> str:
    """The result as a person reads it."""
    return (
        "{size} U-Net, {parameters:,} parameters, {dtype}, on {device} (jax {jax})\n"
        f"{counted(result['frames'], 'frame')} of {{width}}x{{height}}, {counted(result['steps'], 'step')}, "
        "w = {guidance_scale}, w_t = {temporal_guidance_scale}\n"
        "compile     {compile_seconds:8.1f} s\n"
        "sample      {seconds:8.3f} s\n"
        "step        {step_milliseconds:8.2f} ms\n"
        "operations  {step_tflop:8.3f} TFLOP a step, {tflop_per_second:.1f} TFLOP/s\n"
        "memory      {temporary:8.2f} GiB temporaries, {peak:.2f} GiB peak"
    ).format(**result, temporary=result["temporary_bytes"] / 2**30, peak=result["peak_bytes"] / 2**30)


def random_parameters(abstract: Params, dtype: DTypeLike = jnp.float32) -> Params:
    """Small random weights on the host, matrices in `dtype`: what they are does not matter for time.

    One block of noise is repeated in all of them, for drawing 1.2 billion numbers takes longer than the benchmark.
    """
    noise = 0.02 * np.random.default_rng(0).normal(size=1 << 20)
    kinds = {True: noise.astype(jnp.dtype(dtype)), False: noise.astype(np.float32)}
    return jax.tree.map(lambda leaf: np.resize(kinds[leaf.ndim > 1], leaf.shape), abstract)


def step_flops(
    unet: Bound, shape: tuple[int, ...], conditions: Conditions, guidance: Guidance, window: int, overlap: int
) -> int:
    """Operations of the evaluations that a step runs, on each of the windows of a longer clip."""

    def step(params: Params, latents: jax.Array, timesteps: jax.Array, conditions: Conditions) -> jax.Array:
        model = lambda *args: unet.apply(params, *args, method="denoise")[0]
        return guided_denoiser(windowed(model, window, overlap), conditions, guidance)(latents, timesteps)

    latents, timesteps = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    return count_flops(step, unet.params, latents, timesteps, conditions)


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
