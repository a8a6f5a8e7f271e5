"""Decoded frames as they should be looked at: plain RGB, upright."""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from gen1_jax.media import hdr

# Rounded exactly and with a colour for every pixel: FFmpeg's fast path is off by one or two levels.
_PRECISE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_FAST = Interpolation.AREA  # for frames that are scaled anyway; the exact one takes half of the time of decoding
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


class RgbDecoder:
    """Turns FFmpeg's frames into uint8 (H, W, 3) arrays, all of the first frame's size and orientation.

    Limited and full range, 8 to 16 bits, grey, YUV of any matrix and RGB become 8-bit full-range RGB. A stream
    that does not name its matrix is taken as BT.709 from HD on and as BT.601 below, as players do. HDR (PQ, HLG)
    is brought to sRGB, see `hdr`. What is transparent is laid over black, as pictures are.

    Args:
        first: a frame that settles size and orientation.
        size: width and height, upright, where `first` is not the first frame of its video and may be larger.
    """

    def __init__(self, first: av.VideoFrame, size: tuple[int, int] | None = None) -> None:
        self._matrix = _display_matrix(first)
        self._size = (first.width, first.height)
        if size is not None:
            self._size = size[::-1] if self.turned else size
        self._reformatter = VideoReformatter()

    @property
    def turned(self) -> bool:
        """Whether rows and columns change places."""
        return bool(abs(self._matrix[0, 1]) > abs(self._matrix[0, 0]))

    @property
    def oriented(self) -> bool:
        """Whether frames are stored otherwise than they are looked at."""
        return bool(self._matrix[0, 0] <= 0 or self._matrix[1, 1] <= 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what `decode` returns."""
        return self._size[::-1] if self.turned else self._size

    def decode(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame as uint8 (H, W, 3)."""
        return np.array(self.view(frame), order="C")

    def view(self, frame: av.VideoFrame, size: tuple[int, int] | None = None, exact: bool = True) -> np.ndarray:
        """The frame as `decode` gives it, in memory of FFmpeg's: to be copied, not changed.

        Args:
            frame: of the stream that the first one came from.
            size: height and width to scale to, by means of areas.
            exact: as `decode` gives it where nothing is scaled. Otherwise, and where something is, colours are within
                two levels of the exact ones, and neighbours share one.
        """
        width, height = self._size
        if size is not None and size != self.size[::-1]:
            width, height = size if self.turned else size[::-1]
        fast = not exact or (width, height) != self._size
        # The colours of a palette carry their alpha.
        alpha = frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)
        bright = frame.color_trc in hdr.TRANSFERS and not alpha
        shown = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb48le" if bright else "rgba" if alpha else "rgb24",
            src_colorspace=_matrix_of(frame),
            interpolation=_FAST if fast else _PRECISE,
        )
        if bright:
            pixels = hdr.to_sdr(shown.to_ndarray(), frame.color_trc)
        else:
            pixels = shown.to_ndarray() if shown is frame else _packed(shown, 4 if alpha else 3)
        return _upright(_over_black(pixels) if alpha else pixels, self._matrix)


def encode_frame(rgb: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """An RGB array as a frame of `pixel_format`: limited range BT.709 where that is a YUV format."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    if pixel_format == "rgb24":
        return frame
    return VideoReformatter().reformat(
        frame,
        format=pixel_format,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=_PRECISE | Interpolation.FULL_CHR_H_INP,
    )


def pixel_aspect(ratio: Fraction | None, turned: bool) -> Fraction:
    """Width over height of a pixel after rotation; 1 where the file says nothing or nonsense."""
    if not ratio or not Fraction(1, 64) <= ratio <= 64:
        return Fraction(1)
    return 1 / ratio if turned else ratio


def _packed(frame: av.VideoFrame, channels: int) -> np.ndarray:
    """The pixels of an RGB frame of FFmpeg's without a copy."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : channels * frame.width].reshape(frame.height, frame.width, channels)


def _matrix_of(frame: av.VideoFrame) -> int:
    if frame.colorspace != _UNSPECIFIED:
        return frame.colorspace
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


def _over_black(rgba: np.ndarray) -> np.ndarray:
    opacity = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * opacity + 127) // 255).astype(np.uint8)


def _display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """The upper left 2x2 of FFmpeg's display matrix: (column, row) @ matrix is where a pixel is shown.

    Source: libavutil/display.h, AV_FRAME_DATA_DISPLAYMATRIX, 3x3 of 16.16 fixed point.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    matrix = np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)[:2, :2].astype(float)
    return matrix if matrix.any() else np.eye(2)


def _upright(rgb: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies the nearest turn by 90 degrees and mirroring."""
    (a, b), (c, d) = matrix
    if abs(b) > abs(a):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    return rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
