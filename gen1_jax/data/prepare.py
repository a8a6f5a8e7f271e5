"""One video into training clips: what `gen1 prepare` does with each file, wherever it runs.

            ┌ first reading ────────────────────────┐   ┌ second reading ──────────────────────────────┐
 file ──────┤ every frame: thumbnail, black borders ├──►│ every stride-th frame: crop, bucket, black?, ├──► mp4 clips
            └ shots ► windows of frames x stride ───┘   │ static?, encode                              │
                                                        └──────────────────────────────────────────────┘
Two readings instead of one, because a shot's end and its bars are known only after it, and a damaged file only at
its end: memory holds one clip of frames, however long the video is, and a bad file gives no clips. Shots are found in
pieces of 20,000 frames, so that thumbnails of hours need not be held: a shot ends, too, where a piece does.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int, UInt8

from gen1_jax.data.codec import encode_video
from gen1_jax.data.prepare_geometry import (
    BUCKETS,
    Box,
    Bucket,
    cover,
    dark_borders,
    nearest_bucket,
    picture_box,
    resize,
)
from gen1_jax.data.prepare_pool import getting_on
from gen1_jax.data.shots import ShotOptions, find_shots, thumbnail
from gen1_jax.errors import UserError
from gen1_jax.media import Frame, Limits, MediaError, VideoInfo, VideoReader, open_video
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.provenance import training_opt_out

NO_LIMIT = 2**40
"""Of frames: as many as there are."""

_PIECE = 20_000  # frames, 11 minutes at 30 a second; 34 MiB of thumbnails

TOO_SHORT, TOO_SMALL, BLACK, STATIC = "too short", "too small", "black", "static"
"""Why a shot (the first) or a clip is left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What a clip is.

    Args:
        frames: in a clip; 1 makes pictures of a video.
        stride: every how many-th frame of the video is taken.
        buckets: sizes (height, width) of clips, both even; a clip gets the one nearest to its shape.
        max_upscale: a picture that would have to be magnified more than this is too small.
        black_level: a clip with a frame whose mean is below it, of 255, is black.
        static_level: a clip whose thumbnails change by less than this from frame to frame, of 255, is static.
        crf: quality of x264, 0 (lossless) to 51.
        shots: what ends a shot.
        include_opted_out: take videos, too, whose owners forbid that models are trained on them (`training_opt_out`).
        limits: refuses larger files; there is none of frames unless one is given.

    Raises:
        ValueError: a value out of its range.
    """

    frames: int = 8
    stride: int = 4
    buckets: tuple[Bucket, ...] = BUCKETS
    max_upscale: float = 2.0
    black_level: float = 12.0
    static_level: float = 0.3
    crf: int = 17
    shots: ShotOptions = ShotOptions()
    include_opted_out: bool = False
    limits: Limits = Limits(max_frames=NO_LIMIT)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("frames", 1, 10_000),
            ("stride", 1, 10_000),
            ("max_upscale", 0.01, 100),
            ("black_level", 0, 255),
            ("static_level", 0, 255),
            ("crf", 0, 51),
        ):
            if not least <= (value := getattr(self, name)) <= most:
                raise UserError(f"{name} must be between {least} and {most}, not {value}.")
        if not self.buckets:
            raise UserError("buckets: at least one size is needed, such as 448x256.")
        if any(side < 2 or side % 2 for bucket in self.buckets for side in bucket):
            raise UserError(f"buckets: sides must be positive and even, not {self.buckets}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedClip:
    """One clip.

    Args:
        video: an mp4 file, H.264.
        start: index of its first frame in the video it was cut from.
        frames: how many.
        height: pixels.
        width: pixels.
        frame_rate: frames a second: the clip lasts as long as what it shows did.
    """

    video: bytes
    start: int
    frames: int
    height: int
    width: int
    frame_rate: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedVideo:
    """What one video gave.

    Args:
        clips: in order.
        shots: how many were found.
        rejected: how many shots or clips were left out, by reason; or the video, whose owner forbids training.
    """

    clips: tuple[PreparedClip, ...]
    shots: int
    rejected: dict[str, int]


def prepare_video(path: AnyPath, options: PrepareOptions) -> PreparedVideo:
    """Cuts a video into clips that do not overlap and that lie within a shot each.

    It depends on nothing but the file and the options, and gives the same bytes each time. Frames of the video are
    taken on one grid, at multiples of the stride.

    Args:
        path: a video, or a folder of pictures.
        options: what a clip is.

    Raises:
        MediaError: the file cannot be read to its end, or is beyond a limit.
    """
    if not options.include_opted_out and (said := training_opt_out(path)):
        return PreparedVideo(clips=(), shots=0, rejected={said: 1})
    rejected: Counter[str] = Counter()
    plans: list[_Plan] = []
    shots = 0
    with _open(path, options) as reader:
        info = reader.info
        for shot, borders in _shots(reader, options):
            shots += 1
            windows = _windows(shot, options.frames, options.stride)
            if not windows:
                rejected[TOO_SHORT] += 1
                continue
            box = picture_box(borders, info.width, info.height)
            bucket = _bucket(box, info, options)
            if bucket is None:
                rejected[TOO_SMALL] += len(windows)
            else:
                plans += [_Plan(start=start, box=box, bucket=bucket) for start in windows]
    clips = []
    for plan, frames in _read(path, plans, options):
        pictures = _pictures(plan, frames, info)
        reason = _fault(pictures, options)
        if reason:
            rejected[reason] += 1
        else:
            clips.append(_encode(plan, pictures, _frame_rate(frames, info, options), options))
    return PreparedVideo(clips=tuple(clips), shots=shots, rejected=dict(sorted(rejected.items())))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """A clip to be read: its first frame, the picture within the frame, its size."""

    start: int
    box: Box
    bucket: Bucket


def _open(path: AnyPath, options: PrepareOptions, **choice: int) -> VideoReader:
    """The video, of whatever length: what is held of it does not grow with that, and `_shots` counts the frames."""
    limits = dataclasses.replace(options.limits, max_frames=NO_LIMIT)
    reader = open_video(path, limits=limits, **choice)
    count = reader.info.frame_count
    if count is not None and count > options.limits.max_frames:
        reader.close()
        raise _too_long(path, f"about {count}", options)
    return reader


def _shots(reader: VideoReader, options: PrepareOptions) -> Iterator[tuple[range, Int[np.ndarray, "4"]]]:
    """The frames of each shot, and how much is black at its sides in all of them; see `dark_borders`."""
    first = 0
    while seen := [_seen(frame) for frame in itertools.islice(reader, _PIECE)]:
        if first + len(seen) > options.limits.max_frames:
            raise _too_long(reader.path, "more", options)
        thumbnails, borders = map(np.stack, zip(*seen, strict=True))
        for shot in find_shots(thumbnails, options.shots):
            yield range(first + shot.start, first + shot.stop), borders[shot.start : shot.stop].min(axis=0)
        first += len(seen)


def _seen(frame: Frame) -> tuple[UInt8[np.ndarray, "y x 3"], Int[np.ndarray, "4"]]:
    getting_on()
    return thumbnail(frame.rgb), dark_borders(frame.rgb)


def _too_long(path: AnyPath, count: str, options: PrepareOptions) -> MediaError:
    most = options.limits.max_frames
    return MediaError(f"{shown(path)}: {count} frames where {most} are allowed; cut it or raise --max-frames.")


def _windows(shot: range, frames: int, stride: int) -> list[int]:
    """First frames of the clips in a shot, one clip after the other on the grid of the stride."""
    first = -(-shot.start // stride) * stride
    return list(range(first, shot.stop - (frames - 1) * stride, frames * stride))


def _bucket(box: Box, info: VideoInfo, options: PrepareOptions) -> Bucket | None:
    """The size of a clip; None where the picture is too small for it."""
    width, height = box[2] - box[0], box[3] - box[1]
    bucket = nearest_bucket(width * float(info.sample_aspect_ratio) / height, options.buckets)
    left, top, right, bottom = cover(box, bucket, info.sample_aspect_ratio)
    scale = min(bucket[1] / (right - left), bucket[0] / (bottom - top))  # of the side with more pixels
    return bucket if scale <= options.max_upscale else None


def _read(path: AnyPath, plans: Sequence[_Plan], options: PrepareOptions) -> Iterator[tuple[_Plan, Sequence[Frame]]]:
    """The frames of each clip; reads no further than the last of them."""
    if not plans:
        return
    count = plans[-1].start // options.stride + options.frames
    with _open(path, options, stride=options.stride, frames=count) as reader:
        index = 0
        for plan in plans:
            while index < plan.start:
                next(reader)
                index += options.stride
                getting_on()
            getting_on()
            yield plan, [next(reader) for _ in range(options.frames)]
            index += options.frames * options.stride


def _pictures(plan: _Plan, frames: Sequence[Frame], info: VideoInfo) -> UInt8[np.ndarray, "t h w 3"]:
    part = cover(plan.box, plan.bucket, info.sample_aspect_ratio)
    return np.stack([resize(frame.rgb, part, plan.bucket) for frame in frames])


def _fault(pictures: UInt8[np.ndarray, "t h w 3"], options: PrepareOptions) -> str | None:
    """Why a clip is left out, if it is."""
    if pictures.mean(axis=(1, 2, 3)).min() < options.black_level:
        return BLACK
    small = np.stack([thumbnail(picture) for picture in pictures]).astype(np.int16)
    if len(small) > 1 and np.abs(np.diff(small, axis=0)).mean() < options.static_level:
        return STATIC
    return None


def _frame_rate(frames: Sequence[Frame], info: VideoInfo, options: PrepareOptions) -> Fraction:
    """By the times of the frames, as a video's rate may vary."""
    if len(frames) == 1:
        return info.frame_rate / options.stride
    return (len(frames) - 1) / (frames[-1].time - frames[0].time)


def _encode(
    plan: _Plan, pictures: UInt8[np.ndarray, "t h w 3"], frame_rate: Fraction, options: PrepareOptions
) -> PreparedClip:
    height, width = plan.bucket
    return PreparedClip(
        video=encode_video(pictures, float(frame_rate), crf=options.crf),
        start=plan.start,
        frames=len(pictures),
        height=height,
        width=width,
        frame_rate=float(frame_rate),
    )
