"""Metrics: kept on the device between two entries of the log, then written as JSON lines and for TensorBoard."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from gen1_jax.data.storage import Folder
from gen1_jax.files import write_text
from gen1_jax.training.step import Metrics

LOG = "log.jsonl"
_STRIP = 4  # frames of a clip's strip


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
    """log.jsonl and TensorBoard events of a workdir; a context manager. Entries after `step` are forgotten.

    Args:
        workdir: of the run.
        step: where the run goes on.
        enabled: False on all processes but one.
    """

    def __init__(self, workdir: Path, step: int, *, enabled: bool = True):
        self._enabled = enabled
        if not enabled:
            return
        path = workdir / LOG
        with _naming(path):
            _forget(path, step)
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1 if step else None)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            self._file.close()
            self._board.close()

    def write(self, step: int, entry: dict) -> None:
        """One entry: finite numbers go to both, the rest to log.jsonl alone."""
        if not self._enabled:
            return
        plain = {name: None if value != value or value in (np.inf, -np.inf) else value for name, value in entry.items()}
        with _naming(self._file.name):
            self._file.write(json.dumps({"step": step, **plain}) + "\n")
            self._file.flush()
        for name, value in plain.items():
            if isinstance(value, float | int):
                self._board.add_scalar(name, value, step)
        self._board.flush()

    def write_clip(self, step: int, name: str, frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> None:
        """A clip for TensorBoard's page of images: moving, and as a strip of a few frames, "NAME/frames"."""
        if not self._enabled:
            return
        strip = np.concatenate(
            [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, _STRIP).round().astype(int))]
        )
        self._board.add_image(f"{name}/frames", strip, step, dataformats="HWC")
        height, width = frames.shape[1:3]
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=_gif(frames, frame_rate))
        self._board.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
        self._board.flush()


def _gif(frames: UInt8[np.ndarray, "t h w 3"], frame_rate: float) -> bytes:
    """The library's own clips need a further package for this."""
    first, *rest = map(Image.fromarray, frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=max(20, round(1000 / frame_rate)), loop=0)
    return file.getvalue()


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
