"""Soft edges as structure: how likely each pixel lies on the border of something, as the network HED sees it."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Array, Float

from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure.kind import Frames
from gen1_jax.models.structure.pictures import PictureKind


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftEdge(PictureKind):
    """Edges as the family's `HED` estimates them. See `StructureKind`."""

    part: ClassVar[str | None] = "softedge"
    name: str = "softedge"
    looks: str = "soft white edges on black"

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[Array, "n H W 1"]:
        """The network's edges, in [0, 1]."""
        chunks = {} if frames_per_chunk is None else {"frames_per_chunk": frames_per_chunk}
        return networks[self.part].estimate(pixels_to_images(frames), **chunks)[..., None]
