"""Shots: where a video cuts or dissolves, seen on thumbnails of its frames.

A cut is a frame that differs from the one before it, and far more than its neighbours do from theirs: the rule of
PySceneDetect's adaptive detector (https://www.scenedetect.com/docs/latest/api/detectors.html), which a moving camera
does not deceive. In a dissolve a frame is the mean of one before it and one after it, while motion moves things and
averages none; and these two differ more than frames as far apart do on either side. PySceneDetect itself would bring
OpenCV, with a second FFmpeg into the process, and finds no dissolves.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int16, UInt8
from PIL import Image

_THUMBNAIL = (32, 18)  # width, height
_REACHES = (3, 5)  # of a mixture: from the mixed frame to the two unmixed ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShotOptions:
    """What counts as the end of a shot. Differences are mean absolute ones of thumbnails, 0 to 255.

    Args:
        cut_difference: the least at a cut.
        cut_ratio: how many times the mean difference of the neighbours a cut is.
        dissolve_difference: the least between the frames that are mixed.
        dissolve_ratio: how many times the mean difference of frames as far apart before and after that is.
        dissolve_residual: how far a mixture may be from their mean, as a part of their difference.
    """

    cut_difference: float = 10.0
    cut_ratio: float = 2.5
    dissolve_difference: float = 16.0
    dissolve_ratio: float = 1.5
    dissolve_residual: float = 0.27


def thumbnail(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "18 32 3"]:
    """The whole picture in few pixels: noise is averaged out, large things and colours stay."""
    return np.asarray(Image.fromarray(rgb).resize(_THUMBNAIL, Image.Resampling.BOX))


def find_shots(thumbnails: UInt8[np.ndarray, "t y x 3"], options: ShotOptions | None = None) -> list[range]:
    """The frames of each shot, in order: whatever lies between two cuts and is not part of a dissolve."""
    options = options or ShotOptions()
    frames = thumbnails.astype(np.int16)
    if not len(frames):
        return []
    cuts = _cuts(frames, options)
    mixed = _mixed(frames, options)
    shots = []
    for start, stop in itertools.pairwise([0, *cuts, len(frames)]):
        shots += [range(start + run.start, start + run.stop) for run in _runs(~mixed[start:stop])]
    return shots


def _cuts(frames: Int16[np.ndarray, "t y x 3"], options: ShotOptions) -> list[int]:
    """First frames of shots after a cut."""
    differences = _differences(frames[1:], frames[:-1])
    usual = np.nan_to_num(_neighbours(differences, (-2, -1, 1, 2)))
    found = (differences >= options.cut_difference) & (differences >= options.cut_ratio * usual)
    return [int(index) + 1 for index in np.flatnonzero(found)]


def _mixed(frames: Int16[np.ndarray, "t y x 3"], options: ShotOptions) -> Bool[np.ndarray, " t"]:
    """Which frames may hold something of two shots."""
    mixed = np.zeros(len(frames), bool)
    for reach in _REACHES:
        before, middle, after = frames[: -2 * reach], frames[reach:-reach], frames[2 * reach :]
        apart = _differences(before, after)
        residual = _differences(2 * middle, before + after) / 2
        found = (apart >= options.dissolve_difference) & (residual <= options.dissolve_residual * apart)
        found &= apart >= options.dissolve_ratio * _neighbours(apart, (-2 * reach, 2 * reach))
        for index in np.flatnonzero(found):
            mixed[index + 1 : index + 2 * reach] = True  # all frames between the two unmixed ones
    return mixed


def _differences(one: Int16[np.ndarray, "t y x 3"], other: Int16[np.ndarray, "t y x 3"]) -> Float[np.ndarray, " t"]:
    """Mean absolute difference of each pair of pictures; pair by pair, to take no memory."""
    return np.array([np.abs(a - b).mean() for a, b in zip(one, other, strict=True)], np.float64)


def _neighbours(values: Float[np.ndarray, " t"], shifts: Sequence[int]) -> Float[np.ndarray, " t"]:
    """The mean of the values at these distances from each; NaN where there are none."""
    padded = np.pad(values, reach := max(shifts), constant_values=np.nan)
    beside = np.stack([padded[reach + shift :][: len(values)] for shift in shifts])
    with np.errstate(invalid="ignore"):
        return np.nansum(beside, axis=0) / np.sum(~np.isnan(beside), axis=0)


def _runs(wanted: Bool[np.ndarray, " t"]) -> list[range]:
    """Ranges of consecutive true values."""
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0)).tolist()
    return [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
