"""Metrics: kept on the device between two entries of the log, then written as JSON lines and to the boards."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8

from gen1_jax.data.storage import Folder
from gen1_jax.files import write_text
from gen1_jax.training.boards import OpenBoard, TensorBoard
from gen1_jax.training.step import Metrics

LOG = "log.jsonl"


class MeanMetrics:
    """Means over the steps since the last entry. Arrays stay on the device until they are asked for."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, Metrics]] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, kind: str, metrics: Metrics) -> None:
        """Those of a step, of a batch of this kind."""
        self._steps.append((kind, metrics))

    def take(self) -> dict[str, float]:
        """The mean of each metric over the examples that bore on it, and by kind as "video/loss". Begins anew."""
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        for kind, metrics in jax.device_get(self._steps):
            for name, pair in metrics.items():
                sums[name] += pair
                sums[f"{kind}/{name}"] += pair
        self._steps.clear()
        return {name: float(total / count) for name, (total, count) in sums.items() if count}


class MetricsLog:
    """log.jsonl of a workdir, and boards; a context manager. Entries after `step` are forgotten.

    Args:
        workdir: of the run.
        step: where the run goes on.
        enabled: False on all processes but one.
        boards: beside TensorBoard.
    """

    def __init__(self, workdir: Path, step: int, *, enabled: bool = True, boards: Sequence[OpenBoard] = ()):
        self._enabled = enabled
        if not enabled:
            return
        path = workdir / LOG
        with _naming(path):
            _forget(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._boards = [open_board(workdir, step) for open_board in (TensorBoard, *boards)]

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            self._file.close()
            for board in self._boards:
                board.close()

    def write(self, step: int, entry: dict) -> None:
        """One entry: finite numbers go to the boards, too, the rest to log.jsonl alone."""
        if not self._enabled:
            return
        plain = {name: None if value != value or value in (np.inf, -np.inf) else value for name, value in entry.items()}
        with _naming(self._file.name):
            self._file.write(json.dumps({"step": step, **plain}) + "\n")
            self._file.flush()
        numbers = {name: value for name, value in plain.items() if isinstance(value, float | int)}
        for board in self._boards:
            board.numbers(step, numbers)

    def write_clip(self, step: int, name: str, frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> None:
        """A clip for the boards."""
        for board in self._boards if self._enabled else ():
            board.clip(step, name, frames, frame_rate)


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """A full disk says which file it was about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_log(workdir: Folder) -> list[dict]:
    """The entries of a run so far."""
    path = workdir / LOG
    return _entries(path.read_text(encoding="utf-8")) if path.exists() else []


def _entries(text: str) -> list[dict]:
    entries = []
    for line in text.splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:  # cut off by a kill
            continue
    return entries


def _forget(path: Path, step: int) -> None:
    """Drops the entries of steps that will be done again, and a last line that was cut off."""
    if path.exists():
        kept = [entry for entry in _entries(path.read_text(encoding="utf-8")) if entry["step"] <= step]
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
