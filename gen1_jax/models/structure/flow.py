"""Motion as structure: how far what a pixel shows goes until the next frame, whatever it looks like.

Maps are (right, down) in pixels of their size. As pictures they have a fixed scale, so that the same motion looks the
same in every clip: `reach` of the shorter side is full red or green, stillness is grey; the root spreads small motions.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure.kind import Degraded, Frames, Maps
from gen1_jax.models.structure.pictures import PictureKind, opencv


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow(PictureKind):
    """Optical flow; of footage by OpenCV's DIS (https://arxiv.org/abs/1603.03590). See `StructureKind`.

    Attributes:
        reach: the motion of a frame that is 1 in pictures, as a share of the shorter side.
    """

    runs_on_host: ClassVar[bool] = True
    across_frames: ClassVar[bool] = True
    name: str = "flow"
    looks: str = "sign(v) sqrt(|v| / reach): red to the right, green down, grey where nothing moves"
    channels: int = 2
    degrades: Degraded = "maps"
    reach: float = 0.125

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows, and its scale."""
        return {**super().contract, "reach": self.reach}

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[np.ndarray, "n H W 2"]:
        """Pixels to the next frame; the last one moves on as it did before.

        Raises:
            UserError: OpenCV cannot be imported.
        """
        frames = np.ascontiguousarray(frames)
        if len(frames) == 1:
            return np.zeros((*frames.shape[:3], 2), np.float32)
        flow = [estimated_flow(here, there) for here, there in itertools.pairwise(frames)]
        return np.stack([*flow, flow[-1]])

    def from_pictures(self, pictures: Frames) -> Float[Array, "n H W 2"]:
        """Red and green."""
        return pixels_to_images(pictures)[..., :2]

    def normalise(self, maps: Maps) -> Maps:
        """Pixels to [-1, 1] at the fixed scale; what moves farther is cut off."""
        share = maps / (self.reach * min(maps.shape[-3:-1]))
        return jnp.clip(jnp.sign(share) * jnp.sqrt(jnp.abs(share)), -1, 1)

    def transformed(self, maps: Maps, scale: tuple[float, float] = (1.0, 1.0), mirrored: bool = False) -> Maps:
        """Motions are as long as pictures are large, and go the other way where these are mirrored."""
        down, right = scale
        return (maps * np.array([-right if mirrored else right, down])).astype(maps.dtype)

    def _in_colours(self, maps: Float[Array, "b t H W 2"]) -> Float[Array, "b t H W 3"]:
        """Red and green, with blue in the middle."""
        return jnp.concatenate([maps, jnp.zeros_like(maps[..., :1])], axis=-1)


def estimated_flow(
    here: UInt8[np.ndarray, "H W 3"], there: UInt8[np.ndarray, "H W 3"], *, finest_scale: int | None = None
) -> Float32[np.ndarray, "H W 2"]:
    """Pixels right and down, from each place in one frame to where it is in the other.

    Source: https://arxiv.org/abs/1603.03590 (dense inverse search), as OpenCV has it.

    Args:
        here, there: sRGB.
        finest_scale: how often frames are halved for the last search; None for OpenCV's own.

    Raises:
        UserError: OpenCV cannot be imported.
    """
    cv2 = opencv("flow")
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if finest_scale is not None:
        estimator.setFinestScale(finest_scale)
    return estimator.calc(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (here, there)), None)
