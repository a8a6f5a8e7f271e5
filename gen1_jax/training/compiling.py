"""Steps compiled before they are needed: those of all shapes that a stage will meet, side by side."""

import contextvars
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax

from gen1_jax.data.config import Bucket, Kind
from gen1_jax.data.mixture import Mixture
from gen1_jax.errors import counted
from gen1_jax.models.module import Params
from gen1_jax.training.programs import StepProgram
from gen1_jax.training.step import TrainState, TrainStep
from gen1_jax.training.throughput import model_flops

Shape = tuple[Kind, Bucket]
Key = TypeVar("Key", bound=Hashable)


class CompiledStep(NamedTuple):
    """A step for batches of one shape.

    Attributes:
        run: (state, frozen, inputs) -> (state, metrics); `state` is donated.
        flops: of the forward and backward pass, without recomputation.
    """

    run: StepProgram
    flops: int


class StagePrograms:
    """The compiled steps of a stage, by the shape of its batches.

    Args:
        name: of the stage.
        step: what is compiled; stages that share its `programs` share what is made here.
        plain: the same step without recomputation, whose operations are counted.
        mixture: whose batches they are for.
        parts: into how many parts the batches of a kind are divided.
        say: called with lines for people.
    """

    def __init__(
        self,
        name: str,
        step: TrainStep,
        plain: TrainStep,
        mixture: Mixture,
        parts: Callable[[Kind], int],
        say: Callable[[str], None],
    ) -> None:
        self._name, self._step, self._plain, self._mixture = name, step, plain, mixture
        self._parts, self._say = parts, say
        self._known: dict[Shape, CompiledStep] = {}

    def __getitem__(self, shape: Shape) -> CompiledStep:
        return self._known[shape]

    def compile(self, shapes: Sequence[Shape], state: TrainState, frozen: Mapping[str, Params]) -> None:
        """Makes those that are not there yet, each in a thread of its own."""
        inputs = {shape: self._inputs(shape) for shape in shapes if shape not in self._known}
        keys = {shape: _signature(arrays, self._parts(shape[0])) for shape, arrays in inputs.items()}
        made = self._step.programs.compiled
        jobs = {
            shape: partial(self._make, self._parts(shape[0]), state, frozen, arrays)
            for shape, arrays in inputs.items()
            if keys[shape] not in made
        }
        for shape in jobs:
            self._say(f"compiling   {self._name}: {self._called(shape)} ...")
        for shape, step in side_by_side(jobs, self._told).items():
            made[keys[shape]] = step
        self._known |= {shape: made[key] for shape, key in keys.items()}

    def _inputs(self, shape: Shape) -> dict[str, Any]:
        batch = self._mixture.alike(*shape)
        return self._step.layout.abstract_batch(self._step.objective.inputs(batch))

    def _make(
        self, parts: int, state: TrainState, frozen: Mapping[str, Params], inputs: Mapping[str, Any]
    ) -> CompiledStep:
        return CompiledStep(self._step.compile(state, frozen, inputs, parts), model_flops(self._plain, frozen, inputs))

    def _called(self, shape: Shape) -> str:
        kind, (height, width) = shape
        size = getattr(self._mixture.config, kind).batch_size
        return f"{counted(size, kind)} of {width}x{height} in {counted(self._parts(kind), 'part')}"

    def _told(self, shape: Shape, seconds: float) -> None:
        self._say(f"            ... {self._called(shape)}: {seconds:.1f} s")


def side_by_side(jobs: Mapping[Key, Callable[[], Any]], told: Callable[[Key, float], None]) -> dict[Key, Any]:
    """Runs jobs in threads, all at once: XLA compiles outside of Python's lock, each program mostly in one thread.

    Args:
        jobs: what is to be done, by name.
        told: called in this thread as each of them is done, with its name and its seconds.

    Returns:
        What each of them returned.

    Raises:
        Exception: what the first of them that failed raised, once all have ended.
    """

    def timed(job: Callable[[], Any]) -> tuple[Any, float]:
        began = time.perf_counter()
        return job(), time.perf_counter() - began

    results = {}
    if jobs:
        with ThreadPoolExecutor(min(len(jobs), 4 * (os.cpu_count() or 1))) as pool:
            running = {pool.submit(contextvars.copy_context().run, timed, job): name for name, job in jobs.items()}
            for future in as_completed(running):
                results[running[future]], seconds = future.result()
                told(running[future], seconds)
    return results


def _signature(inputs: Mapping[str, Any], parts: int) -> Hashable:
    """What tells batches apart that need programs of their own."""
    leaves, structure = jax.tree.flatten(inputs)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves), parts
