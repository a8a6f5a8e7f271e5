"""Writing video: RGB frames and their times into a file or folder that appears whole or not at all.

write(rgb, time) ──► MovieEncoder (.mp4 .mov .mkv .webm .gif) ─┐
                 └─► PNG files (NAME/) ────────────────────────┴─► .HEX.part ──sign, close──► NAME
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from gen1_jax.errors import UserError
from gen1_jax.media.encoder import Header, MovieEncoder
from gen1_jax.media.errors import AnyPath, MediaError, blaming, shown
from gen1_jax.media.files import PendingOutput, check_suffix
from gen1_jax.media.images import save
from gen1_jax.media.notes import fitting, noted, without_note
from gen1_jax.media.recipes import RECIPES, VIDEO_SUFFIXES, note_key

if TYPE_CHECKING:
    from gen1_jax.media.provenance import Provenance


class VideoWriter:
    """Writes frames to `path` by its suffix: .mp4 .mov .mkv (H.264), .webm (VP9), .gif, or "NAME/" (PNG files).

    H.264 and VP9 are 4:2:0, limited-range BT.709, and tagged so. H.264 needs even sizes: an odd last row or
    column is repeated once. Times are exact in mp4 and mov (to 1/90000 s where the frame rate does not divide
    them), to 1/1000 s in mkv and webm, to 1/100 s in gif; a folder has none. A GIF shows no frame for less than
    1/50 s, for players would show it for 1/10 s then: frames that come sooner are left out. Use it as a context
    manager: the file is written beside its target and renamed at the end; after any exception nothing is left of it.

    Args:
        path: the output.
        width: of the frames, pixels.
        height: of the frames, pixels.
        frame_rate: frames a second: the spacing of frames without a time, and how long a last one without a
            duration is shown.
        audio_from: a file whose sound track is carried over: the default one of several, copied where the
            container takes its codec, else as AAC (Opus in webm). GIF and folders are silent.
        sound: the part of the sound, seconds (since, until) on the clock of `Frame.time`, None on either side for
            all there is (`VideoReader.sound`). By default it is cut to the times of the frames.
        sample_aspect_ratio: width over height of a pixel, where `keeps_pixel_aspect`; None for square.
        metadata: title, comment and such of the file, where its container has room for them.
        track_metadata: language and title of the pictures.
        note: a text that `read_note` finds in the file again, see `notes`.
        provenance: what its manifest says, for files that can hold one; of a folder each picture has it.
        overwrite: whether an existing file may be replaced.

    Raises:
        ValueError: an unknown suffix, a size or rate that is not positive.
        MediaError: the output cannot be written, or `audio_from` cannot be read.
    """

    def __init__(
        self,
        path: AnyPath,
        *,
        width: int,
        height: int,
        frame_rate: Fraction | int | float,
        audio_from: AnyPath | None = None,
        sound: tuple[Fraction | None, Fraction | None] | None = None,
        sample_aspect_ratio: Fraction | None = None,
        metadata: Mapping[str, str] | None = None,
        track_metadata: Mapping[str, str] | None = None,
        note: str | None = None,
        provenance: "Provenance | None" = None,
        overwrite: bool = True,
    ) -> None:
        suffix = check_suffix(path, VIDEO_SUFFIXES)
        if width < 1 or height < 1:
            raise UserError(f"{shown(path)}: frames of {width}x{height} cannot be written.")
        if not 0 < frame_rate <= 1000:
            raise UserError(f"{shown(path)}: {frame_rate} frames a second cannot be written; at most 1000.")
        rate = Fraction(frame_rate)
        self._step = 1 / (rate.limit_denominator(1001) if isinstance(frame_rate, float) else rate)
        note = fitting(path, suffix, note)
        self._path, self._shape, self._note, self._provenance = path, (height, width, 3), note, provenance
        metadata = without_note(metadata or {})
        self._time: Fraction | None = None  # of the latest frame
        self._duration = self._step
        self._encoder: MovieEncoder | None = None
        self._count = self._left_out = 0
        self._open = True
        self._even = suffix != "/" and RECIPES[suffix].even
        self._output = PendingOutput(path, overwrite)
        if suffix == "/":
            return
        header = Header(
            width=width,
            height=height,
            frame_rate=1 / self._step,
            sample_aspect_ratio=sample_aspect_ratio,
            metadata=(metadata or {}) if note is None else noted(metadata, note_key(path), note),
            track_metadata=track_metadata or {},
        )
        try:
            with blaming(path, "cannot be written"):
                self._encoder = MovieEncoder(self._output.path, RECIPES[suffix], header, audio_from, sound)
        except BaseException:
            self._output.discard()
            raise

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what is written, pixels: even where they have to be."""
        height, width, _ = self._shape
        return (width + width % 2, height + height % 2) if self._even else (width, height)

    @property
    def count(self) -> int:
        """How many frames were written."""
        return self._count - self._left_out

    @property
    def left_out(self) -> int:
        """How many frames were left out, because a GIF cannot show one for so short a time."""
        return self._left_out

    def write(
        self, rgb: UInt8[np.ndarray, "h w 3"], time: Fraction | None = None, duration: Fraction | None = None
    ) -> None:
        """Adds a frame.

        Args:
            rgb: of the size given at the start.
            time: when it is shown, seconds, on the clock of `Frame.time`; the first frame becomes the start of
                the output. None: one step of the frame rate after the frame before it.
            duration: how long it is shown if no other follows, seconds; None for one step of the frame rate.

        Raises:
            ValueError: another size or dtype, a time not after the last one, or the writer is closed.
            MediaError: the frame cannot be written, say for want of space.
        """
        if not self._open:
            raise ValueError(f"{shown(self._path)}: is closed already.")
        if rgb.shape != self._shape or rgb.dtype != np.uint8:
            wanted = "x".join(map(str, self._shape))
            raise ValueError(f"{shown(self._path)}: frames must be uint8 {wanted}, not {rgb.dtype} {rgb.shape}.")
        if time is None:
            time = Fraction(0) if self._time is None else self._time + self._step
        elif self._time is not None and time <= self._time:
            raise ValueError(f"{shown(self._path)}: time {time} is not after {self._time}.")
        try:
            with blaming(self._path, "cannot be written"):
                if self._encoder is None:
                    picture = self._output.path / f"{self._count:05d}.png"
                    save(picture, rgb, ".png", self._note)
                    self._sign(picture)
                elif not self._encoder.add(rgb, time):
                    self._left_out += 1
        except BaseException:
            self._abandon()  # a file that lacks a frame must not be finished
            raise
        self._time, self._duration = time, duration or self._step
        self._count += 1

    def close(self) -> None:
        """Finishes the file and puts it in its place; calling it again does nothing.

        Raises:
            MediaError: no frame was written, or the file cannot be finished. Nothing is left of it then.
        """
        if not self._open:
            return
        try:
            if not self._count:
                raise MediaError(f"{shown(self._path)}: no frames to write.")
            if self._encoder is not None:
                with blaming(self._path, "cannot be written"):
                    self._encoder.finish(self._time + self._duration)
                self._sign(self._output.path)
            self._output.commit()
        finally:
            self._abandon()  # nothing to do after success

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon()

    def _sign(self, path: Path) -> None:
        if self._provenance is not None:
            self._provenance.sign(path, self._path)

    def _abandon(self) -> None:
        self._open = False
        if self._encoder is not None:
            self._encoder.abandon()
        self._output.discard()
