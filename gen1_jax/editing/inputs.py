"""What people hand to an edit (a path, pictures of PIL, lists of either) as arrays."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gen1_jax.errors import UserError, counted
from gen1_jax.media import VIDEO_SUFFIXES, Limits, load_video, picture_of, pixels_of, read_image

SHOWN = 8
"""Frames that are looked at of a clip which shows what an edit should look like."""

_CLIPS = set(VIDEO_SUFFIXES) - {".gif", "/"}  # of a GIF, as of other pictures of several frames, it is the first

Picture = str | Path | Image.Image | np.ndarray
"""A path, a picture of PIL, or (H, W, 3) of uint8 or of floats from 0 to 1."""

Clip = str | Path | np.ndarray | Sequence[Picture] | Image.Image
"""A path, (T, H, W, 3), a sequence of frames of one size, or a picture as a clip of one frame."""


def to_frames(clip: Clip | Any) -> UInt8[np.ndarray, "t h w 3"]:
    """The frames of a clip.

    Raises:
        UserError: it is nothing of the kind, or frames differ in size; `MediaError` for files.
    """
    if isinstance(clip, str | os.PathLike):
        return load_video(clip)
    if isinstance(clip, Image.Image):
        return picture_of(clip)[None]
    if isinstance(clip, np.ndarray):
        return _checked(clip, "frames", 4)
    if not isinstance(clip, Sequence) or not clip:
        raise UserError(f"frames must be uint8 (T, H, W, 3), pictures, or the path of a video, got {_what(clip)}")
    frames = [to_picture(frame, "a frame") for frame in clip]
    if len(sizes := {frame.shape[:2] for frame in frames}) > 1:
        (height, width), (other_height, other_width) = sorted(sizes)[:2]
        raise UserError(f"frames must have one size, got {width}x{height} and {other_width}x{other_height}")
    return np.stack(frames)


def to_picture(picture: Picture | Any, name: str = "image") -> UInt8[np.ndarray, "h w 3"]:
    """A picture as an array; `name` is for messages.

    Raises:
        UserError: it is nothing of the kind; `MediaError` for files.
    """
    if isinstance(picture, str | os.PathLike):
        return read_image(picture)
    if isinstance(picture, Image.Image):
        return picture_of(picture)
    if isinstance(picture, np.ndarray):
        return _checked(picture, name, 3)
    raise UserError(f"{name} must be uint8 (H, W, 3), a picture, or the path of one, got {_what(picture)}")


def to_pictures(
    pictures: Picture | Sequence[Picture] | Any | None, limits: Limits | None = None
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """One picture, several, or none, as arrays; of a path of a video at most `SHOWN` of its frames, from first to last.

    Args:
        pictures: what is given.
        limits: refuses larger files; None for the usual ones.

    Raises:
        UserError: see `to_picture`.
    """
    if pictures is None:
        return []
    given = pictures if isinstance(pictures, list | tuple) else [pictures]
    return [picture for each in given for picture in _pictures_of(each, limits or Limits())]


def _pictures_of(given: Picture | Any, limits: Limits) -> list[UInt8[np.ndarray, "h w 3"]]:
    if not isinstance(given, str | os.PathLike):
        return [to_picture(given)]
    if Path(given).suffix.lower() not in _CLIPS:
        return [read_image(given, limits)]
    frames = load_video(given, limits=limits)
    return [*frames[np.unique(np.linspace(0, len(frames) - 1, SHOWN).round().astype(int))]]


def resize(
    picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> UInt8[np.ndarray, "i j 3"]:
    """A picture at (height, width), antialiased; of a part of it only if there is a box (left, top, right, bottom)."""
    height, width, _ = picture.shape
    if (height, width) == tuple(size) and (box is None or tuple(box) == (0, 0, width, height)):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))


def resize_frames(frames: Iterable[UInt8[np.ndarray, "h w 3"]], size: tuple[int, int]) -> UInt8[np.ndarray, "t i j 3"]:
    """Every frame at (height, width), see `resize`."""
    return np.stack([resize(frame, size) for frame in frames])


def is_several(value: Any) -> bool:
    """Whether it is a list of something rather than one."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def prompts_and_seeds(
    prompt: str | Sequence[str | None] | None, seed: int | Sequence[int] | np.ndarray
) -> tuple[list[str | None], list[int]]:
    """As many prompts as seeds: one of either goes with each of the other.

    Raises:
        UserError: none, or several of both that are not as many.
    """
    prompts = list(prompt) if is_several(prompt) else [prompt]
    seeds = [int(one) for one in seed] if is_several(seed) else [seed]
    if not prompts:
        raise UserError("prompt is an empty list: say what the result should look like")
    if not seeds or 1 < len(seeds) != len(prompts) > 1:
        raise UserError(
            f"seed has {len(seeds)} values for {counted(len(prompts), 'prompt')}: give one, or one for each"
        )
    count = max(len(prompts), len(seeds))
    return prompts * (count // len(prompts)), seeds * (count // len(seeds))


def _checked(array: np.ndarray, name: str, ndim: int) -> np.ndarray:
    array = pixels_of(array)
    if array.ndim != ndim or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        axes = "(T, H, W, 3)" if ndim == 4 else "(H, W, 3)"
        raise UserError(f"{name} must be uint8 {axes}, got {array.dtype} {array.shape}; floats are 0 to 1")
    return array


def _what(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]
