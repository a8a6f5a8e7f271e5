"""What is finished, one file a video: a line of JSON about it, and then the bytes of its clips.

A file is written beside its place and renamed, so that a run which is killed at any moment loses only the videos
it was at, and several processes or machines that share the folder can fill it.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gen1_jax.data.prepare import PreparedClip, PreparedVideo, PrepareOptions, prepare_video
from gen1_jax.data.prepare_geometry import bucket_name
from gen1_jax.files import replacing
from gen1_jax.media.errors import AnyPath, shown

PrepareFunction = Callable[[AnyPath, PrepareOptions], PreparedVideo]
Task = tuple[int, Path]
"""Index of a video in the list, and its path."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a video.

    Args:
        shots: how many were found.
        buckets: how many clips it gave, by the name of their size.
        rejected: how many shots or clips were left out, by reason.
        size: bytes of all clips.
        error: why it is in quarantine, if it is.
    """

    shots: int = 0
    buckets: dict[str, int] = dataclasses.field(default_factory=dict)
    rejected: dict[str, int] = dataclasses.field(default_factory=dict)
    size: int = 0
    error: str | None = None

    @property
    def clips(self) -> int:
        """How many clips it gave."""
        return sum(self.buckets.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpoolTask:
    """`task(index, path)`: prepares a video into the spool; picklable, so that it can run anywhere.

    Args:
        folder: the spool.
        options: what a clip is.
        prepare: does the work; whatever it raises is the video's fault.
    """

    folder: Path
    options: PrepareOptions
    prepare: PrepareFunction = prepare_video

    def __call__(self, task: Task) -> None:
        index, path = task
        try:
            video = self.prepare(path, self.options)
        except Exception as error:
            save_error(self.folder, index, _reason(path, error))
        else:
            _save(self.folder, index, _outcome(video), video.clips)


def save_error(folder: Path, index: int, reason: str) -> None:
    """Puts a video into quarantine."""
    _save(folder, index, Outcome(error=reason), ())


def is_finished(folder: Path, index: int) -> bool:
    """Whether the spool has the video."""
    return _path(folder, index).exists()


def read_outcome(folder: Path, index: int) -> Outcome:
    """What became of a video."""
    with _path(folder, index).open("rb") as file:
        return Outcome(**json.loads(file.readline())["outcome"])


def read_clips(folder: Path, index: int) -> Iterator[PreparedClip]:
    """The clips of a video, one after the other."""
    with _path(folder, index).open("rb") as file:
        for clip in json.loads(file.readline())["clips"]:
            yield PreparedClip(video=file.read(clip.pop("size")), **clip)


def _save(folder: Path, index: int, outcome: Outcome, clips: tuple[PreparedClip, ...]) -> None:
    with replacing(_path(folder, index)) as part, part.open("wb") as file:
        head = {"outcome": dataclasses.asdict(outcome), "clips": [_describe(clip) for clip in clips]}
        file.write(json.dumps(head).encode() + b"\n")
        for clip in clips:
            file.write(clip.video)


def _describe(clip: PreparedClip) -> dict[str, Any]:
    fields = {field.name: getattr(clip, field.name) for field in dataclasses.fields(clip) if field.name != "video"}
    return {**fields, "size": len(clip.video)}


def _outcome(video: PreparedVideo) -> Outcome:
    return Outcome(
        shots=video.shots,
        buckets=dict(Counter(bucket_name((clip.height, clip.width)) for clip in video.clips)),
        rejected=video.rejected,
        size=sum(len(clip.video) for clip in video.clips),
    )


def _reason(path: Path, error: Exception) -> str:
    """In one line and without the path, which is another on another machine."""
    text = " ".join(str(error).split())
    prefix = f"{shown(path)}: "
    return text.removeprefix(prefix) if text.startswith(prefix) else f"{type(error).__name__}: {text}"


def _path(folder: Path, index: int) -> Path:
    return folder / f"{index:08d}"
