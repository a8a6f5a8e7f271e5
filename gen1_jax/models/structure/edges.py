"""Edges of things as structure: white lines where one surface ends and another begins, or bends sharply.

Unlike those of "canny", edges of texture and of shadows are none: what a thing is painted with is content. Worlds have
them exactly (`synthetic.maps.exact_edges`). Of footage they are estimated by OpenCV's Canny operator on frames whose
texture a bilateral filter has flattened (Tomasi and Manduchi, "Bilateral Filtering for Gray and Color Images", 1998).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gen1_jax.models.structure.canny import Canny
from gen1_jax.models.structure.kind import Degraded
from gen1_jax.models.structure.pictures import opencv


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edges(Canny):
    """Borders and creases. See `StructureKind`.

    Attributes:
        rounds: of the bilateral filter.
    """

    name: str = "edges"
    looks: str = "white lines on black, where surfaces end or bend"
    degrades: Degraded = "nothing"
    rounds: int = 3

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows, and how it is estimated."""
        return {**super().contract, "rounds": self.rounds}

    def _prepared(self, frame: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """A frame without its texture."""
        cv2 = opencv(self.name)
        for _ in range(self.rounds):
            frame = cv2.bilateralFilter(frame, 5, 40, 3)
        return frame
