"""The sound track: carried from the source to the output, where it was against the pictures."""

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

from gen1_jax.media.container import open_container, origin
from gen1_jax.media.errors import AnyPath, MediaError, blaming, shown
from gen1_jax.media.files import existing_path
from gen1_jax.media.metadata import carried
from gen1_jax.media.pictures import is_picture

# A decoder needs a moment of sound before the first one heard (80 ms for Opus, RFC 7845 section 4.6), which
# mp4 and mov hide behind an edit list; other containers would play it.
_PREROLL = Fraction(8, 100)
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_LONGEST_GAP = 600
"""Sound that is farther than this from the pictures and from other sound has a broken clock, seconds."""


class SoundTrack:
    """Carries a file's default sound track into `output`: packets as they are, or encoded again if they do not fit.

    Times are those of `Frame.time`: seconds since the source's pictures start (its sound, if it has none).
    Cuts fall between packets, some 20 ms apart.

    Args:
        path: where the sound comes from; a picture or a folder has none.
        output: a container whose header is not written yet.
        copied: codecs that `output` takes as they are.
        encoder: what to encode any other with.
        edit_list: whether `output` can hide what lies before time 0.
        part: (since, until), None on either side for all there is; None for what the pictures last.

    Raises:
        MediaError: the file cannot be read.
    """

    def __init__(
        self,
        path: AnyPath,
        output: OutputContainer,
        copied: frozenset[str],
        encoder: str,
        edit_list: bool,
        part: tuple[Fraction | None, Fraction | None] | None,
    ) -> None:
        self._path, self._output, self._edit_list, self._part = path, output, edit_list, part
        self._track: _Copied | _Encoded | None = None
        self._since: Fraction | None = None
        self._zero = Fraction(0)  # what becomes time 0 of the output, seconds
        self._lead = Fraction(0)  # how much of the next packet is not heard, seconds; 0 but for the first one
        local = existing_path(path)
        if local.is_dir() or is_picture(path, local):
            return
        self._container = open_container(path, local)
        try:
            with blaming(path, "its sound cannot be carried over"):
                self._open(local, copied, encoder)
        except BaseException:
            self._container.close()
            raise

    def _open(self, local: Path, copied: frozenset[str], encoder: str) -> None:
        if not self._container.streams.audio:
            self._container.close()
            return
        stream = default_track(self._container.streams.audio)
        if stream.codec_context is None:
            raise MediaError(f"{shown(self._path)}: no decoder for its sound; convert that to AAC.")
        name = stream.codec_context.codec.canonical_name
        if name in copied and not name.startswith("pcm_"):
            self._track = _Copied(stream, self._output)
        else:  # samples have no times of their own, so that holes between them have to be filled
            self._track = _Encoded(stream, self._output, name if name in copied else encoder)
        self._items = self._track.items(self._container.demux(stream))
        self._next = next(self._items, None)
        self._origin = origin(self._path, local)
        if self._next is not None:
            self._leave_out_hidden()

    def _leave_out_hidden(self) -> None:
        """Passes over what an edit list of the source hides at its start, where the output cannot hide it.

        The packet in which the sound begins is kept whole, for half of a packet cannot be copied: then a little of
        what was hidden is heard, and nothing that was heard is lost.
        """
        self._lead = hidden = _skipped(self._next)
        if self._edit_list:
            return
        self._lead = min(hidden, self._track.padding)
        needed = self._time(self._next) + hidden - self._lead
        while self._next is not None and hidden > self._lead and self._end(self._next) <= needed:
            self._next = next(self._items, None)

    def begin(self, start: Fraction, time_base: Fraction) -> int:
        """To be called once, before `carry`.

        Args:
            start: of the first picture, seconds.
            time_base: of the pictures, seconds a tick.

        Returns:
            Ticks from the start of the sound to the first picture, 0 where the sound does not begin before it.
        """
        self._since = start if self._part is None else self._part[0]
        ticks = 0
        if self._track is not None and self._next is not None and self._since is None:
            early = start - (self._time(self._next) + self._lead)
            if early > _LONGEST_GAP:
                self._since = start
            elif early > self._next.time_base:  # less is rounding
                ticks = -(-early // time_base)
        self._zero = start - ticks * time_base
        return ticks

    def carry(self, until: Fraction) -> None:
        """Writes the sound from where the last call stopped up to `until`."""
        if self._track is None:
            return
        limit = until if self._part is None or self._part[1] is None else min(until, self._part[1])
        while self._next is not None and self._time(self._next) < limit:
            self._write_next()

    def finish(self, end: Fraction) -> None:
        """Writes the rest, and what the encoder still holds; `end` is that of the pictures, seconds."""
        if self._track is None:
            return
        until = end if self._part is None else self._part[1]
        if until is not None:
            self.carry(until)
        while until is None and self._next is not None and self._time(self._next) < end + _LONGEST_GAP:
            end = max(end, self._time(self._next))
            self._write_next()
        self._mux(self._track.flush())

    def _write_next(self) -> None:
        packets = []
        with blaming(self._path, "its sound cannot be carried over"):
            if self._wanted(self._next):
                packets = self._track.convert(self._next, self._zero + self._origin)
            self._next = next(self._items, None)
            self._lead = Fraction(0)
        self._mux(packets)

    def close(self) -> None:
        """Lets go of the source."""
        if self._track is not None:
            self._container.close()

    def _mux(self, packets: list[av.Packet]) -> None:
        try:
            self._output.mux(packets)
        except (av.InvalidDataError, av.ArgumentError) as error:  # any other is the output's own fault
            raise MediaError(f"{shown(self._path)}: its sound does not fit; convert that to AAC.") from error

    def _time(self, item: av.Packet | av.AudioFrame) -> Fraction:
        return item.pts * item.time_base - self._origin

    def _end(self, item: av.Packet | av.AudioFrame) -> Fraction:
        return self._time(item) + (item.duration or 0) * item.time_base

    def _wanted(self, item: av.Packet | av.AudioFrame) -> bool:
        if not self._edit_list:
            return self._time(item) + self._lead >= max(self._zero, self._since or self._zero) - item.time_base
        return self._since is None or self._end(item) > self._since - self._track.preroll


class _Copied:
    """Packets as they are."""

    preroll = _PREROLL

    def __init__(self, stream: AudioStream, output: OutputContainer) -> None:
        self._stream = output.add_stream_from_template(stream)
        self.padding = _padding(stream)
        self._stream.metadata.update(carried(stream.metadata, of_track=True))
        self._last: int | None = None

    def items(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """Those with data and a place in time, in order: muxers refuse a clock that turns back."""
        for packet in packets:
            if not packet.size or packet.pts is None or packet.dts is None:
                continue
            if self._last is not None and packet.dts <= self._last:
                continue
            self._last = packet.dts
            yield packet

    def convert(self, packet: av.Packet, zero: Fraction) -> list[av.Packet]:
        """The packet for the output's track; `zero` on the file's clock, seconds, becomes 0."""
        shift = round(zero / packet.time_base)
        packet.pts -= shift
        packet.dts -= shift
        packet.duration = packet.duration or self._length(packet)
        packet.stream = self._stream
        return [packet]

    def _length(self, packet: av.Packet) -> int:
        """Ticks of a packet of a container that states none: the last one would be lost without."""
        try:
            seconds = sum(Fraction(frame.samples, frame.sample_rate) for frame in packet.decode())
        except av.FFmpegError:
            seconds = Fraction(0)
        return round(seconds / packet.time_base)

    def flush(self) -> list[av.Packet]:
        """Nothing is held back."""
        return []


class _Encoded:
    """Decoded and encoded again: mono, stereo, 5.1 and 7.1 as they are, any other number of channels as stereo."""

    preroll = Fraction(0)
    padding = Fraction(0)  # decoders have left it out

    def __init__(self, stream: AudioStream, output: OutputContainer, encoder: str) -> None:
        channels = stream.channels if stream.channels in _LAYOUTS else 2
        rate = stream.rate if encoder != "libopus" and (encoder != "aac" or stream.rate in _AAC_RATES) else 48000
        self._stream = output.add_stream(encoder, rate=rate, layout=_LAYOUTS[channels])
        self._stream.metadata.update(carried(stream.metadata, of_track=True))
        self._stream.codec_context.bit_rate = 96_000 * channels
        self._line = _TimeLine()

    def items(self, packets: Iterable[av.Packet]) -> Iterator[av.AudioFrame]:
        """The decoded frames; a packet that cannot be decoded is a short silence, not a reason to stop."""
        for packet in packets:
            try:
                frames = packet.decode()
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is not None:
                    frame.duration = round(Fraction(frame.samples, frame.sample_rate) / frame.time_base)
                    yield frame

    def convert(self, frame: av.AudioFrame, zero: Fraction) -> list[av.Packet]:
        """The packets that are ready after this frame; `zero` on the file's clock, seconds, becomes 0."""
        at = frame.pts * frame.time_base - zero
        return [packet for piece in self._line.place(frame, at) for packet in self._stream.encode(piece)]

    def flush(self) -> list[av.Packet]:
        """The packets still held by the encoder."""
        return self._stream.encode(None)


class _TimeLine:
    """Puts decoded sound on one line of samples without holes or overlaps, for encoders count samples, not time."""

    _SLACK = Fraction(2, 1000)  # containers round times to 1/1000 s
    _PIECE = 1 << 16  # samples of silence in one frame

    def __init__(self) -> None:
        self._next: int | None = None  # index of the sample that comes next

    def place(self, frame: av.AudioFrame, time: Fraction) -> Iterator[av.AudioFrame]:
        """Silence where nothing was up to `time`, seconds, and then of the frame what had no sound yet."""
        rate = frame.sample_rate
        at = round(time * rate)
        if self._next is None:
            self._next = at
        missing = at - self._next
        if abs(missing) <= self._SLACK * rate:
            missing = 0
        samples = frame.to_ndarray() if missing else None
        while missing > 0:
            count = min(missing, self._PIECE)
            yield self._frame(np.full_like(samples[:, :1], _silence(samples)).repeat(count, axis=1), frame, count)
            missing -= count
        if missing == 0:
            yield self._placed(frame)
        elif -missing < frame.samples:
            width = samples.shape[1] // frame.samples  # channels, where they are interleaved
            yield self._frame(samples[:, -missing * width :], frame, frame.samples + missing)

    def _frame(self, samples: np.ndarray, like: av.AudioFrame, count: int) -> av.AudioFrame:
        channels = 1 if like.format.is_planar else like.layout.nb_channels
        samples = samples if samples.shape[1] == count * channels else samples.repeat(channels, axis=1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), like.format.name, like.layout)
        frame.sample_rate = like.sample_rate
        return self._placed(frame)

    def _placed(self, frame: av.AudioFrame) -> av.AudioFrame:
        frame.pts, frame.time_base = self._next, Fraction(1, frame.sample_rate)
        self._next += frame.samples
        return frame


def _silence(samples: np.ndarray) -> int:
    return 128 if samples.dtype == np.uint8 else 0


def default_track(streams: tuple[AudioStream, ...]) -> AudioStream:
    """The track that players choose: the default one, or else the first; one without a decoder only if all are."""
    known = [stream for stream in streams if stream.codec_context is not None] or list(streams)
    return next((s for s in known if s.disposition & av.stream.Disposition.default), known[0])


def _skipped(item: av.Packet | av.AudioFrame) -> Fraction:
    """Seconds at the start of a packet that decoders leave out: what its encoder needed to settle."""
    if not isinstance(item, av.Packet) or not item.has_sidedata("skip_samples"):
        return Fraction(0)
    samples = int.from_bytes(bytes(item.get_sidedata("skip_samples"))[:4], "little")
    return Fraction(samples, item.stream.codec_context.sample_rate)


def _padding(stream: AudioStream) -> float | Fraction:
    """The most that the header of a copy lets decoders leave out at the start, seconds.

    It is all that the source leaves out, unless an edit list says so: of that a header carries what Opus needs to
    settle (RFC 7845 section 5.1).
    """
    if not stream.container.format.name.startswith("mov,"):
        return math.inf
    head = bytes(stream.codec_context.extradata or b"")
    return Fraction(int.from_bytes(head[10:12], "little"), 48_000) if head.startswith(b"OpusHead") else Fraction(0)
