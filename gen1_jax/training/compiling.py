"""Steps compiled before they are needed: those of all shapes that the stages will meet, side by side."""

import contextvars
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax

from gen1_jax.data.config import Bucket, Kind
from gen1_jax.data.mixture import Mixture
from gen1_jax.errors import counted
from gen1_jax.models.module import Params
from gen1_jax.training.programs import StepProgram, fulfil
from gen1_jax.training.step import TrainState, TrainStep
from gen1_jax.training.throughput import model_flops

Shape = tuple[Kind, Bucket]
Key = TypeVar("Key", bound=Hashable)


class CompiledStep(NamedTuple):
    """A step for batches of one shape.

    Attributes:
        run: (state, frozen, inputs) -> (state, metrics); `state` is donated.
        flops: gives the operations of the forward and backward pass, without recomputation, once they are counted.
    """

    run: StepProgram
    flops: Callable[[], int]


class StagePrograms:
    """The compiled steps of a stage, by the shape of its batches.

    Args:
        name: of the stage.
        step: what is compiled; stages that share its `programs` share what is made here.
        plain: the same step without recomputation, whose operations are counted.
        frozen: see `TrainStep.gradients`.
        mixture: whose batches they are for.
        parts: into how many parts the batches of a kind are divided.
    """

    def __init__(
        self,
        name: str,
        step: TrainStep,
        plain: TrainStep,
        frozen: Mapping[str, Params],
        mixture: Mixture,
        parts: Callable[[Kind], int],
    ) -> None:
        self._name, self._step, self._plain, self._frozen = name, step, plain, frozen
        self._mixture, self._parts = mixture, parts
        self._made, self._keys = step.programs.compiled, {}

    def __getitem__(self, shape: Shape) -> CompiledStep:
        return self._made[self._keys[shape]]

    def __contains__(self, shape: Shape) -> bool:
        return self._keys.get(shape) in self._made

    def missing(self, shapes: Sequence[Shape], state: TrainState) -> "dict[Hashable, _Job]":
        """What there is to do before there are programs of these shapes, by what tells jobs of all stages apart."""
        jobs = {}
        for shape in (shape for shape in shapes if shape not in self):
            inputs, parts = self._inputs(shape), self._parts(shape[0])
            key = self._keys[shape] = _signature(inputs, parts)
            if key not in self._made:
                jobs[id(self._made), key] = _Job(
                    what=f"{self._name}: {self._called(shape)}",
                    made=self._made,
                    key=key,
                    compile=partial(self._step.compile, state, self._frozen, inputs, parts),
                    count=partial(model_flops, self._plain, self._frozen, inputs),
                )
        return jobs

    def _inputs(self, shape: Shape) -> dict[str, Any]:
        batch = self._mixture.alike(*shape)
        return self._step.layout.abstract_batch(self._step.objective.inputs(batch))

    def _called(self, shape: Shape) -> str:
        kind, (height, width) = shape
        size = getattr(self._mixture.config, kind).batch_size
        return f"{counted(size, kind)} of {width}x{height} in {counted(self._parts(kind), 'part')}"


class _Job(NamedTuple):
    """A program that is not there yet, and where it belongs; `compile` is told what waits for an idle device."""

    what: str
    made: dict[Hashable, CompiledStep]
    key: Hashable
    compile: Callable[[Callable[[], Any]], StepProgram]
    count: Callable[[], int]


Ahead = Iterable[tuple[StagePrograms, Sequence[Shape]]]
"""The stages that are left, and of each the shapes that it will meet, in their order."""


class Compilation:
    """`compile_stages`, begun before there are any arrays: programs are traced while weights are drawn or read.

    Args:
        stages: see there.
        state: where it will lie, without arrays.
        say: see there; called by another thread.
    """

    def __init__(self, stages: Ahead, state: TrainState, say: Callable[[str], None]) -> None:
        self._idle, self._done = Future(), Future()
        work = partial(compile_stages, stages, state, say, self._idle.result)
        threading.Thread(target=contextvars.copy_context().run, args=(fulfil, self._done, work)).start()

    def finish(self) -> None:
        """To be called once the arrays are there and the device is idle; waits for the programs.

        Raises:
            Exception: see `side_by_side`.
        """
        self._idle.set_result(None)
        self._done.result()

    def give_up(self) -> None:
        """Nothing is compiled; waits for what is being traced."""
        self._idle.cancel()
        self._done.exception()


def compile_stages(
    stages: Ahead, state: TrainState, say: Callable[[str], None], idle: Callable[[], Any] = lambda: None
) -> None:
    """Makes what is not there yet, each program in a thread of its own; what several stages need is made once.

    Stages after the first are left for later where there are fewer processors than programs, for its steps would wait,
    and where there are several processes. Operations are counted afterwards, while training has begun: nobody asks for
    them before there is something to log.

    Args:
        stages: those that are left.
        state: arrays, which are not touched, or abstract ones where they lie.
        say: called with lines for people.
        idle: see `TrainStep.compile`.
    """
    processors = (os.cpu_count() or 1) if jax.process_count() == 1 else 0  # several processes would have to agree
    jobs: dict[Hashable, _Job] = {}
    for number, (programs, shapes) in enumerate(stages):
        more = {name: job for name, job in programs.missing(shapes, state).items() if name not in jobs}
        if number and len(jobs | more) > processors:
            break
        jobs |= more
    if not jobs:
        return
    for job in jobs.values():
        say(f"compiling   {job.what} ...")
    told = lambda name, seconds: say(f"            ... {jobs[name].what}: {seconds:.1f} s")
    counts = []
    for name, program in side_by_side({name: partial(job.compile, idle) for name, job in jobs.items()}, told).items():
        flops = Future()
        jobs[name].made[jobs[name].key] = CompiledStep(program, flops.result)
        counts.append((flops, jobs[name].count))
    threading.Thread(target=contextvars.copy_context().run, args=(_count, counts), daemon=True).start()


def _count(counts: Iterable[tuple[Future, Callable[[], int]]]) -> None:
    for flops, count in counts:
        fulfil(flops, count)


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
