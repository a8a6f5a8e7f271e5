"""Depth as structure: inverse depth of a clip, normalised, blurred t_s times, as the pictures that are encoded.

arXiv 2302.03011, section 3.2. Where the paper is silent: near is bright, and depth is normalised over all the frames
that the model is shown in one example: the window that training draws, the whole clip of an edit. Depth that
`gen1 precompute` encodes is normalised over the clip that it stores, and stays so in every window and image of it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, UInt8

from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure.blur import blur
from gen1_jax.models.structure.kind import Degraded, EncodeImages, FrameMaps, Frames, Maps, Resampling
from gen1_jax.models.structure.steady import aligned_frames, steady_depth

Quantiles = tuple[float, float]
ClipFrames = UInt8[Array, "b t H W 3"] | UInt8[np.ndarray, "b t H W 3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depth:
    """Inverse depth as the family's depth network estimates it. See `StructureKind`.

    Attributes:
        quantiles: see `normalise_depth`; a model is used with those that it was trained with.
        steady: whether frames that are estimated alone are brought to each other's scale and shift, see `steady`.
    """

    name: ClassVar[str] = "depth"
    part: ClassVar[str | None] = "depth"
    is_estimated: ClassVar[bool] = True
    runs_on_host: ClassVar[bool] = False
    across_frames: ClassVar[bool] = False
    channels: ClassVar[int] = 1
    degrades: ClassVar[Degraded] = "maps"
    resampling: ClassVar[Resampling] = "area"
    quantiles: Quantiles = (0.0, 1.0)
    steady: bool = False

    def __post_init__(self):
        _check(self.quantiles)

    @property
    def contract(self) -> Mapping[str, Any]:
        """Polarity, support and range of the normalisation."""
        return {
            "polarity": "near is large",
            "support": "all frames that are encoded together",
            "quantiles": list(self.quantiles),
            "range": [-1, 1],
        }

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[Array, "n H W 1"]:
        """Inverse depth of any scale and shift."""
        chunks = {} if frames_per_chunk is None else {"frames_per_chunk": frames_per_chunk}
        return networks[self.part].estimate(pixels_to_images(frames), **chunks)[..., None]

    def estimate_clips(
        self, clips: ClipFrames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[Array, "b t H W 1"]:
        """The same of clips, whose frames the network sees together if it has layers between frames.

        Raises:
            UserError: a clip is longer than what it sees at once: for `steady_depth`.
        """
        network, (batch, count) = networks[self.part], clips.shape[:2]
        if not (window := network.config.temporal_frames):
            maps = self.estimate(rearrange(clips, "b t ... -> (b t) ..."), networks, frames_per_chunk)
            return rearrange(maps, "(b t) ... -> b t ...", b=batch)
        if count > window:
            raise UserError(f"clips of {count} frames: this model's depth network sees {window} at once")
        index = np.minimum(np.arange(window), count - 1)  # it was trained on as many, the last one repeated
        chunks = {} if frames_per_chunk is None else {"frames_per_chunk": frames_per_chunk}
        return network.estimate_clips(pixels_to_images(clips[:, index]), **chunks)[:, :count, ..., None]

    def in_pieces(
        self,
        frames: Iterable[np.ndarray],
        networks: Mapping[str, Bound],
        alone: Callable[[Iterable[np.ndarray]], Iterator[FrameMaps]],
    ) -> Iterator[FrameMaps]:
        """What is estimated of one clip, piece by piece.

        Args:
            frames: (H, W, 3) each, in order.
            networks: has `part`.
            alone: `estimate` of frames in pieces. Of a network with layers between frames it is windows instead
                (`steady_depth`); and if it is to be `steady`, frames are brought to each other (`aligned_frames`).
        """
        if window := networks[self.part].config.temporal_frames:
            together = lambda clip: self.estimate_clips(clip[None], networks)[0, ..., 0]
            pieces = steady_depth(frames, together, window)
        elif self.steady:
            pieces = aligned_frames(np.asarray(piece)[..., 0] for piece in alone(frames))
        else:
            return alone(frames)
        return (piece[..., None] for piece in pieces)

    def from_pictures(self, pictures: Frames) -> Float[Array, "n H W 1"]:
        """The mean of their channels: 0 is the farthest, 255 the nearest."""
        return pixels_to_images(pictures).mean(-1, keepdims=True)

    def normalise(self, maps: Float[Array, "*batch t H W 1"]) -> Float[Array, "*batch t H W 1"]:
        """See `normalise_depth`."""
        return normalise_depth(maps[..., 0], self.quantiles)[..., None]

    def transformed(self, maps: Maps, scale: tuple[float, float] = (1.0, 1.0), mirrored: bool = False) -> Maps:
        """The same: depth is depth at any size."""
        return maps

    def degrade(self, maps: Float[Array, "b t H W 1"], level: Int[Array, " b"]) -> Float[Array, "b t H W 1"]:
        """See `blur`."""
        return blur(maps, level)

    def encode(self, maps: Float[Array, "b t H W 1"], encode_images: EncodeImages) -> Float[Array, "b t h w c"]:
        """As pictures of three equal channels."""
        return encode_images(jnp.repeat(maps, 3, axis=-1))

    def hint(self, maps: Float[Array, "b t H W 1"]) -> Float[Array, "b t H W 3"]:
        """Grey: the farthest is black, the nearest is white."""
        return jnp.repeat((maps + 1) / 2, 3, axis=-1)


def normalise_depth(
    depth: Float[Array, "*batch t h w"], quantiles: Quantiles = (0.0, 1.0)
) -> Float[Array, "*batch t h w"]:
    """Inverse depth of any scale and shift to [-1, 1] over the frames given, near is 1. Constant depth becomes 0.

    Args:
        depth: all the frames that the model is shown in one example.
        quantiles: of depth, which become -1 and 1; what lies beyond them is cut off. (0, 1) are the least and the
            largest value, which may hang on single pixels; (0.01, 0.99), say, do not.

    Raises:
        ValueError: quantiles that do not ascend within 0 ... 1.
    """
    _check(quantiles)
    axes = (-3, -2, -1)
    if quantiles == (0, 1):
        low, high = depth.min(axes, keepdims=True), depth.max(axes, keepdims=True)
    else:
        low, high = jnp.quantile(depth.astype(jnp.float32), jnp.array(quantiles), axes, keepdims=True)
        depth = jnp.clip(depth, low, high)
    return depth_between(depth, low, high)


def depth_between(
    depth: Float[Array, "*batch t h w"], low: Float[Array, "*any"] | float, high: Float[Array, "*any"] | float
) -> Float[Array, "*batch t h w"]:
    """Inverse depth in [low, high] to [-1, 1]; 0 if these are equal."""
    span = high - low
    return jnp.where(span > 0, (depth - low) / jnp.where(span > 0, span, 1) * 2 - 1, 0)


def blur_depth(depth: Float[Array, "b t h w"], structure_level: Int[Array, " b"]) -> Float[Array, "b t h w"]:
    """`blur` of depth without its axis of one channel."""
    return blur(depth[..., None], structure_level)[..., 0]


def structure_images(depth: Float[Array, "b t h w"], structure_level: Int[Array, " b"]) -> Float[Array, "b t h w 3"]:
    """What the autoencoder encodes: blurred depth in [-1, 1] as three equal channels.

    Args:
        depth: from `normalise_depth`.
        structure_level: t_s of each clip, 0 to 7.
    """
    return jnp.repeat(blur(depth[..., None], structure_level), 3, axis=-1)


def _check(quantiles: Quantiles) -> None:
    if not 0 <= quantiles[0] < quantiles[1] <= 1:
        raise UserError(f"quantiles {quantiles} of depth do not ascend within 0 ... 1")
