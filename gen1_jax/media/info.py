"""What is known of a video before its frames are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame.

    Args:
        rgb: the pixels, upright.
        time: seconds since the video's pictures start; strictly increasing from frame to frame.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    time: Fraction


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The whole video, whatever part of it is read.

    Args:
        width: pixels of a frame after rotation.
        height: pixels of a frame after rotation.
        frame_rate: frames a second, on average where they are unevenly spaced.
        frame_count: how many frames there are, as the header states or lets estimate; None if it does not.
        duration: seconds, None if the header does not state it.
        has_audio: whether there is a sound track.
        sample_aspect_ratio: width over height of a pixel, after rotation.
        is_image: a single still picture.
        metadata: title, comment and such of the file, as `metadata.carried` leaves them.
        track_metadata: the same of its pictures: language and title.
    """

    width: int
    height: int
    frame_rate: Fraction
    frame_count: int | None
    duration: Fraction | None
    has_audio: bool
    sample_aspect_ratio: Fraction
    is_image: bool
    metadata: Mapping[str, str] = field(default_factory=dict)
    track_metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def square_size(self) -> tuple[int, int]:
        """(width, height) of a frame in square pixels: the side with too few of them is magnified."""
        aspect = self.sample_aspect_ratio
        return max(1, round(self.width * max(aspect, 1))), max(1, round(self.height / min(aspect, 1)))
