"""Canny edges as structure: white lines on black, where luminance or a colour changes abruptly.

J. Canny, "A Computational Approach to Edge Detection", 1986; with OpenCV's operator and the thresholds that are usual
for ControlNets. The detector runs on the host.

t_s blurs the frames, and so lowers the slopes: 1 leaves outlines, 2 a few strong ones, 3 and more hardly anything.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from gen1_jax.models.module import Bound
from gen1_jax.models.structure.kind import Frames
from gen1_jax.models.structure.pictures import PictureKind, opencv


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canny(PictureKind):
    """Edges without a network. See `StructureKind`.

    Attributes:
        thresholds: of the gradient of uint8 pixels (the sum of both absolute Sobel slopes): edges go on above the lower
            one from where they are above the higher one.
    """

    runs_on_host: ClassVar[bool] = True
    across_frames: ClassVar[bool] = False
    name: str = "canny"
    looks: str = "white edges on black"
    thresholds: tuple[int, int] = (100, 200)

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows, and the thresholds."""
        return {**super().contract, "thresholds": list(self.thresholds)}

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[np.ndarray, "n H W 1"]:
        """1 on edges and 0 elsewhere.

        Raises:
            UserError: OpenCV cannot be imported.
        """
        cv2 = opencv(self.name)
        edges = [cv2.Canny(self._prepared(frame), *self.thresholds) for frame in np.ascontiguousarray(frames)]
        return np.stack(edges)[..., None].astype(np.float32) / 255

    def _prepared(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """What of a frame the operator sees."""
        return frame
