"""`StructureKind`: the protocol of depth, edges, poses and whatever else of a clip a model is told to keep."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from gen1_jax.models.module import Bound

Frames = UInt8[Array, "n H W 3"] | UInt8[np.ndarray, "n H W 3"]
EncodeImages = Callable[[Float[Array, "*batch H W 3"]], Float[Array, "*batch h w c"]]
"""Pictures in [-1, 1] to latents: `AutoencoderKL.images_to_latents`, bound to its parameters."""


@runtime_checkable
class StructureKind(Protocol):
    """One kind of structure. Its methods are pure functions of JAX, inside and outside a jit.

    Attributes:
        name: in recipes, on the command line, as a key of `Conditions.structure` and `Batch.structure`.
        part: the network of the family that estimates it, "depth" for depth; None if it needs none.
        channels: k, of its maps.
        contract: how its maps come about, as JSON values: data made in one way do not fit a model trained in another.
    """

    name: str
    part: str | None
    channels: int

    @property
    def contract(self) -> Mapping[str, Any]: ...

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[Array, "n H W k"]:
        """Maps as they are estimated, each of its frame alone, so that a clip may be given in pieces.

        Args:
            frames: sRGB, of the model's size.
            networks: has `part`.
            frames_per_chunk: how many a network sees at once; None for its own number.
        """
        ...

    def normalise(self, maps: Float[Array, "*batch t H W k"]) -> Float[Array, "*batch t H W k"]:
        """Estimated (or recorded) maps to [-1, 1], over all the frames that the model is shown in one example."""
        ...

    def degrade(self, maps: Float[Array, "b t H W k"], level: Int[Array, " b"]) -> Float[Array, "b t H W k"]:
        """Normalised maps with less detail: t_s, 0 to `MAX_STRUCTURE_LEVEL`, of each clip, may be traced."""
        ...

    def encode(self, maps: Float[Array, "b t H W k"], encode_images: EncodeImages) -> Float[Array, "b t h w c"]:
        """Latents of normalised, degraded maps: pictures of three channels through the autoencoder."""
        ...
