"""Kinds of structure whose maps are pictures, most of them as the ControlNets of their kind were trained on them.

Most of them have no estimator here: their maps are given (`--structure-from KIND=FILE`). A kind that has one is a class
of its own, derived from `PictureKind`. What a hint of each kind looks like: https://github.com/lllyasviel/ControlNet-v1-1-nightly.
"""

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure.blur import blur
from gen1_jax.models.structure.kind import Degraded, EncodeImages, FrameMaps, Frames, Maps, Resampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureKind:
    """Maps that are pictures. See `StructureKind`.

    Attributes:
        name: of the kind.
        looks: what a map shows, in words.
        channels: 1 for what is grey, 3 for what has colours.
        degrades: what t_s takes detail from; with ready maps, "frames" is nothing.
        resampling: of ready maps.
    """

    part: ClassVar[str | None] = None
    runs_on_host: ClassVar[bool] = False
    name: str
    looks: str
    channels: int = 1
    degrades: Degraded = "frames"
    resampling: Resampling = "area"

    @property
    def is_estimated(self) -> bool:
        """Whether a class derived from this estimates it."""
        return type(self).estimate is not PictureKind.estimate

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows."""
        return {"looks": self.looks, "range": [-1, 1]}

    def estimate(self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None) -> FrameMaps:
        """Refuses: there is no estimator. Where a class derived from this has one, its maps are in [0, 1]."""
        raise UserError(f"nothing here estimates {self.name}: give its maps with --structure-from {self.name}=FILE")

    def from_pictures(self, pictures: Frames) -> Float[Array, "n H W k"]:
        """The pictures themselves, or the mean of their channels."""
        images = pixels_to_images(pictures)
        return images.mean(-1, keepdims=True) if self.channels == 1 else images

    def normalise(self, maps: Float[Array, "*batch t H W k"]) -> Float[Array, "*batch t H W k"]:
        """[0, 1] to [-1, 1], whatever the clip."""
        return 2 * maps - 1

    def transformed(self, maps: Maps, scale: tuple[float, float] = (1.0, 1.0), mirrored: bool = False) -> Maps:
        """The same."""
        return maps

    def degrade(self, maps: Float[Array, "b t H W k"], level: Int[Array, " b"]) -> Float[Array, "b t H W k"]:
        """See `blur`."""
        return blur(maps, level) if self.degrades == "maps" else maps

    def encode(self, maps: Float[Array, "b t H W k"], encode_images: EncodeImages) -> Float[Array, "b t h w c"]:
        """As pictures of three channels."""
        return encode_images(self._in_colours(maps))

    def hint(self, maps: Float[Array, "b t H W k"]) -> Float[Array, "b t H W 3"]:
        """[-1, 1] to [0, 1]."""
        return (self._in_colours(maps) + 1) / 2

    def _in_colours(self, maps: Float[Array, "b t H W k"]) -> Float[Array, "b t H W 3"]:
        return maps if self.channels == 3 else jnp.repeat(maps, 3, axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile(PictureKind):
    """The frames themselves, from which t_s takes detail: colours are kept.

    A ControlNet that is told of them is of kind "tile"; an input of the U-Net itself is "source".
    """

    name: str = "tile"
    looks: str = "the frame"
    channels: int = 3
    degrades: Degraded = "maps"

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[Array, "n H W 3"]:
        """The frames in [0, 1]."""
        return jnp.asarray(frames, jnp.float32) / 255


def opencv(kind: str) -> ModuleType:
    """OpenCV, which estimates a kind.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"{kind} needs OpenCV ({error}): pip install opencv-python-headless") from None
    return cv2


_COLOURED = dict(channels=3, degrades="nothing")

PICTURE_KINDS = (
    Tile(),
    Tile(name="source"),
    PictureKind(name="lineart", looks="white lines on black"),
    PictureKind(name="lineart_anime", looks="white lines on black"),
    PictureKind(name="scribble", looks="thick white lines on black"),
    PictureKind(name="mlsd", looks="straight white lines on black", degrades="nothing"),
    PictureKind(name="openpose", looks="coloured skeletons on black", **_COLOURED),
    PictureKind(name="seg", looks="a colour for each class of things", **_COLOURED, resampling="nearest"),
)
"""All of them that need nothing but code of this module."""
