"""`gen1 bench`: speed and memory on random weights, with an analytic count of operations."""

import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.diffusion import get_sampler
from gen1_jax.diffusion.windows import window_starts
from gen1_jax.editing.sampling import Conditions, GuidedSampler
from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Bound, Params, abstract_parameters, parameter_count
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.pretrained.family import SIZES


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
        size: "tiny", "nano" or "full".
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
        raise ValueError(f"size is {size!r}, not one of {', '.join(SIZES)}")
    config = SIZES[size]
    frames = config.num_frames if frames is None else frames
    if min(frames, steps, repeats) < 1:
        raise ValueError("frames, steps and repeats must be at least 1")
    height, width = height or config.height, width or config.width
    device = jax.devices()[0]
    dtype = default_dtype()
    module = config.build("unet", dtype)
    unet = Bound(module, jax.device_put(random_parameters(abstract_parameters(module), dtype)))
    shape = (1, frames, height // config.vae.downscale, width // config.vae.downscale, config.unet.latent_channels)
    sampler = GuidedSampler(
        unet, config.schedule, get_sampler("ddim"), steps, window=config.num_frames, overlap=config.window_overlap
    )
    conditions = Conditions(
        content=jnp.ones((1, 1, config.unet.cross_attention_dim)),
        structure=jax.random.normal(jax.random.key(1), shape),
        structure_level=jnp.array([0]),
        guidance_scale=jnp.float32(guidance_scale),
        temporal_guidance_scale=jnp.float32(temporal_guidance_scale),
    )
    began = time.perf_counter()
    state = sampler.start(jnp.uint32(0), shape)
    compiled = sampler.advance.lower(unet.params, state, conditions, 0, steps).compile()
    compile_seconds = time.perf_counter() - began
    run = lambda seed: sampler(shape, seed, conditions).block_until_ready()
    run(0)
    times = [_seconds(lambda seed=seed: run(seed)) for seed in range(repeats)]
    seconds = statistics.median(times)
    flops = steps * _step_flops(unet, shape, conditions, config.num_frames, config.window_overlap)
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
        "finite": bool(np.isfinite(np.asarray(sampler(shape, 0, conditions))).all()),
    }


def render_sample(result: dict) -> str:
    """The result as a person reads it."""
    return (
        "{size} U-Net, {parameters:,} parameters, {dtype}, on {device} (jax {jax})\n"
        "{frames} frames of {width}x{height}, {steps} steps, w = {guidance_scale}, w_t = {temporal_guidance_scale}\n"
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


def _step_flops(unet: Bound, shape: tuple[int, ...], conditions: Conditions, window: int, overlap: int) -> int:
    """Operations of the evaluations that a step at these scales runs, on each of the windows of a longer clip."""
    batch, frames, *rest = shape
    w, w_t = float(conditions.guidance_scale), float(conditions.temporal_guidance_scale)

    def evaluation(clips: int, length: int) -> int:
        latents = jax.ShapeDtypeStruct((clips, length, *rest), jnp.float32)
        integers = jax.ShapeDtypeStruct((clips,), jnp.int32)
        content = jax.ShapeDtypeStruct((clips, *conditions.content.shape[1:]), jnp.float32)
        structure = None if conditions.structure is None else latents
        return count_flops(unet.apply, unet.params, latents, integers, content, structure, integers)

    windows = len(window_starts(frames, window, overlap)) if frames > window else 1
    video_branches = (w_t != w) + (w != 0)
    total = windows * evaluation(batch * video_branches, min(frames, window)) if video_branches else 0
    return total + (evaluation(batch * frames, 1) if w_t != 1 else 0)


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
