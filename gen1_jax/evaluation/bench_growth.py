"""`gen1 bench growth` on the devices that there are: a step of the sampler or of training, compiled, counted, timed."""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from gen1_jax.diffusion import Guidance
from gen1_jax.diffusion.windows import window_count
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench import CompiledSampler
from gen1_jax.evaluation.bench_train import StepBench, is_out_of_memory, random_latents
from gen1_jax.evaluation.growth import Row, Work
from gen1_jax.models.module import abstract_parameters, parameter_count
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.sizes import size_named

_REPEATS = 2
_GUIDANCE = 7.5, 1.5  # w and w_t: all three branches


class DeviceBench:
    """Rows of `growth` on the devices that there are; weights, latents and conditions are random.

    Args:
        size: of the model, a key of `SIZES`.
        batch: clips of a training step, for each device.
        steps: timed ones.
        remat: whether training recomputes activations of blocks in the backward pass.

    Attributes:
        config: of the model.
        settings: what rows depend on, besides their point.

    Raises:
        UserError: an unknown size, or numbers below one.
    """

    def __init__(self, size: str, *, batch: int = 1, steps: int = 3, remat: bool = False) -> None:
        if min(batch, steps) < 1:
            raise UserError("batch and steps must be at least 1")
        self.config = size_named(size)
        self._batch, self._steps, self._remat = batch, steps, remat
        self.settings = {
            "source": "measured",
            "parameters": parameter_count(abstract_parameters(self.config.build("unet", default_dtype()))),
            "window": self.config.num_frames,
            "overlap": self.config.window_overlap,
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "dtype": default_dtype().name,
            "size": size,
            "batch": batch,
            "remat": remat,
        }

    @property
    def counts(self) -> tuple[int, ...]:
        """Numbers of devices that there are, of one, two and four."""
        return tuple(n for n in (1, 2, 4) if n <= jax.device_count())

    def check(self, devices: int) -> None:
        """Raises a UserError where there are fewer."""
        there = jax.device_count()
        if devices > there:
            raise UserError(f"--devices {devices}: there {'is' if there == 1 else 'are'} {there}")

    def __call__(self, *, work: Work, frames: int, height: int, width: int, devices: int) -> Row:
        """The figures of a step on some of the devices; of one that does not fit "error", and no seconds."""
        chosen = jax.devices()[:devices]
        row: Row = {}
        try:
            measure = self._sample if work == "sample" else self._train
            for figures in measure(frames, dataclasses.replace(self.config, height=height, width=width), chosen):
                row |= figures
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            row["error"] = "out of memory"
        return row

    def _sample(self, frames: int, config: Gen1Config, devices: list[Any]):
        """What is known of it, as it becomes known."""
        layout = None
        if len(devices) > 1:
            layout = Layout(make_mesh(MeshConfig(data=1, context=len(devices)), devices))
        yield {"windows": window_count(frames, config.num_frames, config.window_overlap)}
        guidance = Guidance.of(*_GUIDANCE)
        bench = CompiledSampler(config, frames=frames, steps=self._steps, guidance=guidance, layout=layout)
        yield {"tflop": bench.step_flops() / 1e12}
        memory = bench.compiled.memory_analysis()
        held = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        yield from _figures(*held, bench.compile_seconds, devices, lambda: _median(bench) / self._steps)

    def _train(self, frames: int, config: Gen1Config, devices: list[Any]):
        """Likewise."""
        unet = dataclasses.replace(config.unet, max_frames=max(frames, config.unet.max_frames))
        overlap = min(config.window_overlap, frames - 1)
        config = dataclasses.replace(config, unet=unet, num_frames=frames, window_overlap=overlap)
        bench = StepBench(config, Layout(make_mesh(MeshConfig(), devices)), remat=self._remat)
        batch = random_latents(config, "video", self._batch * len(devices))
        yield {"tflop": bench.flops(batch) / 1e12}
        step = bench.compile(batch)
        held = step.compiled.state_bytes, step.compiled.temporary_bytes
        yield from _figures(*held, step.compile_seconds, devices, lambda: step.seconds(self._steps))


def _figures(arguments: int, temporary: int, compile_seconds: float, devices: list[Any], seconds: Callable[[], float]):
    """Memory of one device as the compiler tells it, and the time of a step, where there is as much memory."""
    peak = arguments + temporary
    yield {"temporary_bytes": temporary, "peak_bytes": peak, "compile_seconds": compile_seconds}
    most = _memory(devices)
    if peak > most:  # a CPU's memory, overdrawn, ends the process rather than the step
        yield {"error": f"out of memory, there is {most / 2**30:.1f} GiB"}
    else:
        yield {"seconds": seconds()}


def _memory(devices: list[Any]) -> float:
    """Bytes that each device can give; devices of a CPU share what is free."""
    if devices[0].platform != "cpu":
        return (devices[0].memory_stats() or {}).get("bytes_limit", float("inf"))
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free / len(devices)


def _median(bench: CompiledSampler) -> float:
    """Seconds of a run, after one that does not count."""
    bench(0)
    times = []
    for seed in range(_REPEATS):
        began = time.perf_counter()
        bench(seed)
        times.append(time.perf_counter() - began)
    return statistics.median(times)
