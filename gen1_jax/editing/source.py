"""The frames of a file at the model's size: only these are held, those of the source's size pass through one by one."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gen1_jax.data.prepare_geometry import cover
from gen1_jax.editing.enlarging import Enlargement
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.maps import ClipGeometry
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.structures import Frames, Progress
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, Part, VideoInfo, open_video


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """How a frame of a file becomes one that a model sees.

    Attributes:
        size: (height, width) that it is resampled to.
        box: what is cut out of it before, see `resize`.
        enlargement: what is done then; None for nothing.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float] | None = None
    enlargement: Enlargement | None = None

    @property
    def seen(self) -> tuple[int, int]:
        """(height, width) of what the model sees."""
        return self.size if self.enlargement is None else self.enlargement.size_of(self.size)

    def __call__(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """A frame as the model sees it."""
        small = resize(frame, self.size, self.box)
        return small if self.enlargement is None else self.enlargement.of(small)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameStream:
    """The frames of a long clip at the model's size: they are not held, but read again by every iteration.

    Attributes:
        path, part, limits: of the file.
        fit: to the model.
        count: of the frames.
    """

    path: str | Path
    part: Part
    limits: Limits
    fit: Fit
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model."""
        return self.fit.seen

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of an array of them."""
        return self.count, *self.size, 3

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        with open_video(self.path, limits=self.limits, **dataclasses.asdict(self.part)) as reader:
            for frame in reader:
                yield self.fit(frame.rgb)


@dataclasses.dataclass(frozen=True)
class Source:
    """The part of a file that is edited.

    Attributes:
        info: of the whole file.
        frames: at the model's size; of a long clip they are not held.
        fit: of a frame of the file to that.
        times: of the frames, seconds.
        end: when the last of them ceases to be shown, seconds.
        sound: the part of the sound that belongs to them (`VideoReader.sound`).
    """

    info: VideoInfo
    frames: Frames | FrameStream
    fit: Fit
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
    upscale: int = 1,
) -> Source:
    """Frames of a file at the model's size, in square pixels; `size` (width, height) gives them its shape.

    Where there are more than `longest`, they are not held but a `FrameStream`. For a model that is to `upscale` them
    they are of their own size, times that.

    Raises:
        MediaError: the file cannot be read, or is beyond the limits.
    """
    part = part or Part()
    with open_video(path, limits=limits, **dataclasses.asdict(part)) as reader:
        info = reader.info
        width, height = size or info.square_size
        enlargement = None if upscale == 1 else Enlargement(upscale, pipeline.config.size_multiple)
        working = (height, width) if enlargement else pipeline.config.working_size(height, width)
        whole = (0, 0, info.width, info.height)
        box = None if size is None else cover(whole, (height, width), info.sample_aspect_ratio)
        fit = Fit(size=working, box=box, enlargement=enlargement)
        small, times = [], []
        for frame in reader:
            times.append(frame.time)
            if longest is None or len(times) <= longest:
                small.append(fit(frame.rgb))
            else:
                small.clear()
            progress("reading", len(times), max(reader.expected_frames or 0, len(times)))
    if part.rate is not None and (reader.end - times[0]) * part.rate > limits.max_frames:
        raise UserError(
            f"--fps {float(part.rate):g}: of {path} it makes more than {limits.max_frames} frames;"
            " choose a --duration or raise --max-frames"
        )
    stream = FrameStream(path=path, part=part, limits=limits, fit=fit, count=len(times))
    return Source(info, np.stack(small) if small else stream, fit, times, reader.end, reader.sound)


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
