"""Frames, or parts of them, that are given: what the edit keeps and goes on from, for models with an input for it.

{0: painted.png} or frames and a mask ──fitted──► KnownClip ──encode──► KnownLatents ─┬─► the input "known"
keyframes, or the last frames of a chunk before ──────────────────────────────────────┴─► kept at every step
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from jaxtyping import Array, Bool, Float, Int, UInt8

from gen1_jax.data.prepare_geometry import cover
from gen1_jax.editing.inputs import Clip, Picture, resize, resize_frames, to_frames, to_picture
from gen1_jax.editing.maps import ClipGeometry, check_shape
from gen1_jax.editing.sampling import Known
from gen1_jax.errors import UserError, counted
from gen1_jax.media import read_image

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

KnownFrames = Mapping[int, Picture] | tuple[Clip, np.ndarray]
"""Pictures by the number of their frame; or frames of a whole clip and a mask (T, H, W), 1 where they count."""


class KnownClip(NamedTuple):
    """What is given of a clip, at the model's size.

    Attributes:
        frames: any where nothing is given.
        mask: where something is.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    mask: Bool[np.ndarray, "t h w"]

    @classmethod
    def of(cls, known: KnownFrames, count: int, size: tuple[int, int]) -> "KnownClip":
        """What a user gives.

        Args:
            known: of any size.
            count: frames of the clip.
            size: (height, width) that the model works at.

        Raises:
            UserError: a frame that the clip does not have, or a mask that is not of the frames.
        """
        if not isinstance(known, Mapping):
            return cls._of_frames(*known, count, size)
        if not known:
            raise UserError("known is empty: name at least one frame")
        frames, mask = np.zeros((count, *size, 3), np.uint8), np.zeros((count, *size), bool)
        for index, picture in known.items():
            if not -count <= index < count:
                raise UserError(f"known frame {index}: the clip has {counted(count, 'frame')}, counted from 0")
            frames[index], mask[index] = resize(to_picture(picture, f"known frame {index}"), size), True
        return cls(frames, mask)

    @classmethod
    def _of_frames(cls, clip: Clip, mask: np.ndarray, count: int, size: tuple[int, int]) -> "KnownClip":
        frames, mask = to_frames(clip), np.asarray(mask)
        if len(frames) != count or mask.shape != frames.shape[:3]:
            raise UserError(
                f"known is {counted(len(frames), 'frame')} of {frames.shape[2]}x{frames.shape[1]} and a mask of shape "
                f"{mask.shape}: give {count}, and a mask (T, H, W) of them"
            )
        grey = (np.clip(mask.astype(np.float32), 0, 1) * 255).astype(np.uint8)
        small = [resize(np.repeat(frame[..., None], 3, -1), size)[..., 0] > 127 for frame in grey]
        return cls(resize_frames(frames, size), np.stack(small))

    def encoded(
        self, encode: Callable[[UInt8[np.ndarray, "t h w 3"]], Float[Array, "1 t i j c"]], downscale: int
    ) -> "KnownLatents":
        """Their latents; one is given where all of its pixels are."""
        whole = reduce(self.mask, "t (h i) (w j) -> 1 t h w 1", "min", i=downscale, j=downscale)
        return KnownLatents(encode(self.frames), jnp.asarray(whole, jnp.float32))


class KnownLatents(NamedTuple):
    """What is given of B clips; a pytree.

    Attributes:
        latents: clean, any where nothing is given.
        mask: 1 where something is, else 0.
    """

    latents: Float[Array, "b t h w c"]
    mask: Float[Array, "b t h w 1"]

    @classmethod
    def beginning(cls, before: Float[Array, "b r h w c"], count: int) -> "KnownLatents":
        """The first frames of a chunk of `count`, for it to go on from what came before.

        Latents rather than pictures, so that nothing goes through the autoencoder again and again.
        """
        b, r, *rest = before.shape
        latents = jnp.zeros((b, count, *rest), before.dtype).at[:, :r].set(before)
        return cls(latents, jnp.zeros((b, count, *rest[:-1], 1)).at[:, :r].set(1))

    @classmethod
    def of(cls, kept: Known) -> "KnownLatents":
        """What a run leaves as it is, where nothing of it may change."""
        return cls(kept.latents, (jnp.asarray(kept.change) == 0).astype(jnp.float32))

    @property
    def whole(self) -> list[int]:
        """The numbers of the frames all of which is given, in every clip."""
        return np.flatnonzero(np.asarray(self.mask).min((0, 2, 3, 4)) > 0).tolist()

    def at(self, indices: Int[np.ndarray, " k"]) -> "KnownLatents":
        """Of some of the frames, by their numbers."""
        return jax.tree.map(lambda x: x[:, indices], self)

    def over(self, other: "KnownLatents | None") -> "KnownLatents":
        """Of both; where both are given, this."""
        if other is None:
            return self
        return KnownLatents(self.on(other.latents), jnp.maximum(self.mask, other.mask))

    def on(self, latents: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
        """Latents with this in its place, of which the last step of a solver leaves a trace of noise."""
        return jnp.where(self.mask > 0, self.latents, latents)

    def kept(self, beside: Known | None = None) -> Known:
        """What a run leaves as it is: this, and what else it is to leave."""
        if beside is None:
            return Known(self.latents, 1 - self.mask)
        return Known(self.on(beside.latents), beside.change * (1 - self.mask))


def keyframe_pictures(keyframes: Sequence[tuple[int, str | Path]], geometry: ClipGeometry) -> dict[int, Picture] | None:
    """The pictures of `EditRequest.keyframes` by the number of their frame, cropped as the clip is; None for none.

    Raises:
        UserError: one is of another shape than the clip; `MediaError` for a file that cannot be read.
    """
    pictures = {}
    for index, path in keyframes:
        picture = read_image(path, geometry.limits)
        height, width, _ = picture.shape
        if geometry.crop is None:
            check_shape(str(path), "a keyframe", (height, width), Fraction(1), geometry)
        else:
            box = cover((0, 0, width, height), geometry.crop[::-1])
            picture = resize(picture, geometry.crop[::-1], box)
        pictures[index] = picture
    return pictures or None


def read_known(
    pipeline: "Gen1Pipeline", known: KnownFrames | None, count: int, size: tuple[int, int]
) -> KnownLatents | None:
    """What a user gives, as a model takes it.

    Args:
        pipeline: encodes it.
        known: of any size; None for nothing.
        count: frames of the clip.
        size: (height, width) that the model works at.

    Raises:
        UserError: the model has no input for it; see also `KnownClip.of`.
    """
    if known is None:
        return None
    if not pipeline.config.unet.known:
        raise UserError(
            f"{pipeline.source.name} has no input for known frames: take a model that has one (nano2, or what "
            f"configs/nano2.py makes of another), or keep a region of the video by a mask"
        )
    return KnownClip.of(known, count, size).encoded(pipeline.encode_frames, pipeline.config.vae.downscale)
