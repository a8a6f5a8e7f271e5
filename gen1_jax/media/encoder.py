"""One output file under way: frames in, packets of pictures and sound out."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from gen1_jax.media.audio import SoundTrack
from gen1_jax.media.errors import AnyPath
from gen1_jax.media.frames import encode_frame
from gen1_jax.media.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says before its first frame.

    Args:
        width: of the frames, pixels.
        height: of the frames, pixels.
        frame_rate: frames a second.
        sample_aspect_ratio: width over height of a pixel; None for square.
        metadata: title, comment and such of the file.
        track_metadata: language and title of the pictures.
    """

    width: int
    height: int
    frame_rate: Fraction
    sample_aspect_ratio: Fraction | None
    metadata: Mapping[str, str]
    track_metadata: Mapping[str, str]


class MovieEncoder:
    """Encodes and muxes to `path`; what the encoder or the container refuses, it refuses before any work.

    Args:
        path: the file to write.
        recipe: the kind of file.
        header: what it says of itself.
        audio_from: a file whose sound track is carried over (`SoundTrack`); None for silence.
        sound: the part of it, seconds (since, until).
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        header: Header,
        audio_from: AnyPath | None,
        sound: tuple[Fraction | None, Fraction | None] | None,
    ) -> None:
        self._recipe = recipe
        self._time_base = Fraction(1, recipe.ticks or _ticks(header.frame_rate))
        width, height = header.width, header.height
        self._pad = (height % 2, width % 2) if recipe.even else (0, 0)
        self._ticks: int | None = None  # when the latest frame is shown
        self._first_ticks = 0
        self._start = Fraction(0)
        self._frame: av.VideoFrame | None = None  # the latest
        self._held: av.Packet | None = None  # until it is known how long it is shown
        self._sound: SoundTrack | None = None
        self._palette: _Palette | None = None
        options = dict(recipe.container_options)
        if recipe.edit_list:  # whose clock tells how much later one track starts than the other
            options["movie_timescale"] = str(self._time_base.denominator)
        self._container = av.open(str(path), "w", format=recipe.container, container_options=options)
        try:
            self._container.metadata.update(header.metadata)
            self._open_stream(header)
            if audio_from is not None and recipe.sound is not None:
                self._sound = SoundTrack(
                    audio_from, self._container, recipe.sound, recipe.sound_encoder, recipe.edit_list, sound
                )
            self._container.start_encoding()
        except BaseException:
            self.abandon()
            raise

    def _open_stream(self, header: Header) -> None:
        options = dict(self._recipe.options)
        stream = self._container.add_stream(self._recipe.codec, rate=header.frame_rate, options=options)
        stream.width, stream.height = header.width + self._pad[1], header.height + self._pad[0]
        stream.metadata.update(header.track_metadata)
        stream.pix_fmt = self._recipe.pixel_format
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        if header.sample_aspect_ratio:
            context.sample_aspect_ratio = header.sample_aspect_ratio
        if self._recipe.pixel_format == "pal8":
            self._palette = _Palette(stream.width, stream.height, self._time_base)
        else:
            context.color_range = ColorRange.MPEG
            context.colorspace = Colorspace.ITU709
            context.color_primaries = ColorPrimaries.BT709
            context.color_trc = ColorTrc.BT709
        self._stream = stream

    def add(self, rgb: np.ndarray, time: Fraction) -> bool:
        """Takes the frame, uint8 (H, W, 3), that is shown from `time`, seconds.

        The first one is time 0, or later by as much as the sound begins before it. False: the frame is left out, for
        this kind of file shows none as short as the one before it would be.
        """
        if self._ticks is None:
            self._start = time
            if self._sound is not None:
                self._first_ticks = self._sound.begin(time, self._time_base)
            ticks = self._first_ticks
        else:
            ticks, least = self._tick_of(time), self._ticks + self._recipe.least_ticks
            if ticks < least and self._recipe.least_ticks > 1:
                return False
            ticks = max(ticks, least)
            self._hold_until(ticks)
        rows, columns = self._pad
        if rows or columns:
            rgb = np.pad(rgb, ((0, rows), (0, columns), (0, 0)), mode="edge")
        frame = encode_frame(rgb, "rgb24" if self._palette else self._recipe.pixel_format)
        self._frame = self._palette.reduce(frame) if self._palette else frame
        self._show(ticks)
        if self._sound is not None:
            self._sound.carry(time)
        return True

    def finish(self, end: Fraction) -> None:
        """Writes the rest and closes the file; the last frame is shown up to `end`, seconds."""
        ticks = max(self._tick_of(end), self._ticks + self._recipe.least_ticks)
        self._hold_until(ticks)
        self._mux(self._stream.encode(None))
        self._release(ticks)
        if self._sound is not None:
            self._sound.finish(end)
            self._sound.close()
        self._container.close()

    def _tick_of(self, time: Fraction) -> int:
        return self._first_ticks + round((time - self._start) / self._time_base)

    def _show(self, ticks: int) -> None:
        """The latest frame from then on."""
        self._ticks = ticks
        self._frame.pts, self._frame.time_base = ticks, self._time_base
        self._mux(self._stream.encode(self._frame))

    def _hold_until(self, ticks: int) -> None:
        """Shows the latest frame again where it is held for longer than this kind of file can say."""
        most = self._recipe.most_ticks
        while most is not None and ticks - self._ticks > most:
            self._show(self._ticks + most)

    def _mux(self, packets: Sequence[av.Packet]) -> None:
        """Writes packets, the last one excepted: each is shown until the next, whatever its encoder believes."""
        for packet in packets:
            if self._held is not None:
                self._release(packet.pts)
            self._held = packet

    def _release(self, until: int) -> None:
        """Writes the packet held back, which is shown until then."""
        self._held.duration = until - self._held.pts
        self._container.mux(self._held)

    def abandon(self) -> None:
        """Lets go of all files, finished or not; never raises."""
        if self._sound is not None:
            self._sound.close()
        with suppress(Exception):
            self._container.close()


class _Palette:
    """Reduces frames to 256 colours each by FFmpeg's palette filters, one in, one out; the dither is steady in time."""

    def __init__(self, width: int, height: int, time_base: Fraction) -> None:
        self._graph = graph = Graph()
        self._source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=time_base)
        self._sink = graph.add("buffersink")
        split, generate = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
        self._source.link_to(split)
        split.link_to(generate, 0, 0)
        split.link_to(use, 1, 0)
        generate.link_to(use, 0, 1)
        use.link_to(self._sink)
        graph.configure()

    def reduce(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame in pal8."""
        self._source.push(frame)
        return self._sink.pull()


def _ticks(frame_rate: Fraction) -> int:
    """Ticks a second that place evenly spaced frames exactly, and any others to 1/90000 s."""
    exact = lcm(90_000, frame_rate.numerator)
    return exact if exact <= 1_000_000 else 90_000
