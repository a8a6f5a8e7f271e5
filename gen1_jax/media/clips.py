"""Whole clips as arrays, for scripts and notebooks: `load_video` and `save_video`."""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gen1_jax.media.errors import DEFAULT_LIMITS, AnyPath, Limits, MediaError, shown
from gen1_jax.media.images import pixels_of
from gen1_jax.media.reader import open_video
from gen1_jax.media.recipes import keeps_pixel_aspect
from gen1_jax.media.writer import VideoWriter

if TYPE_CHECKING:
    from gen1_jax.media.provenance import Provenance


def load_video(
    path: AnyPath, *, start: int = 0, frames: int | None = None, stride: int = 1, limits: Limits = DEFAULT_LIMITS
) -> UInt8[np.ndarray, "t h w 3"]:
    """All frames of a video, a folder of pictures or a picture, sRGB in square pixels.

    Args:
        path: a local file or folder.
        start: index of the first frame.
        frames: how many at most; None for all.
        stride: every how many-th.
        limits: refuses larger files.

    Raises:
        MediaError: it cannot be read, or is beyond the limits.
    """
    with open_video(path, start=start, frames=frames, stride=stride, limits=limits) as reader:
        size = reader.info.square_size
        return np.stack([_scaled(frame.rgb, size) for frame in reader])


def _scaled(rgb: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """At (width, height), antialiased."""
    if rgb.shape[1::-1] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def save_video(
    frames: np.ndarray | Sequence[Image.Image | np.ndarray],
    path: AnyPath,
    frame_rate: float | int | Fraction | None = None,
    *,
    like: AnyPath | None = None,
    provenance: "Provenance | None" = None,
) -> None:
    """Writes a video, by suffix, or a folder NAME/ of pictures: whole or not at all.

    Args:
        frames: sRGB: uint8 or floats from 0 to 1, (T, H, W, 3); or a list of such frames or of pictures of PIL.
        path: the file to write.
        frame_rate: frames a second; None for that of `like`, or else 8.
        like: a video whose sound and title are taken, its frame rate without another one, and the times of its frames
            and all of its sound where there are as many of them.
        provenance: what its manifest says, for files that can hold one.

    Raises:
        ValueError: a suffix that is none of `VIDEO_SUFFIXES`, or a frame rate that is not positive.
        MediaError: it cannot be written there, or `like` cannot be read.
    """
    if not len(frames):
        raise MediaError(f"{shown(path)}: there are no frames to write")
    frames = [pixels_of(frame) for frame in frames]
    height, width = frames[0].shape[:2]
    rate, times, options = frame_rate or 8, [None] * len(frames), {}
    ends = times
    if like is not None:
        with open_video(like) as reader:
            info, told = reader.info, reader.times()
            end, sound = reader.end, reader.sound
        rate = frame_rate or info.frame_rate
        if info.has_audio:
            options["audio_from"] = like
        if keeps_pixel_aspect(path) and (info.height, info.width) == (height, width):
            options["sample_aspect_ratio"] = info.sample_aspect_ratio
        options |= {"metadata": info.metadata, "track_metadata": info.track_metadata}
        if frame_rate is None and len(told) == len(frames):
            times, ends = told, [*told[1:], end]
            options["sound"] = sound
    with VideoWriter(path, width=width, height=height, frame_rate=rate, provenance=provenance, **options) as writer:
        for frame, time, end in zip(frames, times, ends, strict=True):
            writer.write(frame, time, None if time is None else end - time)
