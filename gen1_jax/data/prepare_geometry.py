"""Shapes of pictures: black bars, aspect-ratio buckets, and the crop that takes a frame to its bucket."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from gen1_jax.errors import UserError

Bucket = tuple[int, int]
"""(height, width), pixels."""

BUCKETS: tuple[Bucket, ...] = ((256, 448), (320, 384), (320, 320), (384, 320), (448, 256))
"""The sizes of the paper's training pictures (arXiv 2302.03011)."""

Box = tuple[int, int, int, int]
"""(left, top, right, bottom), pixels; right and bottom are outside."""

_DARK = 24  # levels: the black of a bar, with the ringing of its edge
_LEAST_BAR, _MOST_BAR = 0.01, 0.4  # parts of the side; a bar beyond is rather a dark scene
_MARGIN = 2  # pixels beside a bar are its blurred edge


def parse_bucket(text: str) -> Bucket:
    """A bucket from "WIDTHxHEIGHT"; ValueError unless both are positive and even, as H.264 wants them."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()) or not (int(width) and int(height)):
        raise UserError(f"bucket {text!r}: write it as WIDTHxHEIGHT, such as 448x256.")
    if int(width) % 2 or int(height) % 2:
        raise UserError(f"bucket {text!r}: width and height must be even.")
    return int(height), int(width)


def bucket_name(bucket: Bucket) -> str:
    """The bucket as "WIDTHxHEIGHT"."""
    return f"{bucket[1]}x{bucket[0]}"


def nearest_bucket(aspect: float, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket that loses least of a picture whose width is `aspect` times its height; the first of equals."""
    return min(buckets, key=lambda bucket: abs(math.log(aspect * bucket[0] / bucket[1])))


def dark_borders(rgb: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "4"]:
    """How many rows or columns are black at the left, top, right and bottom; all of them in a black picture.

    The least of each over the frames of a shot is what is black in all of them.
    """
    lit_columns, lit_rows = (rgb.max(axis=0).max(axis=-1) > _DARK, rgb.max(axis=(1, 2)) > _DARK)
    sides = (lit_columns, lit_rows, lit_columns[::-1], lit_rows[::-1])
    return np.array([np.argmax(side) if side.any() else len(side) for side in sides])


def picture_box(borders: Int[np.ndarray, "4"], width: int, height: int) -> Box:
    """The picture without letterbox or pillarbox.

    Bars come in pairs of equal size: as much is cropped on both sides as is black on both, so that a dark sky stays.
    """
    left, top, right, bottom = (int(border) for border in borders)
    columns, rows = _bar(min(left, right), width), _bar(min(top, bottom), height)
    return columns, rows, width - columns, height - rows


def _bar(black: int, side: int) -> int:
    return black + _MARGIN if _LEAST_BAR * side <= black <= _MOST_BAR * side and black >= 2 else 0


def cover(box: Box, bucket: Bucket, pixel_aspect: Fraction) -> tuple[float, float, float, float]:
    """The largest part of `box` around its centre that has the shape of `bucket` when it is shown.

    Args:
        box: the picture within its frame.
        bucket: gives the shape.
        pixel_aspect: width over height of a pixel of the frame.
    """
    left, top, right, bottom = box
    aspect = bucket[1] / bucket[0] / float(pixel_aspect)  # in pixels of the frame
    width = min(right - left, (bottom - top) * aspect)
    height = min(bottom - top, (right - left) / aspect)
    x, y = (left + right - width) / 2, (top + bottom - height) / 2
    return x, y, x + width, y + height


def resize(
    rgb: UInt8[np.ndarray, "h w 3"], part: tuple[float, float, float, float], bucket: Bucket
) -> UInt8[np.ndarray, "H W 3"]:
    """A part of a frame at the size of its bucket (Lanczos)."""
    return np.asarray(Image.fromarray(rgb).resize(bucket[::-1], Image.Resampling.LANCZOS, box=part))
