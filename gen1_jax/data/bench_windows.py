"""`gen1 bench data`: what a window of a video costs in the pipeline, and what PyAV alone takes for the same frames.

The comparison, in CPU seconds of one thread, files in the page cache, indices of frames made before:
  the pipeline  all that it does for an example of pixels: the record, open, checks, seek, decode, scale, crop,
                mirror, caption, copy into the batch
  PyAV          open, seek to the key frame before the window, decode to its last frame, and `to_ndarray` of the frames
                of the window as RGB of the size that the pipeline scales to
  PyAV, bare    the same without `to_ndarray`: nothing but decoding
"""

import io
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from gen1_jax.data.batch import collate
from gen1_jax.data.config import Bucket
from gen1_jax.data.loading import LoadExample
from gen1_jax.data.sources import TRAINING_LIMITS, open_source
from gen1_jax.errors import UserError
from gen1_jax.media.windows import open_windows

_ROUNDS = 5  # each is a turn of all three; medians count


class _Drawn(NamedTuple):
    """A window that the pipeline draws: where it is, and which of the decoded frames are in it."""

    video: Path | bytes
    size: tuple[int, int]
    times: tuple[int, ...]
    clocked: bool


def bench_windows(path: str, *, split: str, frames: int, stride: int, bucket: Bucket, windows: int) -> dict[str, Any]:
    """Times windows of the videos of a source.

    Args:
        path: see `open_source`.
        split: of a data set.
        frames: of a window.
        stride: from frame to frame.
        bucket: height and width.
        windows: how many, dealt out to the videos in turn.

    Returns:
        Counts; milliseconds of CPU a window for the pipeline and for PyAV; `speed`, what part of PyAV's speed the
        pipeline keeps.

    Raises:
        UserError: no source, or one that has no videos as files.
    """
    source = open_source(path, split)
    moving = source.moving() if hasattr(source, "moving") else np.ones(len(source), bool)
    loader = LoadExample(
        source=source,
        number=0,
        indices=np.flatnonzero(moving),
        bucket=bucket,
        frames=frames,
        stride=stride,
        subject=None,
        inputs="pixels",
        map_kinds=(),
        structure=(),
        structure_levels=(0, 0),
        flip_probability=0.5,
        random_crop=True,
        caption_bytes=256,
        skip_errors=False,
    )
    if not len(loader.indices):
        raise UserError(f"{path}: has no videos")
    drawn = [_draw(loader, position) for position in range(windows)]

    def pipeline() -> None:
        collate(map(_arrays, (loader.random_map(n, _generator(n)) for n in range(windows))), windows)

    measured = _in_turn([pipeline, lambda: _decode(drawn, convert=True), lambda: _decode(drawn, convert=False)])
    own, raw, bare = (1000 * seconds / windows for seconds in measured)
    return {
        "videos": min(windows, len(loader.indices)),
        "windows": windows,
        "frames": frames,
        "size": f"{bucket[1]}x{bucket[0]}",
        "pipeline_ms": own,
        "pyav_ms": raw,
        "pyav_bare_ms": bare,
        "speed": raw / own,
        "speed_bare": bare / own,
    }


def _generator(position: int) -> np.random.Generator:
    return np.random.default_rng(position)


def _draw(loader: LoadExample, position: int) -> _Drawn:
    """What `random_map` will read with the same generator."""
    index = int(loader.indices[position % len(loader.indices)])
    record = loader.source[index]
    video = record["video"]
    if isinstance(video, np.ndarray):
        raise UserError("its videos are arrays, which nobody decodes")
    folder = getattr(loader.source, "index_folder", None)
    with open_windows(video, limits=TRAINING_LIMITS, folder=folder, frames=record.get("frames")) as file:
        try:
            window = loader.draw_window(file.frames, file.height, file.width, _generator(position))
        except UserError as error:
            raise UserError(f"{loader.source.locate(index)} cannot be used ({error})") from None
        times = file.index.times[window.start :: window.stride][: window.frames]
        return _Drawn(video, window.size, tuple(times.tolist()), file.index.clocked)


def _arrays(example: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in example.items() if name not in ("seconds", "skipped")}


def _decode(drawn: Iterable[_Drawn], *, convert: bool) -> None:
    """PyAV's own way to the same frames."""
    for video, (height, width), times, clocked in drawn:
        with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            if clocked and times[0]:
                container.seek(times[0], stream=stream)
            for number, frame in enumerate(container.decode(stream)):
                at = frame.pts if clocked else number
                if convert and at in times:
                    frame.to_ndarray(format="rgb24", width=width, height=height)
                if at is not None and at >= times[-1]:
                    break


def _in_turn(functions: Sequence[Callable[[], None]]) -> list[float]:
    """The median CPU seconds of each; in turn, so that a busy machine slows all of them."""
    seconds = []
    for _ in range(_ROUNDS):
        turn = []
        for function in functions:
            began = time.process_time()
            function()
            turn.append(time.process_time() - began)
        seconds.append(turn)
    return [statistics.median(column) for column in zip(*seconds, strict=True)]
