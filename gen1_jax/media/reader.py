"""Reading video: a local file or a folder of pictures as a stream of RGB frames with their times.

path ──no URL, device, pipe──► source ──(frame, time)──► start, stride, frames ──► Frame(rgb, time)
                                 │
                                 ├ PictureSource, AnimationSource   what Pillow knows
                                 └ MovieSource                      what FFmpeg knows
"""

from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

from gen1_jax.errors import UserError
from gen1_jax.media.errors import DEFAULT_LIMITS, AnyPath, Limits, MediaError, shown
from gen1_jax.media.files import existing_path, regular_file
from gen1_jax.media.info import Frame, VideoInfo
from gen1_jax.media.movie import MovieSource
from gen1_jax.media.pictures import AnimationSource, PictureSource, open_pictures


def open_video(
    path: AnyPath,
    *,
    limits: Limits = DEFAULT_LIMITS,
    start: int = 0,
    frames: int | None = None,
    stride: int = 1,
    frame_rate: Fraction | int = 8,
    threads: int = 0,
) -> "VideoReader":
    """Opens a video for reading, frame by frame.

    Reads every container and codec that FFmpeg does (mp4, mov, mkv, webm, avi, gif, mpegts, ...), animated WebP
    and PNG, a folder of equally large pictures in natural order, and a single picture. Rotation metadata is
    applied; 10-bit, grey and interlaced video becomes plain 8-bit RGB (`RgbDecoder`); frames whose size changes
    on the way are scaled to the first one's. Only local files are read, and nothing that they refer to.

    Args:
        path: file or folder.
        limits: refuses larger ones.
        start: index of the first frame wanted.
        frames: how many at most; None for all.
        stride: every how many-th.
        frame_rate: frames a second of a folder of pictures, which says nothing itself.
        threads: for decoding; 0 for as many as FFmpeg sees fit. Many readers at once want 1.

    Raises:
        ValueError: `start` < 0, `frames` < 1, `stride` < 1 or `frame_rate` <= 0.
        MediaError: here or while reading: missing, empty, not a video, sound only, damaged, truncated, beyond a
            limit, or shorter than `start`.
    """
    for name, value, least in (("start", start, 0), ("frames", frames, 1), ("stride", stride, 1)):
        if value is not None and value < least:
            raise UserError(f"{name} must be at least {least}, not {value}.")
    if frame_rate <= 0:
        raise UserError(f"frame_rate must be positive, not {frame_rate}.")
    local = existing_path(path)
    if not local.is_dir():
        regular_file(path, limits)
    source = open_pictures(path, local, limits, Fraction(frame_rate)) or MovieSource(path, local, limits, threads)
    try:
        return VideoReader(path, source, limits, start, frames, stride)
    except BaseException:
        source.close()
        raise


class VideoReader:
    """An open video: a context manager, and an iterator over the chosen frames that can be run once.

    It holds a few frames at a time, however long the video is. Made by `open_video`.
    """

    def __init__(
        self,
        path: AnyPath,
        source: MovieSource | PictureSource | AnimationSource,
        limits: Limits,
        start: int,
        frames: int | None,
        stride: int,
    ) -> None:
        self._path, self._source, self._limits = path, source, limits
        self._start, self._frames, self._stride = start, frames, stride
        if self.expected_frames is not None and self.expected_frames > limits.max_frames:
            raise self._too_many(f"about {self.expected_frames}")
        self._chosen = self._choose()

    @property
    def path(self) -> AnyPath:
        """What was opened."""
        return self._path

    @property
    def info(self) -> VideoInfo:
        """Of the whole video."""
        return self._source.info

    @property
    def expected_frames(self) -> int | None:
        """How many frames will come, by the header: an estimate for progress bars."""
        if self.info.frame_count is None:
            return None
        picked = max(0, -(-(self.info.frame_count - self._start) // self._stride))
        return picked if self._frames is None else min(picked, self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._chosen)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._chosen.close()
        self._source.close()

    def _choose(self) -> Iterator[Frame]:
        given = seen = 0
        for index, (frame, time) in enumerate(self._source):
            seen = index + 1
            if index < self._start or (index - self._start) % self._stride:
                continue
            if given == self._limits.max_frames:
                raise self._too_many("more")
            yield Frame(rgb=self._source.pixels(frame), time=time)
            given += 1
            if given == self._frames:
                return
        if not given:
            raise MediaError(f"{shown(self._path)}: has only {seen} frames; choose a --start below {seen}.")

    def _too_many(self, count: str) -> MediaError:
        return MediaError(
            f"{shown(self._path)}: {count} frames where {self._limits.max_frames} are allowed;"
            " choose some with --start, --frames, --stride or raise --max-frames."
        )
