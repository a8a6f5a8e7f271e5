"""Normals as structure: where surfaces face, in the axes of the camera.

Maps are unit vectors (left, up, towards the camera), so that pictures are red to the left, green up and blue near, as
ControlNets of normals were trained on (https://github.com/lllyasviel/ControlNet-v1-1-nightly). Such a ControlNet is of
kind "normal"; an input of the U-Net itself is "normals".
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure.kind import Degraded, Frames, Maps
from gen1_jax.models.structure.pictures import PictureKind

_FOCAL = 1.2  # focal length over the shorter side: 45 degrees
_NEAREST, _FARTHEST = 0.995, 0.005  # quantiles of inverse depth, of a frame
_RANGE = 6.0  # the farthest is taken to be so many times as far away as the nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normals(PictureKind):
    """Normals, by finite differences of the depth that the family's network estimates. See `StructureKind`."""

    part: ClassVar[str | None] = "depth"
    name: str = "normals"
    looks: str = "(normal + 1) / 2: red to the left, green up, blue near"
    channels: int = 3
    degrades: Degraded = "maps"

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[Array, "n H W 3"]:
        """Unit vectors, by `normals_of_depth`."""
        chunks = {} if frames_per_chunk is None else {"frames_per_chunk": frames_per_chunk}
        return normals_of_depth(networks[self.part].estimate(pixels_to_images(frames), **chunks))

    def normalise(self, maps: Maps) -> Maps:
        """The same: vectors are in [-1, 1]."""
        return maps

    def transformed(self, maps: Maps, scale: tuple[float, float] = (1.0, 1.0), mirrored: bool = False) -> Maps:
        """Left becomes right where pictures were mirrored; they were scaled alike along both axes."""
        return maps * jnp.array([-1.0, 1.0, 1.0]).astype(maps.dtype) if mirrored else maps


def normals_of_depth(inverse_depth: Float[Array, "n H W"]) -> Float[Array, "n H W 3"]:
    """Normals (left, up, near) of inverse depth of any scale and shift, each frame by itself.

    A network leaves scale and shift open, on which slopes depend: the farthest is taken to be `_RANGE` times as far
    away as the nearest, and the camera to see 45 degrees over the shorter side.

    With a point P = Z (x / f, y / f, 1) of pixel (x, y), the normal is dP/dx x dP/dy up to its length; divided by Z it
    is made of slopes of log Z, which depend on no unit.
    """
    d = _smooth(_smooth(inverse_depth.astype(jnp.float32), 1), 2)
    low, high = jnp.quantile(d, jnp.array([_FARTHEST, _NEAREST]), (1, 2), keepdims=True)
    share = jnp.clip((d - low) / jnp.maximum(high - low, 1e-6), 0, 1)
    log_z = -jnp.log(share + (1 - share) / _RANGE)
    down, right = _slope(log_z, 1), _slope(log_z, 2)
    height, width = d.shape[1:]
    f = _FOCAL * min(height, width)
    x, y = jnp.arange(width) - (width - 1) / 2, (jnp.arange(height) - (height - 1) / 2)[:, None]
    normals = jnp.stack([-f * right, -f * down, 1 + x * right + y * down], -1)  # left, up, near
    return normals / jnp.maximum(jnp.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)


def _smooth(x: Float[Array, "n H W"], axis: int) -> Float[Array, "n H W"]:
    """1 2 1 along an axis."""
    padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
    size = x.shape[axis]
    return sum(w * jnp.take(padded, jnp.arange(size) + i, axis) for i, w in enumerate((0.25, 0.5, 0.25)))


def _slope(x: Float[Array, "n H W"], axis: int) -> Float[Array, "n H W"]:
    """Central differences along an axis, zero across the border."""
    padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(3)], mode="edge")
    size = x.shape[axis]
    return (jnp.take(padded, jnp.arange(size) + 2, axis) - jnp.take(padded, jnp.arange(size), axis)) / 2
