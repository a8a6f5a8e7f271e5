"""Edges of things as structure: white lines where one surface ends and another begins, or bends sharply.

Unlike those of "canny", edges of texture and of shadows are none: what a thing is painted with is content. Worlds have
them exactly (`synthetic.maps.exact_edges`). Of footage they are estimated by OpenCV's Canny operator on frames whose
texture a bilateral filter has flattened (Tomasi and Manduchi, "Bilateral Filtering for Gray and Color Images", 1998).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from gen1_jax.models.module import Bound
from gen1_jax.models.structure.kind import Degraded, Frames
from gen1_jax.models.structure.pictures import PictureKind, opencv


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges(PictureKind):
    """Borders and creases. See `StructureKind`.

    Attributes:
        thresholds: as in `Canny`.
        rounds: of the bilateral filter.
    """

    runs_on_host: ClassVar[bool] = True
    name: str = "edges"
    looks: str = "white lines on black, where surfaces end or bend"
    degrades: Degraded = "nothing"
    thresholds: tuple[int, int] = (100, 200)
    rounds: int = 3

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows, and how it is estimated."""
        return {**super().contract, "thresholds": list(self.thresholds), "rounds": self.rounds}

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[np.ndarray, "n H W 1"]:
        """1 on edges and 0 elsewhere.

        Raises:
            UserError: OpenCV cannot be imported.
        """
        cv2 = opencv(self.name)
        edges = []
        for frame in np.ascontiguousarray(frames):
            for _ in range(self.rounds):
                frame = cv2.bilateralFilter(frame, 5, 40, 3)
            edges.append(cv2.Canny(frame, *self.thresholds))
        return np.stack(edges)[..., None].astype(np.float32) / 255
