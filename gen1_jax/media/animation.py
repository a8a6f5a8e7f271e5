"""Animated pictures: short silent loops that pages show without a player."""

from fractions import Fraction

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gen1_jax.media.errors import AnyPath, blaming
from gen1_jax.media.files import PendingOutput, check_suffix
from gen1_jax.media.writer import VideoWriter

ANIMATION_SUFFIXES = (".webp", ".gif")
"""What `write_animation` writes."""

_WEBP = {"quality": 80, "method": 6}  # lossy


def write_animation(path: AnyPath, frames: UInt8[np.ndarray, "t h w 3"], frame_rate: Fraction | int | float) -> None:
    """Writes frames as an endless animated WebP (lossy, true colours) or GIF (256 colours a frame).

    Args:
        path: by its suffix one or the other.
        frames: at least one.
        frame_rate: frames a second; times are rounded to 1/1000 s in WebP and to 1/100 s in GIF, without drift.

    Raises:
        ValueError: another suffix.
        MediaError: it cannot be written there.
    """
    if check_suffix(path, ANIMATION_SUFFIXES) == ".gif":
        _, height, width, _ = frames.shape
        with VideoWriter(path, width=width, height=height, frame_rate=frame_rate) as writer:
            for frame in frames:
                writer.write(frame)
        return
    milliseconds = np.rint(1000 * np.arange(len(frames) + 1) / float(frame_rate)).astype(int)
    first, *others = map(Image.fromarray, frames)
    with PendingOutput(path) as output, blaming(path, "cannot be written"):
        durations = np.diff(milliseconds).tolist()
        first.save(output.path, format="WEBP", save_all=True, append_images=others, duration=durations, loop=0, **_WEBP)
