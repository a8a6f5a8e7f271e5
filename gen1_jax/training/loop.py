"""The loop: the stages of a recipe, one after the other, from wherever the workdir has come to.

restore or initialise ─► for each stage: for each batch: step ─► log ─► checkpoint ─► preview ─► told to end?
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from gen1_jax.checkpoints.store import Checkpoints
from gen1_jax.checkpoints.trained import open_trained, with_latent_scale
from gen1_jax.checkpoints.workdir import WorkFiles
from gen1_jax.data.storage import folder
from gen1_jax.errors import Failure
from gen1_jax.parallel.mesh import make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.training.boards import WANDB_ID, OpenBoard, tensorboard_library
from gen1_jax.training.checks import check_batches, check_model, check_sources, check_weights
from gen1_jax.training.compiling import Ahead, Compilation, Shape, StagePrograms, compile_stages
from gen1_jax.training.config import TrainConfig
from gen1_jax.training.interruption import Interruption
from gen1_jax.training.metrics import LOG, MeanMetrics, MetricsLog
from gen1_jax.training.objective import BatchArrays
from gen1_jax.training.overview import overview
from gen1_jax.training.preview import Preview, take_preview
from gen1_jax.training.run import Run
from gen1_jax.training.step import TrainState
from gen1_jax.training.throughput import Profiler, Throughput

_IN_FLIGHT = 2  # steps that may be queued on the device
_PROFILED = range(3, 6)  # steps after the start: those before are the first of their shapes
_FORESEEN = 1 << 12  # steps whose shapes are looked at before a stage

ReportStep = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, a few words)."""


class TrainingStopped(Failure):
    """The run cannot go on; the message names the last good checkpoint."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        step: of the run.
        exit_code: 0 when what was asked for is done; `interruption.PREEMPTED` or `INTERRUPTED` when told to end.
        metrics: of the last entry of the log.
    """

    step: int
    exit_code: int
    metrics: Mapping[str, Any]


def train(
    config: TrainConfig,
    workdir: str | os.PathLike[str],
    *,
    last_stage: int | None = None,
    allow_older: bool = False,
    allow_change: Sequence[str] = (),
    profile: bool = False,
    preview: Preview | None = None,
    boards: Sequence[OpenBoard] = (),
    progress: ReportStep = lambda done, total, note: None,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Runs a recipe, or goes on with it.

    Args:
        config: the recipe.
        workdir: where everything is written.
        last_stage: end after this stage (from 0); None for all.
        allow_older: if the newest checkpoint is damaged, go on from the one before.
        allow_change: fields of the recipe (or beginnings of their names) that may differ from those that the run was
            begun with; the log says which did.
        profile: write a trace of a few steps for TensorBoard or Perfetto.
        preview: makes what is shown every `TrainConfig.preview.every` steps.
        boards: where the log is shown, beside TensorBoard.
        progress: called as it goes.
        say: called with lines for people: what the run is, what is compiled.

    Raises:
        UserError: the recipe, the data, the model and the workdir do not fit each other, or another training is at
            work in the workdir. One that was made for this is gone again.
        CheckpointError: a damaged checkpoint, or none can be written.
        TrainingStopped: too many steps without finite gradients.
        PassingFault: storage did not answer.
    """
    layout, source = Layout(make_mesh(config.mesh)), open_trained(config.model)  # before there is a workdir
    check_batches(config, layout.mesh.shape)
    check_sources(config)
    check_model(config, source.config)
    first = jax.process_index() == 0
    if first:
        tensorboard_library()  # before threads trace
    files = WorkFiles(workdir, continued=(LOG, WANDB_ID) if first else (), lock=first)
    with files, Checkpoints(folder(workdir), config.checkpoint) as checkpoints:
        run = Run(config, layout, source, files, checkpoints)
        last = len(config.stages) - 1 if last_stage is None else last_stage
        with contextlib.closing(_Loop(run, last, preview, progress, say)) as loop:
            run.begin(allow_older, allow_change, loop.preparing)
            return loop.go(boards, profile)


class _Loop:
    """The stages of a run.

    Args:
        last_stage: that is to be run.
        run, preview, progress, say: see `train`.
    """

    def __init__(
        self, run: Run, last_stage: int, preview: Preview | None, progress: ReportStep, say: Callable[[str], None]
    ) -> None:
        self.run, self.last_stage = run, last_stage
        self.preview, self.progress, self.say = preview, progress, say
        self.stages: list[_Stage] = []
        self.compilation: Compilation | None = None

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """The stages that are left, whose programs are traced while the weights are drawn or read."""
        self.close()
        run = self.run
        left = [n for n in range(self.last_stage + 1) if run.step < run.config.first_step(n + 1)]
        if left:
            self.report("loading")
            self.stages = [_Stage(self, number) for number in left]
            self._introduce(self.stages[0])
            state = self.stages[0].train_step.placed_state
            self.compilation = Compilation(self._ahead(*self.stages), state, self.say)
        yield

    def close(self) -> None:
        """What was traced and is not compiled will not be."""
        if self.compilation is not None:
            self.compilation.give_up()

    def go(self, boards: Sequence[OpenBoard], profile: bool) -> Outcome:
        """Runs the stages that are left, from the state that is there."""
        run = self.run
        self.log = MetricsLog(run.workdir, run.step, enabled=jax.process_index() == 0, boards=boards)
        traced = (run.step + _PROFILED.start, run.step + _PROFILED.stop)
        self.profiler = Profiler(run.workdir / "profile" if profile else None, traced)
        with self.log, self.profiler, Interruption(run.checkpoints.reached_preemption) as interruption:
            if run.changed:
                self.log.write(run.step, {"changed": run.changed})
            code = interruption.exit_code(run.step)  # so that processes agree on what comes while they compile, too
            while self.stages and not code:  # one that has ended is let go, with the data that it holds
                code = self.stages.pop(0).go(interruption)
        return Outcome(step=run.step, exit_code=code or 0, metrics=run.metrics)

    def report(self, note: str) -> None:
        """How far the run is, and what it is doing."""
        self.progress(self.run.step, self.run.config.total_steps, note)

    def compile(self, stage: "_Stage") -> None:
        """The steps of all shapes that a stage will meet, and of those after it where they can; of long ones, soon."""
        self.report("compiling")
        if self.compilation is None:
            compile_stages(self._ahead(stage, *self.stages), self.run.state, self.say)
        else:
            compilation, self.compilation = self.compilation, None
            compilation.finish()

    @staticmethod
    def _ahead(*stages: "_Stage") -> Ahead:
        return [(stage.programs, stage.shapes()) for stage in stages]

    def _introduce(self, stage: "_Stage") -> None:
        """Says what this run is."""
        run, learned = self.run, stage.train_step.abstract_state.params
        for line in overview(run.config, run.layout, learned, stage.frozen, run.begins, run.family.unet):
            self.say(line)
        check_weights(run.config.component, learned, run.layout)


class _Stage:
    """A stage while it runs."""

    def __init__(self, loop: _Loop, number: int) -> None:
        run = loop.run
        self.loop, self.run, self.config, self.number = loop, run, run.config, number
        self.name = run.config.stages[number].name
        self.first, self.end = run.config.first_step(number), run.config.first_step(number + 1)
        self.train_step, plain = run.train_step(number), run.train_step(number, counted=True)
        self.frozen = run.frozen_weights(self.train_step)
        self.mixture = run.mixture(number)
        self.means, self.clock = MeanMetrics(), Throughput()
        self.programs = StagePrograms(self.name, self.train_step, plain, self.frozen, self.mixture, run.parts)
        self.begun: set[Shape] = set()
        self.in_flight: collections.deque = collections.deque()

    def go(self, interruption: Interruption) -> int | None:
        """Steps to the end of the stage; the exit code if told to end before."""
        config, run = self.config, self.run
        self.batches = run.batches(self.mixture, self.first)
        try:
            self.batches.start_prefetch()  # while they compile
            self.loop.compile(self)
            self.clock.reset()
            while run.step < self.end:
                self.advance()
                last = run.step == self.end
                code = interruption.exit_code(run.step)
                if run.step % config.log_every == 0 or last or code:
                    self.write_log()
                if run.step % config.checkpoint.every == 0 or last or code:
                    self.clock.without(self.save)
                if self.loop.preview is not None and config.preview.every and run.step % config.preview.every == 0:
                    self.clock.without(self.show)
                if code:
                    return code
        finally:
            self.batches.close()
        return None

    def advance(self) -> None:
        """One step. It is queued on the device, a few at a time; the first of each shape is waited for."""
        run, seconds = self.run, self.batches.stats.seconds
        before = seconds["wait"]
        batch = next(self.batches)
        waited = seconds["wait"] - before
        self.loop.profiler.before(run.step)
        inputs = run.layout.put_batch(self.train_step.objective.inputs(batch))
        shape = (batch.kind, batch.bucket)
        if shape in self.begun:
            program = self.programs[shape]
            run.state, metrics = program.run(run.state, self.frozen, inputs)
            self.clock.add(len(jax.tree.leaves(inputs)[0]), program.flops, waited)
        else:  # its time does not count: memory is found for it, and connections are made
            jax.block_until_ready(run.state)  # the time of those before it does
            run.state, metrics = self.clock.without(lambda: self.begin(shape, inputs))
            self.clock.leave_out(waited)
        run.step += 1
        run.files.begun = True
        self.means.add(batch.kind, metrics)
        self.in_flight.append(metrics["loss"])
        if len(self.in_flight) > _IN_FLIGHT:
            jax.block_until_ready(self.in_flight.popleft())
        self.loop.profiler.after(run.step, metrics)

    def begin(self, shape: Shape, inputs: BatchArrays) -> tuple[TrainState, Any]:
        """The first step of a shape."""
        compile_stages([(self.programs, [shape])], self.run.state, self.loop.say)  # if it was not foreseen
        self.begun.add(shape)
        return jax.block_until_ready(self.programs[shape].run(self.run.state, self.frozen, inputs))

    def shapes(self) -> Sequence[Shape]:
        """Those that it will meet from where the run is, or from its own first step."""
        done = max(self.run.step - self.first, 0)
        return self.mixture.shapes(done, min(done + _FORESEEN, self.end - self.first))

    def write_log(self) -> None:
        """An entry of the log; ends a run whose gradients are not finite any more."""
        run, metrics = self.run, self.means.take()
        run.metrics = metrics | self.clock.take()
        self.loop.log.write(run.step, {"stage": self.name, **run.metrics})
        self.loop.report(f"{self.name}, loss {metrics['loss']:.4f}")
        run.checkpoints.check()
        if (skipped := int(run.state.skipped_in_a_row)) >= self.config.max_skipped:
            run.checkpoints.wait()
            good = [step for step in run.checkpoints.steps if step <= run.step - skipped]
            last = f"the last good checkpoint is of step {good[-1]}" if good else "there is no checkpoint from before"
            raise TrainingStopped(
                f"{skipped} steps in a row, up to step {run.step}, had no finite loss or gradient; {last}"
            )

    def show(self) -> None:
        """Takes a preview."""
        run, loop = self.run, self.loop
        kinds = run.config.seen_kinds(run.config.stages[self.number], run.family.unet)
        take_preview(loop.preview, run.step, run.state.ema, structures=kinds, workdir=run.workdir, log=loop.log)

    def save(self) -> None:
        """Starts writing a checkpoint."""
        run, family = self.run, self.run.family
        if self.config.component == "vae":
            family = with_latent_scale(family, run.metrics)
        record = {
            "config": self.config.to_dict(),
            "components": list(run.components),
            "origin": run.origin.to_dict(),
            "model": family.to_dict(),
            "stage": self.name,
            "data": self.batches.get_state(),
            "metrics": run.metrics,
        }
        run.files.upload()  # before there is a checkpoint from which a run would go on without its log
        run.checkpoints.save(run.step, run.state, record)
