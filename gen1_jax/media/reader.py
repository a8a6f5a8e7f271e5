"""Reading video: a local file or a folder of pictures as a stream of RGB frames with their times.

path ──no URL, device, pipe──► source ──(frame, time, end)──► Part: start, duration, stride … ──► Frame(rgb, time)
                                 │
                                 ├ PictureSource, AnimationSource   what Pillow knows
                                 └ MovieSource                      what FFmpeg knows
"""

from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

from gen1_jax.errors import UserError, counted
from gen1_jax.media.errors import DEFAULT_LIMITS, AnyPath, Limits, MediaError, shown
from gen1_jax.media.files import existing_path, regular_file
from gen1_jax.media.info import Frame, VideoInfo
from gen1_jax.media.movie import MovieSource
from gen1_jax.media.part import Choice, Part, Shown
from gen1_jax.media.pictures import AnimationSource, PictureSource, open_pictures

_PICTURES_A_SECOND = 8


def open_video(
    path: AnyPath,
    *,
    limits: Limits = DEFAULT_LIMITS,
    start: int | Fraction = 0,
    duration: int | Fraction | None = None,
    frames: int | None = None,
    stride: int = 1,
    rate: Fraction | int | None = None,
    frame_rate: Fraction | int | None = None,
    threads: int = 0,
) -> "VideoReader":
    """Opens a video for reading, frame by frame.

    Reads every container and codec that FFmpeg does (mp4, mov, mkv, webm, avi, gif, mpegts, ...), animated WebP and
    PNG, a folder of equally large pictures in natural order, and a single picture. Rotation metadata is applied;
    HDR, 10-bit, grey and interlaced video becomes plain 8-bit RGB (`RgbDecoder`); pictures with a colour profile
    become sRGB; whatever is transparent, video or picture, is laid over black; frames whose size changes on the way
    are scaled to the first one's. Only local files are read, and nothing that they refer to.

    Args:
        path: file or folder.
        limits: refuses larger ones.
        start: index of the first frame wanted (int), or seconds (Fraction): see `Part`.
        duration: frames of the video (int) or seconds (Fraction); None to its end.
        frames: how many at most; None for all.
        stride: every how many-th.
        rate: frames a second: those are left out that are not on the screen at one of its ticks. None for all.
        frame_rate: frames a second of a folder of pictures, which says nothing itself: `rate` or else 8 if None.
        threads: for decoding; 0 for as many as FFmpeg sees fit. Many readers at once want 1.

    Raises:
        UserError: a number out of its range, or both `stride` and `rate`.
        MediaError: here or while reading: missing, empty, not a video, sound only, damaged, truncated, beyond a
            limit, or shorter than `start`.
    """
    part = Part(
        start=start,
        duration=duration,
        frames=frames,
        stride=stride,
        rate=None if rate is None else Fraction(rate),
    )
    frame_rate = frame_rate if frame_rate is not None else part.rate or _PICTURES_A_SECOND
    if frame_rate <= 0:
        raise UserError(f"frame_rate must be positive, not {frame_rate}.")
    local = existing_path(path)
    if not local.is_dir():
        regular_file(path, limits)
    source = open_pictures(path, local, limits, Fraction(frame_rate)) or MovieSource(path, local, limits, threads)
    try:
        return VideoReader(path, source, limits, part)
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
        part: Part,
    ) -> None:
        self._path, self._source, self._limits, self._part = path, source, limits, part
        if self.expected_frames is not None and self.expected_frames > limits.max_frames:
            raise self._too_many(f"about {self.expected_frames}")
        self._choice = Choice(part, _on_screen(source), 1 / source.info.frame_rate)
        self._frames = self._read()

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
        return self._part.expected(self.info.frame_count, self.info.frame_rate)

    @property
    def end(self) -> Fraction:
        """Once all frames are read: when the last of them ceases to be shown, seconds on the clock of `Frame.time`."""
        return self._choice.end

    @property
    def sound(self) -> tuple[Fraction | None, Fraction | None]:
        """Once all frames are read: the part of the sound that belongs to them, for `VideoWriter`."""
        return self._choice.sound

    def times(self) -> list[Fraction]:
        """Runs through all frames that would come, for their times alone: none is turned into an array."""
        return [time for _, time in self._choice]

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._frames.close()
        self._source.close()

    def _read(self) -> Iterator[Frame]:
        given = 0
        for frame, time in self._choice:
            if given == self._limits.max_frames:
                raise self._too_many("more")
            yield Frame(rgb=self._source.pixels(frame), time=time)
            given += 1
        if not given:
            seen, start = self._choice.seen, self._part.start
            if isinstance(start, int):
                raise MediaError(
                    f"{shown(self._path)}: has only {counted(seen, 'frame')}; choose a --start below {seen}."
                )
            raise MediaError(f"{shown(self._path)}: is over before {float(start):g} s; choose an earlier --start.")

    def _too_many(self, count: str) -> MediaError:
        return MediaError(
            f"{shown(self._path)}: {count} frames where {self._limits.max_frames} are allowed;"
            " choose some with --start, --duration, --stride, --fps or raise --max-frames."
        )


def _on_screen(source: MovieSource | PictureSource | AnimationSource) -> Iterator[Shown]:
    """The frames of a source, each shown until the next one; the last for as long as the file says."""
    frames = iter(source)
    current, failure = next(frames, None), None
    while current is not None:
        try:
            following = next(frames, None)
        except MediaError as error:  # first what lies before it
            following, failure = None, error
        frame, time, duration = current
        yield Shown(frame, time, following[1] if following else time + (duration or 1 / source.info.frame_rate))
        if failure is not None:
            raise failure
        current = following
