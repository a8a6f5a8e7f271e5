"""Masks of edits of files: read for a request, written, and what they leave of the source's own pixels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from gen1_jax.editing.masks.clip import MaskClip
from gen1_jax.editing.masks.reading import read_mask
from gen1_jax.editing.masks.regions import Region, composited_regions
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.source import Source, geometry_of, source_frames
from gen1_jax.editing.structures import Maps, Progress
from gen1_jax.editing.writing import output_size, write_frames
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline


def mask_of(
    pipeline: "Gen1Pipeline",
    request: EditRequest,
    source: Source,
    maps: Maps,
    settings: EditSettings,
    progress: Progress | None = None,
    estimated: Maps | None = None,
    content: Conditions | None = None,
) -> MaskClip | None:
    """The mask that a request asks for; see `read_mask`."""
    told = request.mask, request.background, source.frames, maps, settings, geometry_of(request, source)
    return read_mask(pipeline, *told, progress, estimated, content)


def over_source(
    request: EditRequest,
    source: Source,
    regions: Sequence[Region],
    edits: Sequence[Iterator[UInt8[np.ndarray, "h w 3"]]],
    feather: float | int,
    *,
    small: bool = False,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of an edit as they are written; of an edit without a mask those that the model made.

    Args:
        request: of the edit.
        source: its frames.
        regions: that were edited.
        edits: the frames of each.
        feather: pixels, see `feathered`.
        small: whether at the model's size, to stand beside what the model saw.
    """
    if all(region.mask is None for region in regions):
        return edits[0]
    if small:
        sources, size = iter(source.frames), source.frames.shape[1:3]
    else:
        size = output_size(request.output, source, request)
        sources = source_frames(request.video, request.limits, size, request.part, request.size)
    return composited_regions(sources, regions, edits, size, feather)


def write_mask(path: str | Path, mask: MaskClip, source: Source, request: EditRequest) -> None:
    """A mask as a video, a folder or a picture, white where it may change, of the size of the edit."""
    size = output_size(path, source, request)
    frames = (np.repeat(np.rint(255 * frame).astype(np.uint8)[..., None], 3, -1) for frame in mask.frames(size))
    write_frames(path, frames, source, request, audio=False)
