"""From what `--mask` names, or what `pipe.edit` is given, to a mask of every frame."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from gen1_jax.data.prepare_geometry import cover
from gen1_jax.editing.inputs import Clip
from gen1_jax.editing.maps import ClipGeometry, check_shape, read_pictures
from gen1_jax.editing.masks.clip import MaskClip, grey, pack
from gen1_jax.editing.masks.growing import grown, spread
from gen1_jax.editing.masks.sources import AUTO, AtPoint, ByDepth, OfFile, OfWords, of_edit, parse_mask
from gen1_jax.editing.masks.words import contrasted, named
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, Maps, Progress
from gen1_jax.errors import UserError, counted
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

GivenMask = str | os.PathLike | Image.Image | np.ndarray | Sequence[Image.Image | np.ndarray]
"""The notation of `parse_mask`, a picture for all frames, or one for each: bool, uint8 or 0 to 1."""


_NOISE = 16  # levels of grey that lossy videos and pictures have for black


def read_mask(
    pipeline: "Gen1Pipeline",
    given: GivenMask | None,
    background: str | None,
    frames: Frames,
    maps: Maps,
    settings: EditSettings,
    geometry: ClipGeometry,
    progress: Progress | None = None,
    estimated: Maps | None = None,
    content: Conditions | None = None,
) -> MaskClip | None:
    """The mask of each frame of a clip; None where all of it may change.

    Args:
        pipeline: the model.
        given: see `GivenMask`; None is everything or, where there is a background, what is near.
        background: what all outside of the mask is to become.
        frames: of the clip, of the model's size.
        maps: of the structures that the edit follows.
        settings: filled in.
        geometry: of the clip in its file.
        progress: told of what is estimated.
        estimated: maps that are estimated already, by kind; the depth is added to them.
        content: of the edit, for a mask that is found by it.

    Raises:
        UserError: it names nothing, fits no clip like this, or needs a network that the model does not have; for files
            also `MediaError`.
    """
    if given is None and background is None:
        return None
    if given is None:
        given = f"near:{AUTO}"
    if (edit := of_edit(given)) is not None:
        if content is None:
            raise UserError(f"--mask {given} is found by the content of an edit: give a prompt or an image")
        mask = _found(contrasted(pipeline, content, edit.words, frames, maps, settings, progress))
    else:
        estimated = {} if estimated is None else estimated
        mask = _read(pipeline, given, frames, maps, settings, geometry, progress, estimated)
    pipeline.networks.let_go("depth", "unet")
    if background is None and mask.is_everywhere(0):
        name = os.fspath(given) if isinstance(given, str | os.PathLike) else "it"
        warnings.warn(f"mask: {name} is empty, so that nothing changes", stacklevel=3)
    return mask


def _read(
    pipeline: "Gen1Pipeline",
    given: GivenMask,
    frames: Frames,
    maps: Maps,
    settings: EditSettings,
    geometry: ClipGeometry,
    progress: Progress | None,
    estimated: Maps,
) -> MaskClip:
    if not isinstance(given, str | os.PathLike):
        return _of_arrays(given, len(frames))
    source = parse_mask(given)
    if isinstance(source, OfFile) and source.frame is None:
        return _of_file(source, len(frames), geometry)
    if isinstance(source, OfWords):
        return _found(named(pipeline, source.words, frames, maps, settings, progress))
    if isinstance(source, ByDepth):
        return _found(_by_depth(source, _depth(pipeline, frames, progress, estimated)))
    if source.frame >= len(frames):
        raise UserError(f"--mask {given}: the edit has {counted(len(frames), 'frame')}, from 0 on")
    if isinstance(source, AtPoint):
        place = _place(source, frames.shape[1:3], geometry, given)
        return _found(grown(frames, _depth(pipeline, frames, progress, estimated), place, source.frame))
    drawn = _of_file(dataclasses.replace(source, frame=None), 1, geometry).at(frames.shape[1:3])[0] >= 0.5
    return _found(spread(frames, _depth(pipeline, frames, progress, estimated), drawn, source.frame))


def _depth(
    pipeline: "Gen1Pipeline", frames: Frames, progress: Progress | None, estimated: Maps
) -> Float32[np.ndarray, "t h w"]:
    """Depth of a clip as it is shown: 0 the farthest, 1 the nearest."""
    kind = pipeline.config.structure_kind("depth")
    if kind.name not in estimated:
        estimated[kind.name] = pipeline.structures.estimate(kind, frames, progress)
    return (np.asarray(estimated[kind.name][..., 0], np.float32) + 1) / 2


def _by_depth(source: ByDepth, depth: Float32[np.ndarray, "t h w"]) -> Bool[np.ndarray, "t h w"]:
    threshold = source.depth
    if threshold is None:
        import cv2

        levels = np.rint(255 * depth).astype(np.uint8)
        threshold = cv2.threshold(levels.reshape(len(levels), -1), 0, 255, cv2.THRESH_OTSU)[0] / 255
    return depth > threshold if source.side == "near" else depth <= threshold


def _place(point: AtPoint, size: tuple[int, int], geometry: ClipGeometry, given: str | os.PathLike) -> tuple[int, int]:
    """Row and column of a point, in pixels of the source, among those that the model sees."""
    height, width = geometry.shape
    if not (0 <= point.x < width and 0 <= point.y < height):
        raise UserError(f"--mask {given}: the point lies outside of the picture, which is {width}x{height}")
    whole = (0, 0, width, height)
    left, top, right, bottom = whole if geometry.crop is None else cover(whole, geometry.crop[::-1], Fraction(1))
    across, down = (point.x - left) / (right - left), (point.y - top) / (bottom - top)
    if not (0 <= across < 1 and 0 <= down < 1):
        raise UserError(f"--mask {given}: the point lies in what --size cuts off")
    return int(down * size[0]), int(across * size[1])


def _found(masks: Sequence[Bool[np.ndarray, "h w"]] | Bool[np.ndarray, "t h w"]) -> MaskClip:
    return MaskClip.where(masks, sharp=True)


def _of_file(source: OfFile, count: int, geometry: ClipGeometry) -> MaskClip:
    """The masks of a file, of their own size: one a frame, or one for all."""
    name, sizes = os.fspath(source.path), set()

    def fit(picture: UInt8[np.ndarray, "h w 3"], pixel_aspect: Fraction) -> bytes:
        height, width, _ = picture.shape
        check_shape(name, "a mask", (height, width), pixel_aspect, geometry)
        mask = _clean(grey(picture))
        if geometry.crop is not None:
            left, top, right, bottom = map(round, cover((0, 0, width, height), geometry.crop[::-1], pixel_aspect))
            mask = mask[top:bottom, left:right]
        sizes.add(mask.shape)
        return pack(mask)

    masks = read_pictures(source.path, fit, count, geometry)
    if len(masks) < count:
        raise UserError(
            f"{name}: has {counted(len(masks), 'frame')} for the {count} of the clip; give as many, or one for all"
        )
    if len(sizes) > 1:
        raise UserError(f"{name}: its pictures differ in size")
    return MaskClip(sizes.pop(), masks[:count])


def _clean(mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Black and white as they were before a codec ate at them."""
    return np.where(mask < _NOISE, 0, np.where(mask > 255 - _NOISE, 255, mask)).astype(np.uint8)


def _of_arrays(given: Clip, count: int) -> MaskClip:
    """Masks in memory: one a frame, or one for all."""
    if isinstance(given, np.ndarray) and given.ndim not in (2, 3):
        raise UserError(f"mask must be (H, W) or (T, H, W), got {given.dtype} {given.shape}")
    one = isinstance(given, Image.Image) or (isinstance(given, np.ndarray) and given.ndim == 2)
    masks = [_levels(picture) for picture in ([given] if one else given)]
    if len(masks) not in (1, count):
        raise UserError(f"mask: {counted(len(masks), 'picture')} for {counted(count, 'frame')}; give as many, or one")
    if len({mask.shape for mask in masks}) > 1:
        raise UserError("mask: its pictures differ in size")
    return MaskClip.of(masks * count if len(masks) == 1 else masks)


def _levels(picture: Image.Image | np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """A mask as levels of grey."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("L"))
    array = np.asarray(picture)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"mask must be (H, W) or (T, H, W), got {array.dtype} {array.shape}")
    if array.dtype == np.uint8:
        return array
    if not (array.dtype == bool or (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1)):
        raise UserError("mask must be bool, uint8, or numbers from 0 (stays) to 1 (may change)")
    return np.rint(255 * array.astype(np.float32)).astype(np.uint8)
