"""The frames of a file that FFmpeg decodes, and the proof that they are all of them."""

import re
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer

from gen1_jax.media.container import Content, check_complete, decodable_stream, open_container, truncated
from gen1_jax.media.errors import AnyPath, Limits, MediaError, blaming, check_size, shown
from gen1_jax.media.frames import RgbDecoder, pixel_aspect
from gen1_jax.media.info import VideoInfo
from gen1_jax.media.metadata import carried

_STATED_DURATION = ("flv", "asf")  # the only promise in the header of these containers


class MovieSource:
    """An open video file; iterating it decodes it once, front to back, a few frames ahead at most.

    Args:
        path: the file, as the user named it.
        local: the same, checked.
        limits: refuses larger frames.
        threads: for decoding; 0 for as many as FFmpeg sees fit.

    Raises:
        MediaError: not a video, no pictures in it, damaged, cut off, too large.
    """

    def __init__(self, path: AnyPath, local: Content, limits: Limits, threads: int) -> None:
        self._path, self._local, self._limits = path, local, limits
        self._container = open_container(path, local)
        try:
            self._start(threads)
        except BaseException:
            self.close()
            raise

    def _start(self, threads: int) -> None:
        self._stream, self._decoder = decodable_stream(self._path, self._container, self._limits, threads)
        self._packets = self._count = 0  # read, and frames decoded from them
        self._end = Fraction(0)  # of the latest packet of any stream, on the file's clock
        self._decoded = self._decode()
        self._first = next(self._decoded, None)
        if self._first is None:
            raise MediaError(f"{shown(self._path)}: no frame in it can be decoded; convert it to H.264.")
        self._rgb = RgbDecoder(self._first)
        self._origin = (self._first.pts or 0) * self._stream.time_base  # our time 0, on the file's clock
        self._stated_end = _stated_end(self._container, self._stream, self._origin)
        self.info = self._describe()

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._stream.codec_context.codec.canonical_name

    def close(self) -> None:
        """Lets go of the file."""
        self._container.close()

    def __iter__(self) -> Iterator[tuple[av.VideoFrame, Fraction, Fraction | None]]:
        """Yields (frame, time, duration if it is the last); only `pixels` makes arrays, so skipped frames cost less."""
        step = 1 / self.info.frame_rate
        frame, last = self._first, -step
        self._first = None
        while frame is not None:
            time = last + step if frame.pts is None else frame.pts * self._stream.time_base - self._origin
            # Broken files repeat or turn back their clock, or start before zero.
            last = time if time > last and time >= 0 else last + step
            yield frame, last, self._duration(frame, last)
            frame = next(self._decoded, None)

    def _duration(self, frame: av.VideoFrame, time: Fraction) -> Fraction | None:
        """How long a frame is shown that no other follows, as the file states it."""
        if self._stated_end is not None and self._stated_end > time:
            return self._stated_end - time
        return frame.duration * self._stream.time_base or None

    def pixels(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame as upright RGB, uint8 (H, W, 3)."""
        check_size(self._path, frame.width, frame.height, self._limits)
        with blaming(self._path, "a frame cannot be converted"):
            return self._rgb.decode(frame)

    def _decode(self) -> Iterator[av.VideoFrame]:
        """All frames, checked: damage or a missing end raises instead of giving fewer or invented pictures."""
        with blaming(self._path, "damaged; repair or re-encode it"):
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base:
                    self._end = max(self._end, (packet.pts + (packet.duration or 0)) * packet.time_base)
                if packet.stream.index != self._stream.index:
                    continue
                self._packets += packet.size > 0  # the last ones are empty and flush the decoder
                for frame in self._decoder.decode(packet):
                    if frame.is_corrupt:
                        raise MediaError(
                            f"{shown(self._path)}: damaged or truncated near frame {self._count};"
                            " re-encode it, or cut it off before that."
                        )
                    self._count += 1
                    yield frame
            self._check_end()

    def _check_end(self) -> None:
        """At the end of the file: were these all the frames the header promised?"""
        kind, stated = self._container.format.name, Fraction(self._container.duration or 0, av.time_base)
        check_complete(self._path, self._local, self._container)  # a fragmented mp4 has its whole index only now
        if kind.startswith("mov,"):
            promised = len(self._stream.index_entries)  # an edit list leaves some of stream.frames out
        else:
            promised = 0 if kind == "avi" else self._stream.frames  # avi counts frames that were never stored
        slack = max(2 / frame_rate_of(self._stream), stated / 50)
        if self._packets < promised or (kind in _STATED_DURATION and self._end < stated - slack):
            raise truncated(self._path)

    def _describe(self) -> VideoInfo:
        stream, container = self._stream, self._container
        width, height = self._rgb.size
        rate = frame_rate_of(stream)
        duration = None
        if stream.duration and stream.time_base:
            duration = stream.duration * stream.time_base
        elif container.duration:
            duration = Fraction(container.duration, av.time_base)
        count = stream.frames or (round(duration * rate) if duration else 0)
        return VideoInfo(
            width=width,
            height=height,
            frame_rate=rate,
            frame_count=count if count > 0 else None,
            duration=duration,
            has_audio=bool(container.streams.audio),
            sample_aspect_ratio=pixel_aspect(stream.sample_aspect_ratio, self._rgb.turned),
            is_image=False,
            metadata=carried(container.metadata),
            track_metadata=carried(stream.metadata, of_track=True),
        )


def frame_rate_of(stream: av.VideoStream) -> Fraction:
    """The average rate; a header without a believable one counts as 25."""
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    return next((rate for rate in rates if rate and 0 < rate <= 1000), Fraction(25))


def _stated_end(container: InputContainer, stream: av.VideoStream, start: Fraction) -> Fraction | None:
    """When the last frame ceases to be shown, seconds after the first began; None where its packet knows better.

    The edit list of mp4 and mov may end within the last packet. Packets of Matroska state no duration of their own,
    but FFmpeg tags the end of each track, mkvmerge its length. `start` is that of the first frame on the file's clock.
    """
    if container.format.name.startswith("mov,") and stream.duration:
        return ((stream.start_time or 0) + stream.duration) * stream.time_base - start
    stated = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if stated is None and container.format.name.startswith("matroska,") and len(container.streams) == 1:
        return Fraction(container.duration, av.time_base) - start if container.duration else None
    if stated is None:
        return None
    hours, minutes, seconds = map(Fraction, stated.groups())
    length = (60 * hours + minutes) * 60 + seconds
    return length if "_STATISTICS_TAGS" in stream.metadata else length - start
