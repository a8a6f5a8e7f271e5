"""How fast a run goes: seconds of steps without compilation, operations counted from shapes, utilisation, a trace."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from gen1_jax.models.flops import count_flops
from gen1_jax.models.module import Params
from gen1_jax.parallel.hardware import peak_flops
from gen1_jax.training.step import TrainStep


def model_flops(step: TrainStep, frozen: Mapping[str, Params], inputs: Mapping[str, Any]) -> int:
    """Operations of the forward and backward pass over a batch, and of recomputation if `step` has it."""
    size = len(jax.tree.leaves(inputs)[0])
    frozen, inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (dict(frozen), dict(inputs)))
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
    return count_flops(step.gradients, step.abstract_state.params, frozen, inputs, keys, step.abstract_context)


class Throughput:
    """A stopwatch for the steps between two entries of the log."""

    def __init__(self) -> None:
        self._peak = (peak_flops(jax.devices()[0].device_kind) or 0) * jax.device_count()
        self.reset()

    def reset(self) -> None:
        """Begins anew: what passed until now was not training."""
        self._began = time.perf_counter()
        self._steps = self._examples = 0
        self._waited, self._flops = 0.0, Counter()

    def add(self, examples: int, flops: Callable[[], int], waited: float) -> None:
        """A step: examples of the global batch, what gives its operations, seconds that it waited for data."""
        self._steps += 1
        self._examples += examples
        self._flops[flops] += 1
        self._waited += waited

    def leave_out(self, seconds: float) -> None:
        """Seconds that have passed but do not count."""
        self._began += seconds

    def without(self, action: Callable[[], Any]) -> Any:
        """What `action` returns; its time is left out."""
        began = time.perf_counter()
        result = action()
        self._began += time.perf_counter() - began
        return result

    def take(self) -> dict[str, float]:
        """Means since the last time, to be asked for when the device has finished."""
        seconds = time.perf_counter() - self._began
        if not self._steps:
            return {}
        rate = sum(steps * flops() for flops, steps in self._flops.items()) / seconds
        entry = {
            "step_seconds": seconds / self._steps,
            "examples_per_second": self._examples / seconds,
            "data_wait_seconds": self._waited / self._steps,
            "tflop_per_second": rate / 1e12,
        }
        if self._peak:
            entry["mfu"] = rate / self._peak
        self.reset()
        return entry


class Profiler:
    """Traces a few steps for TensorBoard or Perfetto; a context manager.

    Args:
        folder: where to; None for not at all.
        steps: the first step that is traced, and the first that is not any more.
    """

    def __init__(self, folder: Path | None, steps: tuple[int, int]):
        self._folder, (self._first, self._end), self._running = folder, steps, False

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """To be called before a step is begun."""
        if self._folder is not None and step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """To be called when `step` steps are done, or queued to give `result`."""
        if self._running and step == self._end:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
        self._running = False
