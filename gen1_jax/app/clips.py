"""Clips that visitors look at: read once, their depth estimated once, so that t_s can be tried at no cost."""

import dataclasses
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from gen1_jax.editing.files import Source, read_source
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Maps, Progress
from gen1_jax.errors import counted
from gen1_jax.media import Limits, Part, side_by_side

_KEPT = 8  # clips in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A clip at the model's size, and its structures.

    Attributes:
        source: the frames.
        part: of the file.
        estimated: maps that do not hang on t_s, normalised over the clip; filled as edits ask for them.
    """

    source: Source
    part: Part
    estimated: Maps = dataclasses.field(default_factory=dict)

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
                clip = LoadedClip(source=source, part=part)
                self._maps(clip, EditSettings(), progress)  # so that what t_s does is seen at once
                self._clips[key] = clip
            self._clips.move_to_end(key)
            while len(self._clips) > _KEPT:
                self._clips.popitem(last=False)
            return self._clips[key]

    def structure(self, clip: LoadedClip, structure_blur: int) -> UInt8[np.ndarray, "h w 3"]:
        """The middle frame, and beside it its structures at t_s."""
        middle = slice(len(clip.source.frames) // 2, len(clip.source.frames) // 2 + 1)
        one = dataclasses.replace(
            clip,
            source=dataclasses.replace(clip.source, frames=clip.source.frames[middle]),
            estimated={kind: maps[middle] for kind, maps in clip.estimated.items()},
        )
        pictures = self._pipeline.pictures_of(self._maps(one, EditSettings(structure_blur=structure_blur)))
        return side_by_side([frames[0] for frames in (one.source.frames, *pictures.values())])

    def _maps(self, clip: LoadedClip, settings: EditSettings, progress: Progress | None = None) -> Maps:
        settings = settings.of(self._pipeline.config)
        return self._pipeline.read_structure(clip.source.frames, settings, None, progress, clip.estimated)
