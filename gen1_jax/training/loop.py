"""The loop: the stages of a recipe, one after the other, from wherever the workdir has come to.

restore or initialise ─► for each stage: for each batch: step ─► log ─► checkpoint ─► preview ─► told to end?
"""

import collections
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gen1_jax.checkpoints.checksum import digest
from gen1_jax.checkpoints.store import CheckpointError, Checkpoints
from gen1_jax.checkpoints.trained import Origin, open_trained, with_latent_scale
from gen1_jax.checkpoints.workdir import WorkFiles
from gen1_jax.data.config import Kind
from gen1_jax.data.mixture import BatchIterator, Mixture
from gen1_jax.data.precompute import check_latents
from gen1_jax.data.storage import folder
from gen1_jax.errors import Failure, UserError
from gen1_jax.files import write_text
from gen1_jax.models.module import Params, cast_kernels
from gen1_jax.parallel.mesh import make_mesh
from gen1_jax.parallel.sharding import Layout, rules_of
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.growing import grown
from gen1_jax.training.boards import WANDB_ID, OpenBoard
from gen1_jax.training.checks import check_batches, check_model, check_sources, check_weights
from gen1_jax.training.compiling import Shape, StagePrograms, compile_stages
from gen1_jax.training.config import TrainConfig
from gen1_jax.training.interruption import Interruption
from gen1_jax.training.learned import beginning, stored_of
from gen1_jax.training.metrics import LOG, MeanMetrics, MetricsLog
from gen1_jax.training.objective import BatchArrays, Calibrated
from gen1_jax.training.objectives import make_objective, objective_kind
from gen1_jax.training.optimizer import ema_decays, learning_rates
from gen1_jax.training.overview import overview
from gen1_jax.training.preview import Preview, take_preview
from gen1_jax.training.programs import Once
from gen1_jax.training.recipe import changes, refused
from gen1_jax.training.step import Programs, TrainState, TrainStep, initial_state
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
    files = WorkFiles(workdir, continued=(LOG, WANDB_ID) if first else (), lock=first)
    with files, Checkpoints(folder(workdir), config.checkpoint) as checkpoints:
        run = _Run(config, layout, source, files, checkpoints, preview, boards, progress, say, profile)
        if not run.restore(allow_older, allow_change):
            run.initialise()
        return run.go(len(config.stages) - 1 if last_stage is None else last_stage)


class _Run:
    """What lives as long as one call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        layout: Layout,
        source: ModelSource,
        files: WorkFiles,
        checkpoints: Checkpoints,
        preview: Preview | None,
        boards: Sequence[OpenBoard],
        progress: ReportStep,
        say: Callable[[str], None],
        profile: bool,
    ) -> None:
        self.config, self.layout, self.family = config, layout, config.family(source.config)
        self.components = objective_kind(config).components
        self.begun_with = source.config.components
        self.source = grown(source, self.family.unet, self.family.split)
        self.files, self.checkpoints, self.workdir = files, checkpoints, files.folder
        self.preview, self.boards, self.progress, self.say, self.profile = preview, boards, progress, say, profile
        for stage in config.stages:
            config.seen_kinds(stage, self.family.unet)  # raises now what would end the run at that stage
        self.origin = Origin.of(config.model, source)
        self.rates = learning_rates(config.optimizer, [(s.steps, s.learning_rate) for s in config.stages])
        self.ema_decays = ema_decays(config.optimizer, [(s.steps, s.ema_decay) for s in config.stages])
        self.frozen: dict[str, Params] = {}
        updates = Once()  # of all stages: weights are updated alike, whatever a step sees
        self.programs: dict[bool | tuple[str, ...], Programs] = collections.defaultdict(lambda: Programs(updates))
        self.metrics: dict[str, Any] = {}
        self.state: TrainState
        self.step = 0  # of the run, that `state` has come to
        self.data_state: dict[str, Any] | None = None
        self.changed: dict[str, Any] = {}  # fields of the recipe, since the checkpoint

    def restore(self, allow_older: bool, allow_change: Sequence[str]) -> bool:
        """Takes up the newest checkpoint; False if there is none."""
        for step in reversed(self.checkpoints.steps):
            try:
                record = self.checkpoints.record(step)
                began = Origin.from_record(record)
                same_place = {"model": self.config.model} if began.place == self.origin.place else {}
                changed = changes(record["config"] | same_place, self.config.to_dict(), step)
                if different := refused(changed, allow_change):
                    raise UserError(f"{self.checkpoints.folder.parent} was made by another recipe: {different}")
                # A size that is named may have other defaults by now. What was allowed to change is in the recipe.
                self.family = self.config.family(Gen1Config.from_dict(record["model"]))
                self.state = self.checkpoints.restore(step, self.train_step(0).placed_state)
            except CheckpointError as error:
                older = [s for s in self.checkpoints.steps if s < step]
                if not (allow_older and older):
                    hint = f"; --allow-older goes on from step {older[-1]}" if older else ""
                    raise CheckpointError(f"{error}{hint}") from None
                continue
            self.step, self.data_state, self.metrics = step, record["data"], record["metrics"]
            self.changed = {name: list(values) for name, values in changed.items()}
            if any(name.startswith("data.") for name in changed):
                self.data_state = None  # it is of other batches; those of a step follow from seed and step alone
            if began.frozen:  # the first checkpoints do not say
                self.origin = dataclasses.replace(began, place=self.origin.place)
            self._drop_newer(step)
            return True
        return False

    def _drop_newer(self, step: int) -> None:
        """Damaged checkpoints would stand in the way of those that will be written in their place."""
        for newer in [s for s in self.checkpoints.steps if s > step]:
            self.checkpoints.delete(newer)

    def initialise(self) -> None:
        """The weights of the model, or new ones, straight into their shards."""
        step = self.train_step(0)
        objective, shardings = step.objective, step.state_shardings
        seed, fresh = self.config.seed, self.config.from_scratch or self.source.warning is not None
        params = beginning(
            objective.module, seed, None if fresh else stored_of(self.source, self.components, had=self.begun_with)
        )
        if isinstance(objective, Calibrated):
            batches = self.mixture(0, whole=True).iterate()
            params = objective.calibrate(params, self.frozen_weights(step), batches)
            batches.close()
        params = objective.learned.initial(params, seed)

        def make(params: Params) -> TrainState:
            return initial_state(jax.tree.map(lambda x: x.astype(jnp.float32), params), self.config.optimizer)

        self.state = jax.jit(make, out_shardings=shardings)(self.layout.put(params, shardings.params))
        _write_json(self.workdir / "config.json", self.config.to_dict())

    def go(self, last_stage: int) -> Outcome:
        """Runs the stages that are not done."""
        log = MetricsLog(self.workdir, self.step, enabled=jax.process_index() == 0, boards=self.boards)
        traced = (self.step + _PROFILED.start, self.step + _PROFILED.stop)
        self.profiler = Profiler(self.workdir / "profile" if self.profile else None, traced)
        with log, self.profiler, Interruption(self.checkpoints.reached_preemption) as interruption:
            if self.changed:
                log.write(self.step, {"changed": self.changed})
            code = interruption.exit_code(self.step)  # so that processes agree on what comes while they compile, too
            left = [n for n in range(last_stage + 1) if self.step < self.config.first_step(n + 1)]
            if left and not code:
                self.progress(self.step, self.config.total_steps, "loading")
                stages = [_Stage(self, number, log) for number in left]
                self._introduce(stages[0].frozen)
                while stages and not code:  # one that has ended is let go, with the data that it holds
                    code = stages.pop(0).go(interruption, stages)
        return Outcome(step=self.step, exit_code=code or 0, metrics=self.metrics)

    def _introduce(self, frozen: Mapping[str, Params]) -> None:
        """Says what this run is."""
        if self.step:
            begins = f"goes on from step {self.step} of {self.config.total_steps}"
        elif self.config.from_scratch or self.source.warning is not None:
            begins = f"begins with random weights of seed {self.config.seed}"
        else:
            begins = f"begins with the weights of {self.source.name}"
        for line in overview(self.config, self.layout, self.state.params, frozen, begins, self.family.unet):
            self.say(line)
        check_weights(self.config.component, self.state.params, self.layout)

    def train_step(self, stage: int, *, counted: bool = False) -> TrainStep:
        """The step of a stage; `counted`: one whose operations are those of the mathematics, without recomputation."""
        config = dataclasses.replace(self.config, remat=False) if counted else self.config
        devices = self.layout.mesh.size
        objective = make_objective(config, config.stages[stage], self.family, self.source.tokenizer, devices)
        return TrainStep(
            objective,
            config.optimizer,
            self.rates,
            self.layout,
            dtype=jnp.dtype(config.dtype),
            ema_decay=self.ema_decays,
            seed=config.seed,
            programs=None if counted else self.programs[config.stages[stage].structure],  # levels are an input
        )

    def frozen_weights(self, step: TrainStep) -> dict[str, Params]:
        """Frozen weights that a step reads, in the dtype of the computation, loaded once."""
        for name in step.frozen:
            if name not in self.frozen:
                stored, dtype = step.frozen_part(name, self.source.stored(name)), jnp.dtype(self.config.dtype)
                placed = self.layout.put(stored, self.layout.at_rest(stored, rules_of(name)))
                self.frozen[name] = jax.jit(lambda params: cast_kernels(params, dtype))(placed)  # noqa: B023
                self.origin = self.origin.with_frozen(name, digest(self.frozen[name]), self.source)
        return {name: self.frozen[name] for name in step.frozen}

    def mixture(self, stage: int, *, whole: bool = False) -> Mixture:
        """The batches of a stage: this process's part of each, or all of it."""
        data = self.config.stage_data(stage)
        index, count = (0, 1) if whole else self.layout.process_shard()
        if data.inputs == "latents":
            for source in {source for stream in data.streams.values() for source in stream.sources}:
                check_latents(source.path, source.split, self.source)
        return Mixture(data, process_index=index, process_count=count)

    def batches(self, mixture: Mixture, first: int) -> BatchIterator:
        """The batches of a stage that began at step `first`, from where the run is."""
        batches = mixture.iterate(self.step - first)
        if self.data_state is not None and self.step > first:
            batches.set_state(self.data_state)
        self.data_state = None
        return batches

    def parts(self, kind: Kind) -> int:
        """Into how many parts a batch is divided; `check_batches` has seen that it can be."""
        return self.config.microbatches.of(kind)


class _Stage:
    """A stage while it runs."""

    def __init__(self, run: _Run, number: int, log: MetricsLog) -> None:
        self.run, self.config, self.log, self.number = run, run.config, log, number
        self.name = run.config.stages[number].name
        self.first, self.end = run.config.first_step(number), run.config.first_step(number + 1)
        self.train_step, plain = run.train_step(number), run.train_step(number, counted=True)
        self.frozen = run.frozen_weights(self.train_step)
        self.mixture = run.mixture(number)
        self.means, self.clock = MeanMetrics(), Throughput()
        self.programs = StagePrograms(self.name, self.train_step, plain, self.frozen, self.mixture, run.parts)
        self.begun: set[Shape] = set()
        self.in_flight: collections.deque = collections.deque()

    def go(self, interruption: Interruption, following: Sequence["_Stage"]) -> int | None:
        """Steps to the end of the stage; the exit code if told to end before."""
        config, run = self.config, self.run
        self.batches = run.batches(self.mixture, self.first)
        try:
            self.batches.start_prefetch()  # while they compile
            self.compile(following)
            self.clock.reset()
            while run.step < self.end:
                self.advance()
                last = run.step == self.end
                code = interruption.exit_code(run.step)
                if run.step % config.log_every == 0 or last or code:
                    self.write_log()
                if run.step % config.checkpoint.every == 0 or last or code:
                    self.clock.without(self.save)
                if run.preview is not None and config.preview.every and run.step % config.preview.every == 0:
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
        run.profiler.before(run.step)
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
        run.profiler.after(run.step, metrics)

    def begin(self, shape: Shape, inputs: BatchArrays) -> tuple[TrainState, Any]:
        """The first step of a shape."""
        compile_stages([(self.programs, [shape])], self.run.state, self.run.say)  # if it was not foreseen
        self.begun.add(shape)
        return jax.block_until_ready(self.programs[shape].run(self.run.state, self.frozen, inputs))

    def compile(self, following: Sequence["_Stage"]) -> None:
        """The steps of all shapes that this stage will meet, and those after it where they can; of long ones, soon."""
        self.run.progress(self.run.step, self.config.total_steps, "compiling")
        compile_stages([(s.programs, s.shapes()) for s in (self, *following)], self.run.state, self.run.say)

    def shapes(self) -> Sequence[Shape]:
        """Those that it will meet from where the run is, or from its own first step."""
        done = max(self.run.step - self.first, 0)
        return self.mixture.shapes(done, min(done + _FORESEEN, self.end - self.first))

    def write_log(self) -> None:
        """An entry of the log; ends a run whose gradients are not finite any more."""
        run, metrics = self.run, self.means.take()
        run.metrics = metrics | self.clock.take()
        self.log.write(run.step, {"stage": self.name, **run.metrics})
        run.progress(run.step, self.config.total_steps, f"{self.name}, loss {metrics['loss']:.4f}")
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
        run = self.run
        kinds = run.config.seen_kinds(run.config.stages[self.number], run.family.unet)
        take_preview(run.preview, run.step, run.state.ema, structures=kinds, workdir=run.workdir, log=self.log)

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


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    if jax.process_index() == 0:
        write_text(path, json.dumps(values, indent=2) + "\n")
