"""Clips that visitors look at: read once, their depth estimated once, so that t_s can be tried at no cost."""

import dataclasses
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from gen1_jax.editing.files import Source, read_source
from gen1_jax.editing.pipeline import Gen1Pipeline, Progress, to_uint8
from gen1_jax.errors import counted
from gen1_jax.media import Limits, Part, side_by_side

_KEPT = 8  # clips in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A clip at the model's size, and its depth.

    Attributes:
        source: the frames.
        depth: normalised over the clip to [-1, 1], near is 1.
        part: of the file.
    """

    source: Source
    depth: Float[np.ndarray, "t h w"]
    part: Part

    @property
    def description(self) -> str:
        """Its size and length in words."""
        info, read, part = self.source.info, len(self.source.times), self.part
        length = counted(read, "frame")
        if info.frame_count is not None and info.frame_count > read:
            length = f"{read} of {counted(info.frame_count, 'frame')}"
            length = length if part.start else f"the first {length}"
        length += f", from frame {part.start} on" if part.start else ""
        length += f", one of every {part.stride}" if part.stride > 1 else ""
        height, width = self.source.frames.shape[1:3]
        return f"{info.width}×{info.height}, {length}, seen by the model at {width}×{height}"


class ClipCache:
    """The clips looked at last. Several threads may ask; one at a time is served.

    Args:
        pipeline: estimates depth.
        limits: refuses larger files.
    """

    def __init__(self, pipeline: Gen1Pipeline, limits: Limits):
        self._pipeline, self._limits = pipeline, limits
        self._clips: OrderedDict[tuple, LoadedClip] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def __call__(self, video: str | Path, part: Part, progress: Progress | None = None) -> LoadedClip:
        """A part of a file.

        Raises:
            MediaError: the file cannot be read, or is beyond the limits.
        """
        with self._one_at_a_time:
            key = (str(video), Path(video).stat().st_mtime_ns if Path(video).exists() else None, part)
            if key not in self._clips:
                source = read_source(video, self._pipeline, self._limits, part=part)
                depth = self._pipeline.estimate_depth(source.frames, progress)
                self._clips[key] = LoadedClip(source=source, depth=depth, part=part)
            self._clips.move_to_end(key)
            while len(self._clips) > _KEPT:
                self._clips.popitem(last=False)
            return self._clips[key]

    def structure(self, clip: LoadedClip, structure_blur: int) -> UInt8[np.ndarray, "h w 3"]:
        """The middle frame, and beside it its structure at t_s."""
        middle = len(clip.depth) // 2
        depth = self._pipeline.blur_structure(clip.depth[middle : middle + 1], structure_blur)[0]
        return side_by_side([clip.source.frames[middle], np.repeat(to_uint8(depth)[..., None], 3, axis=-1)])
