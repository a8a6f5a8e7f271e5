"""Checkpoints: the whole state of a run, written in the background, atomic, verified when it is read.

    checkpoints/STEP/params  ema  progress (optimizer, counters)  record (JSON: recipe, stage, data cursor, versions)

The record holds checksums of every array, the same on any mesh (`checksum.py`), and of itself.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
import orbax.checkpoint as ocp

from gen1_jax.checkpoints.checksum import IN_ORDER, PLAIN, digest
from gen1_jax.checkpoints.config import CheckpointConfig
from gen1_jax.checkpoints.workdir import CHECKPOINTS
from gen1_jax.data.storage import Folder
from gen1_jax.errors import PassingFault, UserError, in_one_line, is_passing
from gen1_jax.models.module import Params
from gen1_jax.versions import versions

_SETTINGS = re.compile(r" \[\w+='\{.*", re.DOTALL)
"""How TensorStore was told to write, which it may say after what went wrong."""

_ITEMS = ("params", "ema", "progress", "record")
_PACKAGES = ("gen1-jax", "jax", "flax", "optax", "orbax-checkpoint")


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or cannot be written. One line that names it."""


@runtime_checkable
class State(Protocol):
    """All that a run changes: a NamedTuple of these and of further fields, arrays or trees of them."""

    params: Params
    ema: Params

    def _asdict(self) -> dict[str, Any]: ...

    def _replace(self, **fields: Any) -> Any: ...


S = TypeVar("S", bound=State)


class Checkpoints:
    """The checkpoints of a workdir; a context manager.

    Args:
        workdir: of the run.
        config: what is kept; None to read only.
    """

    def __init__(self, workdir: Folder, config: CheckpointConfig | None = None):
        self.folder = workdir / CHECKPOINTS
        options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        if config is not None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=config.keep, keep_period=config.keep_every, enable_async_checkpointing=True
            )
        self._absolute = self.folder.absolute() if isinstance(self.folder, Path) else self.folder
        self._manager = ocp.CheckpointManager(self._absolute, item_names=_ITEMS, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.wait()
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the checkpoints, ascending; that of one that is still being written comes last."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: State, record: Mapping[str, Any]) -> None:
        """Starts writing; returns as soon as the state has been copied to the host.

        Raises:
            CheckpointError: this or the one before could not be written.
            PassingFault: because storage did not answer; so too of the other methods.
        """
        if step in self._manager.all_steps():
            return
        sums = {"checksum": IN_ORDER, "checksums": checksums(state)}
        record = {**record, "step": step, "versions": versions(_PACKAGES), **sums}
        record["checksums"]["record"] = _record_checksum(record)
        with self._writing():
            self._check_space(state)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state.params),
                    ema=ocp.args.StandardSave(state.ema),
                    progress=ocp.args.StandardSave(_progress(state)),
                    record=ocp.args.JsonSave(record),
                ),
            )

    def wait(self) -> None:
        """Until all is written.

        Raises:
            CheckpointError: it could not be.
        """
        with self._writing():
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def check(self) -> None:
        """Raises CheckpointError if writing in the background has failed."""
        with self._writing():
            self._manager.check_for_errors()

    def reached_preemption(self, step: int) -> bool:
        """Whether the processes of this run have been told to end and are to save at this step, all at the same."""
        return self._manager.reached_preemption(step)

    def delete(self, step: int) -> None:
        """Removes a checkpoint, damaged or not."""
        self._manager.delete(step)

    def record(self, step: int) -> dict[str, Any]:
        """What is known about a checkpoint.

        Raises:
            CheckpointError: it is damaged.
        """
        with self._reading(step):
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record
            self._verify(step, record, {"record": _record_checksum(record)})
        return record

    def restore(self, step: int, abstract: S) -> S:
        """The state, of the same kind, straight into the shards that `abstract` asks for.

        Raises:
            CheckpointError: it is damaged.
        """
        with self._reading(step):
            items = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardRestore(abstract.params),
                    ema=ocp.args.StandardRestore(abstract.ema),
                    progress=ocp.args.StandardRestore(_progress(abstract)),
                    record=ocp.args.JsonRestore(),
                ),
            )
            state = abstract._replace(params=items.params, ema=items.ema, **items.progress)
            found = checksums(state, _version(items.record))
            self._verify(step, items.record, found | {"record": _record_checksum(items.record)})
        return state

    def weights(self, step: int, abstract: Params, *, ema: bool = True) -> Params:
        """The EMA weights (or the raw ones) alone, on the host.

        Raises:
            CheckpointError: they are damaged.
        """
        item = "ema" if ema else "params"
        with self._reading(step):
            arguments = {item: ocp.args.StandardRestore(jax.tree.map(_on_host, abstract))}
            items = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore(), **arguments))
            self._verify(step, items.record, {item: digest(items[item], _version(items.record))})
        return items[item]

    def _verify(self, step: int, record: Mapping[str, Any], found: Mapping[str, str]) -> None:
        for name, value in found.items():
            if record["checksums"][name] != value:
                raise CheckpointError(f"{self.folder / str(step)} is damaged: {name} are not what was saved")

    def _reading(self, step: int):
        return _one_line(lambda: f"{self.folder / str(step)} is damaged or incomplete")

    def _writing(self):
        return _one_line(lambda: f"a checkpoint cannot be written to {self.folder} ({self._last_good()})")

    def _last_good(self) -> str:
        finished = ocp.utils.checkpoint_steps(self._absolute)
        return f"the last good one is of step {max(finished)}" if finished else "there is none yet"

    def _check_space(self, state: State) -> None:
        """Refuses to begin what cannot be finished: it would end in pages of what the library says about it."""
        if not isinstance(self.folder, Path):  # a bucket is never full
            return
        shards = (shard for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards)
        needed = sum(shard.data.nbytes for shard in shards if shard.replica_id == 0)
        if (free := shutil.disk_usage(self.folder).free) < needed:
            raise OSError(f"it needs {needed / 2**20:,.1f} MiB, and {free / 2**20:,.1f} MiB are free")


def checksums(state: State, version: int = IN_ORDER) -> dict[str, str]:
    """A hash of the bits of each part of a state, the same on every mesh."""
    parts = {"params": state.params, "ema": state.ema, "progress": _progress(state)}
    return {name: digest(part, version) for name, part in parts.items()}


def _version(record: Mapping[str, Any]) -> int:
    """Of the checksums: those of the first checkpoints do not say."""
    return record.get("checksum", PLAIN)


def _record_checksum(record: Mapping[str, Any]) -> str:
    others = {name: value for name, value in record["checksums"].items() if name != "record"}
    text = json.dumps({**record, "checksums": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _progress(state: State) -> dict[str, Any]:
    return {name: value for name, value in state._asdict().items() if name not in ("params", "ema")}


def _on_host(leaf: Any) -> np.ndarray:
    return np.empty(leaf.shape, leaf.dtype)


class _one_line:
    """Turns whatever a library raises inside into a `CheckpointError` or a `PassingFault` of one line."""

    def __init__(self, message: Callable[[], str]):
        self._message = message

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, Exception) and not isinstance(error, CheckpointError | PassingFault):
            kind = PassingFault if is_passing(error) else CheckpointError
            raise kind(f"{self._message()}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """What began it, in a few words."""
    while error.__cause__ is not None:
        error = error.__cause__
    told = _SETTINGS.sub("", str(error))
    return in_one_line(Exception(told) if told else error, 285)
