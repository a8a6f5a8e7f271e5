"""Frames of an edit and of its source at one size, and the mask of what was to change."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from gen1_jax.errors import UserError, counted
from gen1_jax.media import MediaError, VideoInfo, open_video
from gen1_jax.media.errors import shown

Frames = UInt8[np.ndarray, "t h w 3"]
Box = tuple[float, float, float, float]

_SAME_SHAPE = 0.02  # by how much ratios of width to height of pictures of one shape differ, after rounding to 8 pixels
_MARKED = 32  # of 255, in any channel: DAVIS' palette begins at 64, what codecs make of black ends far below


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairOptions:
    """How an edit and its source are laid upon each other.

    Attributes:
        size: pixels of the shorter side at which they are compared, larger and smaller ones alike.
        frames: of the edit at most; what comes later is left out.
        align: "start": frame i of the edit is frame i of the source; "spread": the edit is the whole source at another
            frame rate.
        fit: what an edit of another shape is: "crop", the middle of the source; "stretch", all of it.
    """

    size: int = 256
    frames: int = 128
    align: Literal["start", "spread"] = "start"
    fit: Literal["crop", "stretch"] = "crop"

    def __post_init__(self):
        for name, least in (("size", 32), ("frames", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Pair:
    """What is compared.

    Attributes:
        edit: the frames.
        source: as many, of the same size.
        mask: what was to change, if it is known.
        lengths: how many frames the edit and the source have been read of.
    """

    edit: Frames
    source: Frames
    mask: Bool[np.ndarray, "t h w"] | None
    lengths: tuple[int, int]


def read_pair(edit: Path, source: Path, mask: Path | None, options: PairOptions) -> Pair:
    """Reads both, and the mask.

    Raises:
        MediaError: a file cannot be read.
        UserError: a mask has neither one frame nor as many as the source.
    """
    shape = _shape(edit)
    size = _scaled(shape, options.size)
    edited = _frames(edit, size, None, options.frames)
    box = _middle(_shape(source), shape) if options.fit == "crop" else None
    spread = options.align == "spread"
    frames = _frames(source, size, box, None if spread else len(edited))
    if spread:
        chosen = np.rint(np.linspace(0, len(frames) - 1, len(edited))).astype(int)
    else:
        edited, chosen = edited[: len(frames)], np.arange(min(len(frames), len(edited)))
    marked = None if mask is None else _mask(mask, size, box, chosen, len(frames))
    return Pair(edited, frames[chosen], marked, (len(edited), len(frames)))


def _shape(path: Path) -> tuple[int, int]:
    """(height, width) of frames in square pixels."""
    with open_video(path) as reader:
        info: VideoInfo = reader.info
    return info.square_size[::-1]


def _scaled(shape: tuple[int, int], shorter: int) -> tuple[int, int]:
    scale = shorter / min(shape)
    return tuple(max(1, round(side * scale)) for side in shape)


def _middle(shape: tuple[int, int], wanted: tuple[int, int]) -> Box | None:
    """The largest part of a picture of a shape that has another, in shares of it: left, top, right, bottom."""
    ratio = (wanted[1] / wanted[0]) / (shape[1] / shape[0])
    if abs(ratio - 1) <= _SAME_SHAPE:
        return None
    across, down = min(1, ratio), min(1, 1 / ratio)
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def _frames(path: Path, size: tuple[int, int], box: Box | None, most: int | None) -> Frames:
    return np.stack([_resized(Image.fromarray(rgb), size, box) for rgb in _read(path, most)])


def _read(path: Path, most: int | None) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    with open_video(path, frames=most) as reader:
        for frame in reader:
            yield frame.rgb


def _resized(
    picture: Image.Image, size: tuple[int, int], box: Box | None, kind: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    width, height = picture.size
    part = None if box is None else tuple(x * y for x, y in zip(box, (width, height) * 2, strict=True))
    if part is None and (height, width) == size:
        return np.asarray(picture)
    return np.asarray(picture.resize(size[::-1], kind, box=part))


def _mask(
    path: Path, size: tuple[int, int], box: Box | None, chosen: np.ndarray, length: int
) -> Bool[np.ndarray, "t h w"]:
    """What is marked in any colour, of the chosen frames of the source."""
    marks = []
    for rgb in _read(path, length):
        mark = Image.fromarray(rgb.max(-1))
        marks.append(_resized(mark, size, box, Image.Resampling.NEAREST) >= _MARKED)
    if len(marks) not in (1, length):
        raise MediaError(
            f"{shown(path)}: has {counted(len(marks), 'frame')} and its source at least {length}; give one, or all."
        )
    return np.stack(marks if len(marks) > 1 else marks * length)[chosen]
