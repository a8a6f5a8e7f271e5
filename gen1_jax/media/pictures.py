"""Pictures as the frames of a video: one file, a folder of them, an animated file."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from gen1_jax.media.errors import AnyPath, Limits, MediaError, blaming, shown
from gen1_jax.media.files import check_bytes
from gen1_jax.media.images import READABLE_SUFFIXES, decode, open_image, read_image
from gen1_jax.media.info import VideoInfo

_ANIMATED = ("WEBP", "PNG", "AVIF")  # the other formats hold pages or previews: the first is the picture
_UNTIMED = Fraction(1, 10)  # what browsers make of a frame that is to be shown for no time


class PictureSource:
    """Picture files, one a frame, all of one size.

    Args:
        path: what the user named, for messages.
        files: the pictures, at least one.
        limits: refuses larger ones.
        frame_rate: frames a second, as the files do not say.

    Raises:
        MediaError: a file is no readable picture or too large, or all together are.
    """

    def __init__(self, path: AnyPath, files: Sequence[Path], limits: Limits, frame_rate: Fraction) -> None:
        self._files, self._limits = files, limits
        check_bytes(path, sum(file.stat().st_size for file in files), limits)
        self._shape = read_image(files[0], limits).shape
        self.info = _describe(self._shape, frame_rate, len(files), len(files) / frame_rate)

    def close(self) -> None:
        """Holds nothing open."""

    def __iter__(self) -> Iterator[tuple[Path, Fraction, Fraction]]:
        """Yields (file, time, duration)."""
        step = 1 / self.info.frame_rate
        for index, file in enumerate(self._files):
            yield file, index * step, step

    def pixels(self, file: Path) -> np.ndarray:
        """The picture as uint8 (H, W, 3)."""
        rgb = read_image(file, self._limits)
        if rgb.shape != self._shape:
            height, width, _ = self._shape
            raise MediaError(
                f"{shown(file)}: is {rgb.shape[1]}x{rgb.shape[0]} where the first picture of its folder is"
                f" {width}x{height}; make all of one size."
            )
        return rgb


class AnimationSource:
    """An animated WebP, PNG or AVIF, with the timing of its frames.

    Args:
        path: what the user named, for messages.
        image: the opened file; closed with the source.
        limits: refuses larger frames.
    """

    def __init__(self, path: AnyPath, image: Image.Image, limits: Limits) -> None:
        self._path, self._image, self._limits = path, image, limits
        # A PNG may begin with a picture for programs that know no animations.
        self._first = 1 if image.info.get("default_image") else 0
        shape = self.pixels(self._first).shape
        count = image.n_frames - self._first
        # The average rate takes all durations, of which a file may state any number: those that may be read.
        self._times = [Fraction(0)]
        for index in range(min(count, limits.max_frames)):
            self._times.append(self._end(index))
        rate = min((len(self._times) - 1) / self._times[-1], Fraction(1000))
        self.info = _describe(shape, rate, count, self._times[-1] if len(self._times) > count else None)

    def close(self) -> None:
        """Lets go of the file."""
        self._image.close()

    def __iter__(self) -> Iterator[tuple[int, Fraction, Fraction]]:
        """Yields (frame index, time, duration)."""
        for index in range(self.info.frame_count):
            if index + 1 == len(self._times):
                self._times.append(self._end(index))
            yield self._first + index, self._times[index], self._times[index + 1] - self._times[index]

    def pixels(self, index: int) -> np.ndarray:
        """The frame as uint8 (H, W, 3)."""
        with blaming(self._path, f"damaged at frame {index}"):
            self._image.seek(index)
            return decode(self._path, self._image, self._limits)

    def _end(self, index: int) -> Fraction:
        """When a frame ceases to be shown, seconds: known once it is decoded, and rounded to a float by Pillow."""
        with blaming(self._path, f"damaged at frame {index}"):
            self._image.seek(self._first + index)
            self._image.load()
            duration = Fraction(self._image.info.get("duration", 0)).limit_denominator(1000) / 1000
            start = self._times[index]
            if self._image.format == "AVIF":  # whose durations are rounded to 1/1000 s each
                start = max(start, Fraction(self._image.info["timestamp"], 1000))
        return start + (duration if duration > 0 else _UNTIMED)


def open_pictures(
    path: AnyPath, local: Path, limits: Limits, frame_rate: Fraction
) -> PictureSource | AnimationSource | None:
    """The source for a folder or a picture file; None if `local` is a file of another kind."""
    if local.is_dir():
        return PictureSource(path, _listed(path, local), limits, frame_rate)
    image = _opened(path, local)
    if image is None:
        return None
    try:
        if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
            return AnimationSource(path, image, limits)
        image.close()
        return PictureSource(path, [local], limits, frame_rate)
    except BaseException:
        image.close()
        raise


def is_picture(path: AnyPath, local: Path) -> bool:
    """Whether the file is a picture rather than something for FFmpeg."""
    image = _opened(path, local)
    if image is not None:
        image.close()
    return image is not None


def _opened(path: AnyPath, local: Path) -> Image.Image | None:
    """The file if Pillow knows it by its first bytes (GIF is left to FFmpeg)."""
    try:
        return open_image(local)
    except Image.DecompressionBombError as error:
        raise MediaError(f"{shown(path)}: has more pixels than any picture may; scale it down.") from error
    except Exception:  # whatever a plugin stumbles over, the file is not of its kind
        return None


def _listed(path: AnyPath, folder: Path) -> list[Path]:
    """The pictures of a folder in natural order: frame2 before frame10."""
    with blaming(path, "the folder cannot be read"):
        files = [file for file in folder.iterdir() if file.suffix.lower() in READABLE_SUFFIXES and not file.is_dir()]
    files = sorted((file for file in files if not file.name.startswith(".")), key=_natural)
    if not files:
        raise MediaError(f"{shown(path)}: no pictures in this folder ({', '.join(READABLE_SUFFIXES)}).")
    return files


def _natural(file: Path) -> tuple[list[tuple[int, str]], str]:
    pieces = re.findall(r"[0-9]+|[^0-9]+", file.name.lower())
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], file.name


def _describe(shape: tuple[int, ...], frame_rate: Fraction, count: int, duration: Fraction | None) -> VideoInfo:
    return VideoInfo(
        width=shape[1],
        height=shape[0],
        frame_rate=frame_rate,
        frame_count=count,
        duration=duration,
        has_audio=False,
        sample_aspect_ratio=Fraction(1),
        is_image=count == 1,
    )
