"""The sound track: carried from the source to the output, cut to the frames that were written."""

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer

from gen1_jax.media.container import open_container, origin
from gen1_jax.media.errors import AnyPath, MediaError, blaming, shown
from gen1_jax.media.files import existing_path
from gen1_jax.media.pictures import is_picture

# A decoder needs a moment of sound before the first one heard (80 ms for Opus, RFC 7845 section 4.6), which
# mp4 and mov hide behind an edit list; other containers would play it.
_PREROLL = Fraction(8, 100)
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


class SoundTrack:
    """Carries a file's first sound track into `output`: packets as they are, or re-encoded if they do not fit.

    Times are those of `Frame.time`: seconds since the source's pictures start (its sound, if it has none).
    Cuts fall between packets, some 20 ms apart.

    Args:
        path: where the sound comes from; a picture or a folder has none.
        output: a container whose header is not written yet.
        copied: codecs that `output` takes as they are.
        encoder: what to encode any other with.
        edit_list: whether `output` can hide what lies before time 0.

    Raises:
        MediaError: the file cannot be read.
    """

    def __init__(
        self, path: AnyPath, output: OutputContainer, copied: frozenset[str], encoder: str, edit_list: bool
    ) -> None:
        self._path, self._output, self._edit_list = path, output, edit_list
        self._track: _Copied | _Encoded | None = None
        local = existing_path(path)
        if local.is_dir() or is_picture(path, local):
            return
        self._container = open_container(path, local)
        try:
            with blaming(path, "its sound cannot be carried over"):
                self._open(copied, encoder)
        except BaseException:
            self._container.close()
            raise

    def _open(self, copied: frozenset[str], encoder: str) -> None:
        if not self._container.streams.audio:
            self._container.close()
            return
        stream = self._container.streams.audio[0]
        if stream.codec_context is None:
            raise MediaError(f"{shown(self._path)}: no decoder for its sound; convert that to AAC.")
        name = stream.codec_context.codec.canonical_name
        self._track = (_Copied if name in copied else _Encoded)(stream, self._output, encoder)
        self._items = self._track.items(self._container.demux(stream))
        self._next = next(self._items, None)
        self._origin = origin(self._container)

    def carry(self, start: Fraction, until: Fraction) -> None:
        """Writes the sound from where the last call stopped up to `until`; `start` becomes time 0."""
        if self._track is None:
            return
        while self._next is not None and self._time(self._next) < until:
            packets = []
            with blaming(self._path, "its sound cannot be carried over"):
                if self._wanted(self._next, start):
                    shift = round((start + self._origin) / self._next.time_base)
                    packets = self._track.convert(self._next, shift)
                self._next = next(self._items, None)
            try:
                self._output.mux(packets)
            except (av.InvalidDataError, av.ArgumentError) as error:  # any other is the output's own fault
                raise MediaError(f"{shown(self._path)}: its sound does not fit; convert that to AAC.") from error

    def finish(self) -> None:
        """Writes what the encoder still holds."""
        if self._track is not None:
            self._output.mux(self._track.flush())

    def close(self) -> None:
        """Lets go of the source."""
        if self._track is not None:
            self._container.close()

    def _time(self, item: av.Packet | av.AudioFrame) -> Fraction:
        return item.pts * item.time_base - self._origin

    def _wanted(self, item: av.Packet | av.AudioFrame, start: Fraction) -> bool:
        if not self._edit_list:
            return self._time(item) >= start
        return self._time(item) + (item.duration or 0) * item.time_base > start - self._track.preroll


class _Copied:
    """Packets as they are."""

    preroll = _PREROLL

    def __init__(self, stream: AudioStream, output: OutputContainer, encoder: str) -> None:
        self._stream = output.add_stream_from_template(stream)
        self._last: int | None = None

    def items(self, packets: Iterable[av.Packet]) -> Iterator[av.Packet]:
        """Those with a place in time, in order: muxers refuse a clock that turns back."""
        for packet in packets:
            if packet.pts is None or packet.dts is None or (self._last is not None and packet.dts <= self._last):
                continue
            self._last = packet.dts
            yield packet

    def convert(self, packet: av.Packet, shift: int) -> list[av.Packet]:
        """The packet, `shift` ticks earlier, for the output's track."""
        packet.pts -= shift
        packet.dts -= shift
        packet.stream = self._stream
        return [packet]

    def flush(self) -> list[av.Packet]:
        """Nothing is held back."""
        return []


class _Encoded:
    """Decoded, mixed down to two channels at most, and encoded again."""

    preroll = Fraction(0)

    def __init__(self, stream: AudioStream, output: OutputContainer, encoder: str) -> None:
        channels = min(stream.channels, 2)
        rate = stream.rate if encoder == "aac" and stream.rate in _AAC_RATES else 48000
        self._stream = output.add_stream(encoder, rate=rate, layout="mono" if channels == 1 else "stereo")
        self._stream.codec_context.bit_rate = 96_000 * channels

    def items(self, packets: Iterable[av.Packet]) -> Iterator[av.AudioFrame]:
        """The decoded frames; a packet that cannot be decoded is a short silence, not a reason to stop."""
        for packet in packets:
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                continue
            yield from (frame for frame in frames if frame.pts is not None)

    def convert(self, frame: av.AudioFrame, shift: int) -> list[av.Packet]:
        """The packets that are ready after this frame, `shift` ticks earlier."""
        frame.pts -= shift
        return self._stream.encode(frame)

    def flush(self) -> list[av.Packet]:
        """The packets still held by the encoder."""
        return self._stream.encode(None)
