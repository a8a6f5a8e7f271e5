"""The parts of a clip that are edited, each with a content of its own, and how they become one clip.

The thing that the mask names is edited first, what is behind it then, so that the second sees what the first became.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Array, Float, UInt8

from gen1_jax.editing.content import Pictures
from gen1_jax.editing.contents import ContentUse
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.masks.clip import MaskClip
from gen1_jax.editing.masks.compositing import composited, feathered
from gen1_jax.editing.sampling import Watch
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, Maps, Progress
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline


class Region(NamedTuple):
    """A part of a clip, and what becomes of it.

    Attributes:
        content: what it is told.
        mask: where it is; None is everywhere.
    """

    content: Conditions
    mask: MaskClip | None


def contents_of(
    pipeline: "Gen1Pipeline",
    prompt: str | None,
    pictures: Pictures,
    settings: EditSettings,
    negative_prompt: str | None,
    background: str | None,
    contents: Sequence[ContentUse] = (),
) -> tuple[Conditions | None, Conditions | None]:
    """What is told of the mask's inside, and of all else; None of what stays as it is.

    Args:
        pipeline, prompt, pictures, settings, negative_prompt: see `Gen1Pipeline.encode_content`.
        background: in words, of all else.
        contents: several in the place of prompt and pictures.

    Raises:
        UserError: see `ContentEncoder.encode` and `editing.contents`.
    """
    stays = background is not None and prompt is None and not pictures
    if contents:
        inside = pipeline.encode_contents(contents, settings, negative_prompt)
    else:
        inside = None if stays else pipeline.encode_content(prompt, pictures, settings, negative_prompt)
    behind = None if background is None else pipeline.encode_content(background, [], settings, negative_prompt)
    return inside, behind


def regions_of(content: Conditions | None, background: Conditions | None, mask: MaskClip | None) -> list[Region]:
    """What is edited: where the mask is by the content, elsewhere by the background; None stays the source."""
    regions = [] if content is None else [Region(content, mask)]
    return regions if background is None else [*regions, Region(background, ~mask)]


def sample_regions(
    pipeline: "Gen1Pipeline",
    regions: Sequence[Region],
    maps: Maps,
    settings: EditSettings,
    progress: Progress | None = None,
    watch: Watch | None = None,
    *,
    frames: Frames,
    given: KnownLatents | None = None,
) -> list[Float[Array, "1 t i j c"]]:
    """Latents of each region: of all of the clip, but for what is outside of it as the region before has left it."""
    latents: list[Float[Array, "1 t i j c"]] = []
    for content, mask in regions:
        known = latents[-1] if latents else None
        told = dict(frames=frames, mask=mask, known=known, given=given)
        latents.append(pipeline.sample(content, maps, settings, progress, watch, **told))
    return latents


def composited_regions(
    sources: Iterator[UInt8[np.ndarray, "H W 3"]],
    regions: Sequence[Region],
    edits: Sequence[Iterator[UInt8[np.ndarray, "h w 3"]]],
    size: tuple[int, int],
    feather: float | int,
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The edits over their source, frame by frame, at (height, width).

    Where two regions meet, the second fades in over the first, which is everywhere beneath it.

    Args:
        sources: frames of the clip at that size.
        regions: that were edited.
        edits: frames of each, of any size.
        size: of the result.
        feather: pixels, see `feathered`.
    """
    masks = [None if region.mask is None else region.mask.frames(size) for region in regions]
    for source, *shown in zip(sources, *edits, strict=True):  # to their very end, at which networks are let go
        frame = source
        for number, (mask, edit) in enumerate(zip(masks, shown, strict=True)):
            edited = resize(edit, size)
            weight = None if mask is None else feathered(next(mask), feather)
            covered = number + 1 < len(regions)  # the next region lies over all that this one leaves
            frame = edited if weight is None or covered else composited(frame, edited, weight)
        yield frame
