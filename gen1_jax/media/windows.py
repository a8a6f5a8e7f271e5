"""Windows of a video: frames from any place in it, as `open_video` shows them, without decoding it from its start.

path, bytes ──► FrameIndex ──key frame before the window──► seek ──► decode ──time of each frame?──► window
                                                                       └── others: again from the first frame,
                                                                           then StaleIndex, and all are counted
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.stream import Discard
from jaxtyping import UInt8

from gen1_jax.media.container import Content, decodable_stream, open_container
from gen1_jax.media.errors import DEFAULT_LIMITS, AnyPath, Limits, MediaError, blaming, check_size, shown
from gen1_jax.media.files import regular_file
from gen1_jax.media.frame_index import FrameIndex, read_index
from gen1_jax.media.frames import RgbDecoder, pixel_aspect
from gen1_jax.media.movie import frame_rate_of
from gen1_jax.media.pictures import is_picture

_PLAIN_FRAMES = 250  # of a clip of our own: one group of pictures, so that nothing is gained by an index
# Codecs in which a frame that says that none refers to it is needed by none. (In HEVC higher layers may need it.)
_DISPOSABLE = {"h264", "mpeg2video"}
# Containers in which a seek ends at any packet near a time; decoding then begins at the next key frame.
_WITHOUT_INDEX = {"mpegts", "mpeg"}
_LEAD = 16  # frames that such a seek goes further back
_DAMAGED = "damaged; repair or re-encode it"


class StaleIndex(MediaError):
    """The frames are others than the index says; `WindowReader.recount`, and choose the window anew."""


def open_windows(
    video: AnyPath | bytes, *, limits: Limits = DEFAULT_LIMITS, folder: Path | None = None, frames: int | None = None
) -> "WindowReader":
    """Opens a video for random access.

    Args:
        video: a file, or the bytes of one.
        limits: refuses larger files and frames; how many frames there are does not matter.
        folder: where indices of frames are kept, see `read_index`; None for nowhere.
        frames: of a clip that this package encoded, how many there are; nothing has to be looked up then.

    Raises:
        MediaError: no video that can be decoded, truncated, or beyond a limit.
    """
    if isinstance(video, bytes):
        return WindowReader("it", video, limits, None, frames)
    local = regular_file(video, limits)
    try:
        return WindowReader(video, local, limits, folder, frames)
    except MediaError:
        if is_picture(video, local):
            raise MediaError(f"{shown(video)}: is a picture, not a video; give it the suffix of one.") from None
        raise


class WindowReader:
    """An open video, and a context manager. One thread decodes, for a loader decodes many videos at once.

    Args:
        path: the file, for messages.
        local: the same, checked, or its bytes.
        limits: see `open_windows`, and so the rest.
        folder: see there.
        frames: see there.

    Attributes:
        index: of its frames.
    """

    index: FrameIndex

    def __init__(self, path: AnyPath, local: Content, limits: Limits, folder: Path | None, frames: int | None) -> None:
        self._path, self._local, self._limits, self._folder = path, local, limits, folder
        self._plain, self._counted = frames is not None and frames <= _PLAIN_FRAMES, False
        if not self._plain:
            self.index = read_index(path, local, limits, folder)
        self._open()
        if self._plain:
            self.index = self._plain_index(frames)

    def _open(self) -> None:
        self._container = open_container(self._path, self._local, probe=not self._plain)
        try:
            self._stream, self._decoder = decodable_stream(self._path, self._container, self._limits, threads=1)
        except BaseException:
            self._container.close()
            raise
        for other in self._container.streams:
            if other.index != self._stream.index:
                other.discard = Discard.all
        self._at_start, self._rgb = True, None

    def _plain_index(self, frames: int) -> FrameIndex:
        stream = self._stream
        times = np.arange(frames)
        aspect = pixel_aspect(stream.sample_aspect_ratio, turned=False)
        return FrameIndex(stream.width, stream.height, aspect, times, times[:0], clocked=False)

    def __enter__(self) -> "WindowReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()

    @property
    def frames(self) -> int:
        """How many frames can be decoded and are shown."""
        return len(self.index.times)

    @property
    def height(self) -> int:
        """Of an upright frame, in square pixels."""
        return self.index.displayed_size[0]

    @property
    def width(self) -> int:
        """Of an upright frame, in square pixels."""
        return self.index.displayed_size[1]

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second, on average."""
        return frame_rate_of(self._stream)

    def whole(self) -> UInt8[np.ndarray, "t h w 3"]:
        """All frames; for short videos.

        Raises:
            MediaError: it is damaged, or its frames are beyond a limit.
        """
        try:
            return self.window(0, self.frames, 1)
        except StaleIndex:
            self.recount()
            return self.window(0, self.frames, 1)

    def recount(self) -> None:
        """Decodes the whole video to see which frames it has, and begins anew.

        Raises:
            MediaError: it is damaged.
        """
        self.close()
        self._plain, self._counted = False, True
        self.index = read_index(self._path, self._local, self._limits, self._folder, count=True)
        self._open()

    def window(
        self, start: int, frames: int, stride: int, size: tuple[int, int] | None = None, mirrored: bool = False
    ) -> UInt8[np.ndarray, "t h w 3"]:
        """`frames` frames from frame `start` on, `stride` apart, upright, scaled to `size`, perhaps mirrored.

        Args:
            start: number of the first frame, among `self.frames`.
            frames: how many, at least 1.
            stride: from one to the next.
            size: height and width; None for those of the video.
            mirrored: left and right change places.

        Raises:
            MediaError: the video ends before the window does, is damaged in it, or its frames are beyond a limit.
            StaleIndex: the index is wrong.
        """
        there = len(range(start, self.frames, stride)[:frames])
        if there < frames:
            raise MediaError(f"it ends after {there} of {frames} frames from frame {start} on, {stride} apart")
        size = size or (self.height, self.width)
        check_size(self._path, size[1], size[0], self._limits)
        pictures = np.empty((frames, *size, 3), np.uint8)
        times = self.index.times[start::stride][:frames].tolist()
        for key in dict.fromkeys((self.index.key_before(start), 0)):
            if self._fill(pictures, times, key, mirrored):
                return pictures
        if self._counted:
            raise MediaError(f"{shown(self._path)}: its frames are others at each reading; convert it to H.264.")
        raise StaleIndex(f"{shown(self._path)}: its frames are others than expected; try again.")

    def _fill(self, pictures: UInt8[np.ndarray, "t h w 3"], times: list[int], key: int, mirrored: bool) -> bool:
        """Decodes from frame `key` on; whether frames of all these times came."""
        begin, found, decoded = int(self.index.times[key]), 0, self._decode(key, set(times))
        with blaming(self._path, _DAMAGED):
            for number in range(len(self.index.times) + 1):
                try:
                    frame = next(decoded, None)
                except av.FFmpegError:
                    if not key:
                        raise
                    return False
                if frame is None:
                    return False
                time = frame.pts if self.index.clocked else number
                if time is None or time > times[found]:
                    return False
                if frame.is_corrupt and time >= begin:
                    raise MediaError(f"{shown(self._path)}: {_DAMAGED} (near frame {key + number}).")
                if time == times[found]:
                    self._copy(frame, pictures[found], mirrored)
                    found += 1
                    if found == len(times):
                        return True
        return False

    def _decode(self, key: int, shows: set[int]) -> Iterator[av.VideoFrame]:
        """Frames from frame `key` on, of those that others do not need only those that are shown at these times."""
        if key:
            early = max(0, key - _LEAD) if self._container.format.name in _WITHOUT_INDEX else key
            self._container.seek(int(self.index.times[early]), stream=self._stream)
            if self._decoder.is_open:
                self._decoder.flush_buffers()
        elif not self._at_start:
            self.close()
            self._open()
        self._at_start = False
        selective = self.index.clocked and self._decoder.codec.canonical_name in _DISPOSABLE
        for packet in self._container.demux(self._stream):
            if selective:
                self._decoder.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in shows else "NONREF"
            yield from self._decoder.decode(packet)

    def _copy(self, frame: av.VideoFrame, target: UInt8[np.ndarray, "h w 3"], mirrored: bool) -> None:
        check_size(self._path, frame.width, frame.height, self._limits)
        if self._rgb is None:
            self._rgb = RgbDecoder(frame, (self.index.width, self.index.height))
            if self._plain and self._rgb.oriented:  # no clip of ours
                raise StaleIndex(f"{shown(self._path)}: is turned, which was not expected; try again.")
        source = self._rgb.view(frame, target.shape[:2], exact=not self._plain)
        if not mirrored:
            target[:] = source
            return
        for channel in range(3):  # three times as fast as reversing pixels of three bytes
            target[..., channel] = source[:, ::-1, channel]
