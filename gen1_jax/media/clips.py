"""Whole clips as arrays, for scripts and notebooks: `load_video` and `save_video`."""

from fractions import Fraction

import numpy as np
from jaxtyping import UInt8

from gen1_jax.media.errors import DEFAULT_LIMITS, AnyPath, Limits
from gen1_jax.media.reader import open_video
from gen1_jax.media.writer import VideoWriter


def load_video(
    path: AnyPath, *, start: int = 0, frames: int | None = None, stride: int = 1, limits: Limits = DEFAULT_LIMITS
) -> UInt8[np.ndarray, "t h w 3"]:
    """All frames of a video, a folder of pictures or a picture, sRGB.

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
        return np.stack([frame.rgb for frame in reader])


def save_video(
    frames: UInt8[np.ndarray, "t h w 3"],
    path: AnyPath,
    frame_rate: float | int | Fraction | None = None,
    *,
    like: AnyPath | None = None,
) -> None:
    """Writes a video, by suffix, or a folder NAME/ of pictures: whole or not at all.

    Args:
        frames: sRGB.
        path: the file to write.
        frame_rate: frames a second; None for that of `like`, or else 8.
        like: a video whose frame rate and sound are taken.

    Raises:
        ValueError: a suffix that is none of `VIDEO_SUFFIXES`, or a frame rate that is not positive.
        MediaError: it cannot be written there, or `like` cannot be read.
    """
    rate, sound = Fraction(8), None
    if like is not None:
        with open_video(like, frames=1) as reader:
            rate, sound = reader.info.frame_rate, like if reader.info.has_audio else None
    if frame_rate is not None:
        rate = Fraction(frame_rate).limit_denominator(1001)
    height, width = frames.shape[1:3]
    with VideoWriter(path, width=width, height=height, frame_rate=rate, audio_from=sound) as writer:
        for frame in frames:
            writer.write(frame)
