"""`gen1 bench train`: speed and memory of a denoiser's training step on random weights and random latents."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from gen1_jax.data.batch import Batch
from gen1_jax.data.config import Kind
from gen1_jax.errors import UserError, counted
from gen1_jax.evaluation.bench import random_parameters
from gen1_jax.evaluation.kernels import Operation, traced
from gen1_jax.models.module import abstract_parameters, parameter_count
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, structure_kind
from gen1_jax.parallel.hardware import peak_flops
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.sizes import size_named
from gen1_jax.training.denoising import DenoisingObjective
from gen1_jax.training.optimizer import OptimizerConfig, learning_rates
from gen1_jax.training.step import TrainState, TrainStep, initial_state
from gen1_jax.training.throughput import model_flops


def bench_train(
    *,
    size: str = "nano",
    clips: Sequence[int] = (8,),
    images: Sequence[int] = (),
    remat: bool = False,
    mesh: MeshConfig | None = None,
    microbatches: int = 1,
    steps: int = 10,
    profile: bool = False,
) -> Iterator[dict]:
    """Time forward, backward, AdamW and EMA, for each batch size in turn.

    Args:
        size: of the model, a key of `SIZES`.
        clips: batch sizes of clips, of the model's own size and number of frames.
        images: batch sizes of images, as tall and wide.
        remat: recompute activations of blocks in the backward pass.
        mesh: how the devices are arranged; None for all along `data`.
        microbatches: parts of each batch.
        steps: timed steps.
        profile: tell what each operation takes, a list of `kernels.Operation` by the name "operations".

    Yields:
        For each batch plain values, times in seconds, memory in bytes; or "error" where it does not fit.

    Raises:
        ValueError: an unknown size, a mesh that does not fit the devices, or numbers below one.
    """
    config = size_named(size)
    if min((steps, microbatches, *clips, *images)) < 1:
        raise UserError("batch sizes, microbatches and steps must be at least 1")
    layout = Layout(make_mesh(mesh or MeshConfig()))
    bench = StepBench(config, layout, remat=remat, microbatches=microbatches)
    common = {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "mesh": {name: n for name, n in layout.mesh.shape.items() if n > 1},
        "jax": jax.__version__,
        "size": size,
        "parameters": bench.parameters,
        "dtype": bench.dtype.name,
        "remat": remat,
        "microbatches": microbatches,
    }
    for kind, batch_size in [("video", n) for n in clips] + [("image", n) for n in images]:
        batch = random_latents(config, kind, batch_size)
        row = common | {"kind": kind, "batch": batch_size}
        try:
            flops = bench.flops(batch)
            timing = bench.compile(batch).timing(steps, profile)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield row | {"error": "out of memory"}
            continue
        rate = flops / timing["seconds"]
        peak = peak_flops(common["device"])
        yield (
            row
            | timing
            | {
                "tflop": flops / 1e12,
                "tflop_per_second": rate / 1e12 / common["devices"],
                "mfu": rate / common["devices"] / peak if peak else None,
                "examples_per_second": batch_size / timing["seconds"],
            }
        )


def is_out_of_memory(error: jax.errors.JaxRuntimeError) -> bool:
    """Whether a program did not fit on its devices."""
    return "RESOURCE_EXHAUSTED" in str(error)


class StepBench:
    """Forward, backward, AdamW and EMA of a denoiser on random weights and latents.

    Args:
        config: of the model.
        layout: of the devices.
        remat: recompute activations of blocks in the backward pass.
        microbatches: parts of each batch.

    Attributes:
        dtype: of the computation.
        parameters: how many weights there are.
    """

    def __init__(self, config: Gen1Config, layout: Layout, *, remat: bool = False, microbatches: int = 1):
        self.dtype = jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
        self.microbatches = microbatches
        objective = DenoisingObjective(config, dtype=self.dtype, remat=remat)
        optimizer = OptimizerConfig()
        rates = learning_rates(optimizer, [(1000, None)])
        self.step = TrainStep(objective, optimizer, rates, layout, dtype=self.dtype)
        plain = DenoisingObjective(config, dtype=self.dtype)
        self._counter = TrainStep(plain, optimizer, rates, layout, dtype=self.dtype)
        self._abstract = abstract_parameters(objective.module)
        self._make_state = jax.jit(lambda p: initial_state(p, optimizer), out_shardings=self.step.state_shardings)
        self.parameters = parameter_count(self._abstract)

    def flops(self, batch: Batch) -> int:
        """Operations of forward and backward pass over a batch, those of recomputation left out."""
        return model_flops(self._counter, {}, self.step.objective.inputs(batch))

    def compile(self, batch: Batch) -> "TimedStep":
        """The step for batches like this one."""
        return TimedStep(self, batch)

    def state(self) -> TrainState:
        """With random weights."""
        return self._make_state(
            self.step.layout.put(random_parameters(self._abstract), self.step.state_shardings.params)
        )


class TimedStep:
    """The program for a batch; of the devices' memory it takes that of the batch, until it is timed.

    Args:
        bench: what is compiled.
        batch: of its shape and kind.

    Attributes:
        compiled: the program.
        compile_seconds: how long that took.
    """

    def __init__(self, bench: StepBench, batch: Batch):
        self._bench = bench
        self._inputs = bench.step.layout.put_batch(bench.step.objective.inputs(batch))
        state = bench.step.placed_state
        began = time.perf_counter()
        self.compiled = bench.step.compile(state, {}, self._inputs, bench.microbatches)
        self.compile_seconds = time.perf_counter() - began

    def timing(self, steps: int, profile: bool = False) -> dict[str, Any]:
        """Runs it, twice before `steps` that are timed: plain values, times in seconds, memory in bytes."""
        state, temporary = self.compiled.state_bytes, self.compiled.temporary_bytes
        spent = {"seconds": self.seconds(steps)}
        if profile:
            spent["operations"] = self._operations()
        return {
            "compile_seconds": self.compile_seconds,
            **spent,
            "state_bytes": state,
            "temporary_bytes": temporary,
            "peak_bytes": state + temporary,
        }

    def seconds(self, steps: int) -> float:
        """Of a step."""
        return seconds_of(self._running(), steps)

    def _operations(self) -> list[Operation]:
        """Of both programs, each run by itself, dearest first."""
        state = self._bench.state()
        gradients = lambda: self.compiled.gradients(state.params, state.ema, state.step, {}, self._inputs)
        given = gradients()

        def update():
            nonlocal state
            state, metrics = self.compiled.update(state, *given)
            return metrics

        jax.block_until_ready(update())
        found = [*traced(gradients, self.compiled.gradients), *traced(update, self.compiled.update)]
        return sorted(found, key=lambda operation: -operation.milliseconds)

    def _running(self) -> Callable[[], Any]:
        """Does a step from where the last one ended, and gives its metrics; it has done two."""
        state = self._bench.state()

        def run():
            nonlocal state
            state, metrics = self.compiled(state, {}, self._inputs)
            return metrics

        run()
        jax.block_until_ready(run())
        return run


def seconds_of(run: Callable[[], Any], times: int) -> float:
    """Of each of so many runs, queued one after the other, as in training."""
    began = time.perf_counter()
    for _ in range(times):
        result = run()
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / times


def random_latents(config: Gen1Config, kind: Kind, batch_size: int) -> Batch:
    """A batch of latents of the model's own size, as `gen1 precompute` makes them, of noise; without captions."""
    rng = np.random.default_rng(0)
    frames = 1 if kind == "image" else config.num_frames
    height, width = (side // config.vae.downscale for side in (config.height, config.width))
    channels = config.unet.latent_channels

    def noise(*shape):
        block = rng.standard_normal(1 << 16).astype(ml_dtypes.bfloat16)
        return np.resize(block, (batch_size, *shape))

    return Batch(
        moments=noise(frames, height, width, 2 * channels),
        structure={name: noise(frames, height, width, channels) for name in config.unet.structures},
        maps={c.kind: _maps(c.kind, batch_size, frames, config.height, config.width) for c in config.unet.controls},
        content=noise(config.clip.projection_dim) if config.clip is not None else None,
        structure_level=rng.integers(0, MAX_STRUCTURE_LEVEL + 1, batch_size, np.int32),
        content_index=np.zeros(batch_size, np.int32),
        caption=np.zeros((batch_size, 1), np.uint8),
        record=np.zeros((batch_size, 2), np.int32),
        kind=kind,
        bucket=(config.height, config.width),
    )


def _maps(kind: str, *size: int) -> np.ndarray:
    """A ramp for each frame: maps of noise would say nothing when they are blurred."""
    ramp = np.linspace(0, 1, size[-1], dtype=np.float32)[:, None]
    return np.broadcast_to(ramp, (*size, structure_kind(kind).channels))


def render_table(row: dict) -> str:
    """What all batches share, the head of the table, and its first row."""
    mesh = ",".join(f"{axis}={n}" for axis, n in row["mesh"].items())
    return (
        f"{row['size']} denoiser, {row['parameters']:,} parameters, {row['dtype']}, forward + backward + AdamW + EMA\n"
        f"{row['devices']} x {row['device']} {mesh} (jax {row['jax']}), remat {'on' if row['remat'] else 'off'}, "
        f"{counted(row['microbatches'], 'microbatch', 'microbatches')}\n"
        f"{'batch':>12} {'step ms':>9} {'TFLOP':>8} {'TFLOP/s':>8} {'MFU':>6} {'state':>10} {'temporary':>10} "
        f"{'compile':>8}\n{render_row(row)}"
    )


def render_row(row: dict) -> str:
    """A batch as a person reads it; TFLOP/s and memory of one device."""
    name = counted(row["batch"], "clip" if row["kind"] == "video" else "image")
    if "error" in row:
        return f"{name:>12} {row['error']}"
    mfu = "" if row["mfu"] is None else f"{row['mfu']:.1%}"
    return (
        f"{name:>12} {1000 * row['seconds']:9.1f} {row['tflop']:8.2f} {row['tflop_per_second']:8.1f} {mfu:>6} "
        f"{row['state_bytes'] / 2**30:6.1f} GiB {row['temporary_bytes'] / 2**30:6.1f} GiB "
        f"{row['compile_seconds']:6.0f} s"
    )
