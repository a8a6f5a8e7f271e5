"""Ready maps of structure, made elsewhere: a video, a folder of pictures or one picture of them for a clip.

file or frames ──as many as the clip has──► cropped and resampled as the clip is ──► checked ──► [-1, 1]
"""

import itertools
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from gen1_jax.data.prepare_geometry import cover
from gen1_jax.editing.inputs import Clip, to_frames
from gen1_jax.errors import UserError, counted
from gen1_jax.media import Limits, Part, open_video
from gen1_jax.models.structure import StructureKind, structure_kind

_SQUEEZED = 1.1  # by how much the shapes of maps and clip may differ: tools round sizes
_CHUNK = 8  # frames that become maps at once
_COLOURED = 24  # levels between the channels, on average; compression makes a few of grey

Fitted = TypeVar("Fitted")
"""What becomes of a picture."""


def kind_and_path(text: str) -> tuple[str | None, str]:
    """What `--structure-from [KIND=]FILE` says: the kind, None where it is not named, and the path.

    Raises:
        UserError: there is no such kind, or no path.
    """
    kind, equals, path = text.partition("=")
    if not equals or "/" in kind or os.path.lexists(text):
        return None, text
    structure_kind(kind)
    if not path:
        raise UserError(f"--structure-from {text}: name a video, a folder of pictures or a picture")
    return kind, path


@dataclass(frozen=True, kw_only=True)
class ClipGeometry:
    """What of its file a clip is, for pictures of other files that are to lie over it.

    Attributes:
        shape: (height, width) of the file's pictures in square pixels, before any crop; None if others may have any.
        crop: (width, height) of the result, `--size`, whose shape is cut out of them; None for all of it.
        part: which frames.
        frame_rate: of the clip, for a folder of pictures that has none.
        limits: refuses larger files.
    """

    shape: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    part: Part = Part()
    frame_rate: Fraction | None = None
    limits: Limits = Limits()


def ready_maps(
    given: Clip, kind: StructureKind, count: int, size: tuple[int, int], geometry: ClipGeometry = ClipGeometry()
) -> Float[np.ndarray, "count H W k"]:
    """Normalised maps, in [-1, 1], for every frame of a clip.

    One picture serves all frames. A video (or a folder) of as many frames as the clip is taken frame by frame; of a
    longer one, it is the part that is edited of the clip's own file.

    Args:
        given: a path, or frames in memory, see `inputs.Clip`.
        kind: of structure.
        count: frames of the clip.
        size: (height, width) that the model works at.
        geometry: of the clip.

    Raises:
        UserError: too few frames, of another shape than the clip, or in colours where the kind is grey; for files
            also `MediaError`.
    """
    is_path = isinstance(given, str | os.PathLike)
    name = os.fspath(given) if is_path else f"structure_from {kind.name}"
    fit = _Fit(name, kind, size, geometry)
    if is_path:
        pictures = read_pictures(given, fit, count, geometry)
    else:
        pictures = [fit(picture, Fraction(1)) for picture in itertools.islice(to_frames(given), count + 1)]
        pictures = pictures * count if len(pictures) == 1 else pictures
    if len(pictures) < count:
        raise UserError(
            f"{name}: has {counted(len(pictures), 'frame')} of {kind.name} for the {count} of the clip;"
            " give as many, or one picture for all"
        )
    if len(pictures) > count:
        warnings.warn(
            f"{name}: has more frames of {kind.name} than the {count} of the clip; the first are taken", stacklevel=2
        )
    pieces = (np.stack(pictures[start : min(start + _CHUNK, count)]) for start in range(0, count, _CHUNK))
    return np.concatenate([np.asarray(kind.from_pictures(piece)) for piece in pieces])


class _Fit:
    """Pictures of maps at the size that the model works at, cropped as its clip is.

    Args:
        name: of where they come from, for messages.
        kind, size, geometry: see `ready_maps`.
    """

    def __init__(self, name: str, kind: StructureKind, size: tuple[int, int], geometry: ClipGeometry):
        self.name, self.kind, self.size, self.geometry = name, kind, size, geometry

    def __call__(self, picture: UInt8[np.ndarray, "h w 3"], pixel_aspect: Fraction) -> UInt8[np.ndarray, "H W 3"]:
        """The picture fitted; `pixel_aspect` is width over height of a pixel of it."""
        height, width, _ = picture.shape
        check_shape(self.name, "maps", (height, width), pixel_aspect, self.geometry)
        crop = self.geometry.crop
        box = None if crop is None else cover((0, 0, width, height), crop[::-1], pixel_aspect)
        if (height, width) != self.size or box is not None:
            picture = np.asarray(Image.fromarray(picture).resize(self.size[::-1], self._filter(height, width), box=box))
        if self.kind.channels == 1 and np.ptp(picture, axis=-1).mean() > _COLOURED:
            raise UserError(f"{self.name}: its maps are in colours, those of {self.kind.name} are grey: {self._looks}")
        return picture

    @property
    def _looks(self) -> str:
        return self.kind.contract.get("looks", "near is white")

    def _filter(self, height: int, width: int) -> Image.Resampling:
        if self.kind.resampling == "nearest":
            return Image.Resampling.NEAREST
        # Areas of less than a pixel would make blocks.
        shrinks = self.size[0] <= height and self.size[1] <= width
        return Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR


def check_shape(name: str, what: str, size: tuple[int, int], pixel_aspect: Fraction, geometry: ClipGeometry) -> None:
    """Refuses pictures that would be squeezed.

    Args:
        name: of their file.
        what: they are, for the message.
        size: (height, width) of them.
        pixel_aspect: width over height of a pixel.
        geometry: of the clip.

    Raises:
        UserError: their shape is not the clip's.
    """
    shape, crop = geometry.shape, geometry.crop
    if shape is None:
        return
    aspect = size[1] * float(pixel_aspect) / size[0]
    allowed = [shape[1] / shape[0]] + ([] if crop is None else [crop[0] / crop[1]])
    if not any(1 / _SQUEEZED <= aspect / other <= _SQUEEZED for other in allowed):
        raise UserError(
            f"{name}: {what} of {size[1]}x{size[0]} would be squeezed for a clip of"
            f" {shape[1]}x{shape[0]}; give {what} of the clip's shape"
        )


def read_pictures(
    path: str | os.PathLike,
    fit: Callable[[UInt8[np.ndarray, "h w 3"], Fraction], Fitted],
    count: int,
    geometry: ClipGeometry,
) -> list[Fitted]:
    """The pictures of a file: all, where there are not more than frames of the clip, else those of the part.

    One picture comes as often as there are frames. Where all of the clip's file is edited, a longer one of maps gives
    one more than there are frames.
    """

    def fitted(**which) -> list[Fitted]:
        with open_video(path, limits=geometry.limits, frame_rate=geometry.frame_rate, **which) as reader:
            aspect = reader.info.sample_aspect_ratio
            return [fit(frame.rgb, aspect) for frame in reader]

    pictures = fitted(frames=count + 1)
    if len(pictures) == 1:
        return pictures * count
    if len(pictures) <= count or geometry.part == Part():
        return pictures
    return fitted(**asdict(geometry.part) | {"frames": count})
