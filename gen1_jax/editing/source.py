"""The frames of a file at the model's size: only these are held, those of the source's size pass through one by one."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gen1_jax.data.prepare_geometry import cover
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.maps import ClipGeometry
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.structures import Frames, Progress
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, Part, VideoInfo, open_video


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameStream:
    """The frames of a long clip at the model's size: they are not held, but read again by every iteration.

    Attributes:
        path, part, limits: of the file.
        size: (height, width) of the model.
        box: what is cut out of each frame, see `resize`.
        count: of the frames.
    """

    path: str | Path
    part: Part
    limits: Limits
    size: tuple[int, int]
    box: tuple[float, float, float, float] | None
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of an array of them."""
        return self.count, *self.size, 3

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        with open_video(self.path, limits=self.limits, **dataclasses.asdict(self.part)) as reader:
            for frame in reader:
                yield resize(frame.rgb, self.size, self.box)


@dataclasses.dataclass(frozen=True)
class Source:
    """The part of a file that is edited.

    Attributes:
        info: of the whole file.
        frames: at the model's size; of a long clip they are not held.
        times: of the frames, seconds.
        end: when the last of them ceases to be shown, seconds.
        sound: the part of the sound that belongs to them (`VideoReader.sound`).
    """

    info: VideoInfo
    frames: Frames | FrameStream
    times: list[Fraction]
    end: Fraction
    sound: tuple[Fraction | None, Fraction | None]


def read_source(
    path: str | Path,
    pipeline: Gen1Pipeline,
    limits: Limits,
    progress: Progress = lambda *_: None,
    part: Part | None = None,
    size: tuple[int, int] | None = None,
    longest: int | None = None,
) -> Source:
    """Frames of a file at the model's size, in square pixels; `size` (width, height) gives them its shape.

    Where there are more than `longest`, they are not held but a `FrameStream`.

    Raises:
        MediaError: the file cannot be read, or is beyond the limits.
    """
    part = part or Part()
    with open_video(path, limits=limits, **dataclasses.asdict(part)) as reader:
        info = reader.info
        width, height = size or info.square_size
        working = pipeline.config.working_size(height, width)
        whole = (0, 0, info.width, info.height)
        box = None if size is None else cover(whole, (height, width), info.sample_aspect_ratio)
        small, times = [], []
        for frame in reader:
            times.append(frame.time)
            if longest is None or len(times) <= longest:
                small.append(resize(frame.rgb, working, box))
            else:
                small.clear()
            progress("reading", len(times), max(reader.expected_frames or 0, len(times)))
    if part.rate is not None and (reader.end - times[0]) * part.rate > limits.max_frames:
        raise UserError(
            f"--fps {float(part.rate):g}: of {path} it makes more than {limits.max_frames} frames;"
            " choose a --duration or raise --max-frames"
        )
    stream = FrameStream(path=path, part=part, limits=limits, size=working, box=box, count=len(times))
    return Source(info, np.stack(small) if small else stream, times, reader.end, reader.sound)


def geometry_of(request: EditRequest, source: Source) -> ClipGeometry:
    """What of its file the clip of a request is."""
    width, height = source.info.square_size
    return ClipGeometry(
        shape=(height, width),
        crop=request.size,
        part=request.part,
        frame_rate=source.info.frame_rate,
        limits=request.limits,
    )


def source_frames(
    path: str | Path,
    limits: Limits,
    size: tuple[int, int],
    part: Part | None = None,
    crop: tuple[int, int] | None = None,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a file again, one by one: at (height, width), or as they are where that is their size.

    Args:
        path: of the file.
        limits: refuses larger files.
        size: (height, width) wanted.
        part: of the file.
        crop: (width, height) of the shape that is cut out; None for all of it.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_video(path, limits=limits, **dataclasses.asdict(part or Part())) as reader:
        info = reader.info
        whole = (0, 0, info.width, info.height)
        box = None if crop is None else cover(whole, crop[::-1], info.sample_aspect_ratio)
        for frame in reader:
            yield resize(frame.rgb, size, box)
