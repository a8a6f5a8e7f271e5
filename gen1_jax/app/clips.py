"""Clips that visitors look at: read once, their depth estimated once, so that t_s can be tried at no cost."""

import dataclasses
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.editing.inputs import resize
from gen1_jax.editing.maps import ClipGeometry
from gen1_jax.editing.masks import read_mask
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.source import Source, read_source
from gen1_jax.editing.structures import Maps, Progress
from gen1_jax.errors import counted
from gen1_jax.media import Limits, Part, side_by_side

_KEPT = 8  # clips in memory
_DARK = 0.3  # how bright is what a mask leaves


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
        upscale: how many times the pipeline enlarges them; 1 for one that edits.
        kept: how many stay in memory.
    """

    def __init__(self, pipeline: Gen1Pipeline, limits: Limits, *, upscale: int = 1, kept: int = _KEPT):
        self._pipeline, self._limits, self._upscale, self._kept = pipeline, limits, upscale, kept
        self._clips: OrderedDict[tuple, LoadedClip] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def __call__(
        self, video: str | Path, part: Part, settings: EditSettings, progress: Progress | None = None
    ) -> LoadedClip:
        """A part of a file, with the structures that settings follow as far as they do not hang on t_s.

        Raises:
            MediaError: the file cannot be read, or is beyond the limits.
            UserError: the model does not know such a structure, or does not estimate it.
        """
        with self._one_at_a_time:
            key = (str(video), Path(video).stat().st_mtime_ns if Path(video).exists() else None, part)
            if key not in self._clips:
                source = read_source(video, self._pipeline, self._limits, part=part, upscale=self._upscale)
                self._clips[key] = LoadedClip(source=source, part=part)
            self._clips.move_to_end(key)
            while len(self._clips) > self._kept:
                self._clips.popitem(last=False)
            clip = self._clips[key]
            for use in settings.of(self._pipeline.config).structures:
                kind = self._pipeline.config.structure_kind(use.kind)
                if kind.degrades != "frames" and kind.name not in clip.estimated:
                    estimate = self._pipeline.structures.estimate
                    clip.estimated[kind.name] = estimate(kind, clip.source.frames, progress)
            return clip

    def mask(self, clip: LoadedClip, mask: str, settings: EditSettings, limits: Limits) -> Float32[np.ndarray, "t i j"]:
        """A mask of the clip, of the model's size; not one of words.

        Raises:
            UserError: see `read_mask`.
        """
        width, height = clip.source.info.square_size
        geometry = ClipGeometry(shape=(height, width), part=clip.part, limits=limits)
        frames, filled = clip.source.frames, settings.of(self._pipeline.config)
        with self._one_at_a_time:
            read = read_mask(self._pipeline, mask, None, frames, {}, filled, geometry, None, clip.estimated)
        return read.at(frames.shape[1:3])

    def structures(
        self,
        clip: LoadedClip,
        settings: EditSettings,
        mask: Float32[np.ndarray, "t i j"] | None,
        size: tuple[int, int],
    ) -> list[list[UInt8[np.ndarray, "H W 3"]]]:
        """Of each kind that settings follow the pictures of all frames, at (height, width), black outside of a mask."""
        filled = settings.of(self._pipeline.config)
        maps = self._pipeline.read_structure(clip.source.frames, filled, None, None, clip.estimated)
        shown = self._pipeline.pictures_of(maps).values()
        if mask is not None:
            shown = [np.rint(pictures * mask[..., None]).astype(np.uint8) for pictures in shown]
        return [[resize(picture, size) for picture in pictures] for pictures in shown]

    def structure(
        self, clip: LoadedClip, settings: EditSettings, mask: Float32[np.ndarray, "t i j"] | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The middle frame, dark outside of a mask, and beside it its structures at t_s: those that settings follow."""
        middle = slice(len(clip.source.frames) // 2, len(clip.source.frames) // 2 + 1)
        one = dataclasses.replace(
            clip,
            source=dataclasses.replace(clip.source, frames=clip.source.frames[middle]),
            estimated={kind: maps[middle] for kind, maps in clip.estimated.items()},
        )
        filled = settings.of(self._pipeline.config)
        maps = self._pipeline.read_structure(one.source.frames, filled, None, None, one.estimated)
        frame = one.source.frames[0]
        if mask is not None:
            frame = np.rint(frame * (_DARK + (1 - _DARK) * mask[middle][0, ..., None])).astype(np.uint8)
        return side_by_side([frame, *(frames[0] for frames in self._pipeline.pictures_of(maps).values())])
