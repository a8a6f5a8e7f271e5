"""A run of a recipe: where its weights come from, what they have come to, and the steps and batches of its stages.

checkpoint, or model ─► state ─► steps and batches of each stage, for `loop`
"""

import collections
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gen1_jax.checkpoints.checksum import digest
from gen1_jax.checkpoints.store import CheckpointError, Checkpoints
from gen1_jax.checkpoints.trained import Origin
from gen1_jax.checkpoints.workdir import WorkFiles
from gen1_jax.data.config import Kind
from gen1_jax.data.mixture import BatchIterator, Mixture
from gen1_jax.data.precompute import check_latents
from gen1_jax.errors import UserError
from gen1_jax.files import write_text
from gen1_jax.models.module import Params, cast_kernels
from gen1_jax.parallel.sharding import Layout, rules_of
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.growing import grown
from gen1_jax.training.config import TrainConfig
from gen1_jax.training.learned import beginning, stored_of
from gen1_jax.training.objective import Calibrated
from gen1_jax.training.objectives import make_objective, objective_kind
from gen1_jax.training.optimizer import ema_decays, learning_rates
from gen1_jax.training.programs import Once
from gen1_jax.training.recipe import changes, refused
from gen1_jax.training.step import Programs, TrainState, TrainStep, initial_state

Meanwhile = Callable[[], AbstractContextManager[Any]]
"""Opens what is done while something else is."""


class Run:
    """A run of a recipe, while it is at work: what it has come to, and what its stages are made of.

    Args:
        config: the recipe.
        layout: where arrays lie.
        source: the model that it begins from.
        files: of its workdir.
        checkpoints: there.

    Attributes:
        family: the model that is trained.
        state: what is learned; not there before `begin`.
        step: of the run, that `state` has come to.
        metrics: of the last entry of the log.
        origin: where the run's weights come from.
        changed: fields of the recipe, since the checkpoint.

    Raises:
        UserError: a stage is to see structures that the model has none of.
    """

    def __init__(
        self, config: TrainConfig, layout: Layout, source: ModelSource, files: WorkFiles, checkpoints: Checkpoints
    ) -> None:
        self.config, self.layout, self.family = config, layout, config.family(source.config)
        self.components = objective_kind(config).components
        self.begun_with = source.config.components
        self.source = grown(source, self.family.unet, self.family.split)
        self.files, self.checkpoints, self.workdir = files, checkpoints, files.folder
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
        self.step = 0
        self.data_state: dict[str, Any] | None = None
        self.changed: dict[str, Any] = {}

    @property
    def begins(self) -> str:
        """Where it begins, or goes on, in words."""
        if self.step:
            return f"goes on from step {self.step} of {self.config.total_steps}"
        if self.from_scratch:
            return f"begins with random weights of seed {self.config.seed}"
        return f"begins with the weights of {self.source.name}"

    @property
    def from_scratch(self) -> bool:
        """Whether its first weights are random."""
        return self.config.from_scratch or self.source.warning is not None

    def begin(self, allow_older: bool, allow_change: Sequence[str], meanwhile: Meanwhile) -> None:
        """Takes up the newest checkpoint, or the weights of the model.

        Args:
            allow_older, allow_change: see `loop.train`.
            meanwhile: what is done while weights are read or drawn, when it is known to which step they belong; once
                more, where a checkpoint is damaged.
        """
        if not self._restore(allow_older, allow_change, meanwhile):
            with meanwhile():
                self.state = jax.block_until_ready(self._initial_state())
            _write_json(self.workdir / "config.json", self.config.to_dict())

    def _restore(self, allow_older: bool, allow_change: Sequence[str], meanwhile: Meanwhile) -> bool:
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
                self._take_up(step, record, changed, began)
                with meanwhile():
                    placed = self.train_step(0).placed_state
                    self.state = jax.block_until_ready(self.checkpoints.restore(step, placed))
            except CheckpointError as error:
                older = [s for s in self.checkpoints.steps if s < step]
                if not (allow_older and older):
                    hint = f"; --allow-older goes on from step {older[-1]}" if older else ""
                    raise CheckpointError(f"{error}{hint}") from None
                continue
            self._drop_newer(step)
            return True
        return False

    def _take_up(self, step: int, record: Mapping[str, Any], changed: Mapping[str, Any], began: Origin) -> None:
        """What a checkpoint tells beside its arrays."""
        self.step, self.data_state, self.metrics = step, record["data"], record["metrics"]
        self.changed = {name: list(values) for name, values in changed.items()}
        if any(name.startswith("data.") for name in changed):
            self.data_state = None  # it is of other batches; those of a step follow from seed and step alone
        if began.frozen:  # the first checkpoints do not say
            self.origin = dataclasses.replace(began, place=self.origin.place)

    def _drop_newer(self, step: int) -> None:
        """Damaged checkpoints would stand in the way of those that will be written in their place."""
        for newer in [s for s in self.checkpoints.steps if s > step]:
            self.checkpoints.delete(newer)

    def _initial_state(self) -> TrainState:
        """The weights of the model, or new ones, straight into their shards."""
        step = self.train_step(0)
        objective, shardings = step.objective, step.state_shardings
        seed = self.config.seed
        stored = None if self.from_scratch else stored_of(self.source, self.components, had=self.begun_with)
        params = beginning(objective.module, seed, stored)
        if isinstance(objective, Calibrated):
            batches = self.mixture(0, whole=True).iterate()
            params = objective.calibrate(params, self.frozen_weights(step), batches)
            batches.close()
        params = objective.learned.initial(params, seed)

        def make(params: Params) -> TrainState:
            return initial_state(jax.tree.map(lambda x: x.astype(jnp.float32), params), self.config.optimizer)

        return jax.jit(make, out_shardings=shardings)(self.layout.put(params, shardings.params))

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


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    if jax.process_index() == 0:
        write_text(path, json.dumps(values, indent=2) + "\n")
