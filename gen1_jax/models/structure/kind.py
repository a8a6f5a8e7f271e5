"""`StructureKind`: the protocol of depth, edges, poses and whatever else of a clip a model is told to keep."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from gen1_jax.models.module import Bound

Frames = UInt8[Array, "n H W 3"] | UInt8[np.ndarray, "n H W 3"]
FrameMaps = Float[Array, "n H W k"] | Float[np.ndarray, "n H W k"]
Maps = Float[Array, "*batch t H W k"] | Float[np.ndarray, "*batch t H W k"]
EncodeImages = Callable[[Float[Array, "*batch H W 3"]], Float[Array, "*batch h w c"]]
"""Pictures in [-1, 1] to latents: `AutoencoderKL.images_to_latents`, bound to its parameters."""

Degraded = Literal["maps", "frames", "nothing"]
"""What loses detail by t_s: the maps (`StructureKind.degrade`); the frames, before maps are estimated from them
(`blur_frames`), for lines that were blurred would be no lines; or nothing, of what has no detail to lose."""

Resampling = Literal["area", "nearest"]
"""How ready maps of another size are resampled: "nearest" where colours are labels, between which there is nothing."""


@runtime_checkable
class StructureKind(Protocol):
    """One kind of structure.

    Its methods are pure functions of JAX, inside and outside a jit; but what makes maps of pictures, `estimate` and
    `from_pictures`, is one of the host (NumPy), which no jit can trace, where it `runs_on_host`.

    Attributes:
        name: in recipes, on the command line, as a key of `Conditions.structure` and `Batch.structure`.
        part: the network of the family that estimates it, "depth" for depth; None if it needs none.
        is_estimated: whether something here estimates it; else its maps have to be given.
        runs_on_host: whether `estimate` is no function of JAX. Such a one is given all frames of a clip at once, for it
            may look from frame to frame.
        channels: k, of its maps.
        degrades: what t_s takes detail from.
        resampling: of ready maps.
        contract: how its maps come about, as JSON values: data made in one way do not fit a model trained in another.
    """

    name: str
    part: str | None
    is_estimated: bool
    runs_on_host: bool
    channels: int
    degrades: Degraded
    resampling: Resampling

    @property
    def contract(self) -> Mapping[str, Any]: ...

    def estimate(self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None) -> FrameMaps:
        """Maps as they are estimated: each of its frame alone, so that a clip may be given in pieces, but on the host.

        Args:
            frames: sRGB, of the model's size.
            networks: has `part`.
            frames_per_chunk: how many a network sees at once; None for its own number.

        Raises:
            UserError: nothing here estimates this kind: its maps have to be given.
        """
        ...

    def from_pictures(self, pictures: Frames) -> FrameMaps:
        """Normalised maps, in [-1, 1], of ready ones that were stored as pictures; a clip may be given in pieces."""
        ...

    def normalise(self, maps: Float[Array, "*batch t H W k"]) -> Float[Array, "*batch t H W k"]:
        """Estimated (or recorded) maps to [-1, 1], over all the frames that the model is shown in one example."""
        ...

    def transformed(self, maps: Maps, scale: tuple[float, float] = (1.0, 1.0), mirrored: bool = False) -> Maps:
        """What values of maps become where the pictures were scaled or mirrored, with their pixels in place already.

        The same maps for most kinds; but a normal or a motion to the left becomes one to the right.

        Args:
            maps: estimated or recorded, before `normalise`.
            scale: of height and width.
            mirrored: left for right.
        """
        ...

    def degrade(self, maps: Float[Array, "b t H W k"], level: Int[Array, " b"]) -> Float[Array, "b t H W k"]:
        """Normalised maps with less detail: t_s, 0 to `MAX_STRUCTURE_LEVEL`, of each clip, may be traced.

        The same maps where `degrades` is not "maps".
        """
        ...

    def encode(self, maps: Float[Array, "b t H W k"], encode_images: EncodeImages) -> Float[Array, "b t h w c"]:
        """Latents of normalised, degraded maps: pictures of three channels through the autoencoder."""
        ...

    def hint(self, maps: Float[Array, "b t H W k"]) -> Float[Array, "b t H W 3"]:
        """Normalised, degraded maps as the RGB pictures in [0, 1] that a ControlNet of this kind is trained on."""
        ...


def told_level(kind: StructureKind, level: Int[Array, " *b"]) -> Int[Array, " *b"]:
    """The t_s that a denoiser is told of maps of a kind: 0 where t_s takes nothing from them."""
    return jnp.zeros_like(level) if kind.degrades == "nothing" else level
