"""`MaskClip`: a mask of every frame, kept small; and what of it the sampler is told."""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from PIL import Image

_SPREAD = 2  # a latent says something of pixels half a cell around its own


@dataclasses.dataclass(frozen=True)
class MaskClip:
    """A mask of each frame of a clip. They are kept compressed: those of 10,000 frames take tens of megabytes.

    Attributes:
        size: (height, width) of the masks as they were given.
        packed: their pixels, 255 may change.
        sharp: whether another size has no grey at the border: of masks that were found at the model's size.
        inverted: whether 255 is what stays.
    """

    size: tuple[int, int]
    packed: Sequence[bytes]
    sharp: bool = False
    inverted: bool = False

    @classmethod
    def of(cls, masks: Iterable[UInt8[np.ndarray, "h w"]], *, sharp: bool = False) -> "MaskClip":
        """Of pictures of one size, at least one."""
        size, packed = None, []
        for mask in masks:
            size = mask.shape
            packed.append(pack(mask))
        return cls(size, packed, sharp)

    @classmethod
    def where(cls, masks: Iterable[Bool[np.ndarray, "h w"]], *, sharp: bool = False) -> "MaskClip":
        """Of boolean masks (h, w), one a frame, at least one, of one size: True may change."""
        return cls.of((np.where(mask, 255, 0).astype(np.uint8) for mask in masks), sharp=sharp)

    def __len__(self) -> int:
        return len(self.packed)

    def __invert__(self) -> "MaskClip":
        """What the mask leaves."""
        return dataclasses.replace(self, inverted=not self.inverted)

    def frames(
        self, size: tuple[int, int], start: int = 0, stop: int | None = None
    ) -> Iterator[Float32[np.ndarray, "H W"]]:
        """The masks of frames start <= i < stop at (height, width), in [0, 1]."""
        for data in self.packed[start:stop]:
            mask = unpack(data, self.size)
            if self.size != tuple(size):
                shrinks = size[0] <= self.size[0] and size[1] <= self.size[1]
                kind = Image.Resampling.BOX if shrinks and not self.sharp else Image.Resampling.BILINEAR
                mask = np.asarray(Image.fromarray(mask).resize((size[1], size[0]), kind))
                mask = np.where(mask < 128, 0, 255) if self.sharp else mask
            mask = mask.astype(np.float32) / 255
            yield 1 - mask if self.inverted else mask

    def at(self, size: tuple[int, int], start: int = 0, stop: int | None = None) -> Float32[np.ndarray, "t H W"]:
        """The same in one array."""
        return np.stack(list(self.frames(size, start, stop)))

    def is_everywhere(self, value: int) -> bool:
        """Whether all of it is 0, or 1."""
        wanted = 255 * (value != self.inverted)
        return all((unpack(data, self.size) == wanted).all() for data in self.packed)


def pack(mask: UInt8[np.ndarray, "h w"]) -> bytes:
    """A mask compressed."""
    return zlib.compress(np.ascontiguousarray(mask).tobytes(), 1)


def unpack(data: bytes, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """What `pack` compressed."""
    return np.frombuffer(zlib.decompress(data), np.uint8).reshape(size)


def latent_change(mask: Float[np.ndarray, "t H W"], cell: int) -> Float32[np.ndarray, "1 t h w 1"]:
    """How strongly each latent may change: as much as the pixel of its own, or near to it, that may change most.

    Args:
        mask: of the model's size, in [0, 1].
        cell: pixels a side of one latent.
    """
    import cv2

    around = np.ones((2 * (cell // _SPREAD) + 1,) * 2, np.uint8)
    grown = np.stack([cv2.dilate(np.asarray(frame, np.float32), around) for frame in mask])
    count, height, width = grown.shape
    return grown.reshape(1, count, height // cell, cell, width // cell, cell).max((3, 5))[..., None]


def grey(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """How white a picture is: the mean of its channels."""
    return np.rint(picture.mean(-1)).astype(np.uint8)
