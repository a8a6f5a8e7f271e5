"""What an edit gives back."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from gen1_jax.editing.structures import Frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditResult:
    """An edited clip.

    Attributes:
        frames: the edit, of the size and number of the input.
        structures: what the model saw of the input at its own size, by kind: degraded maps as pictures.
        mask: what might change, of the size of the frames; None for all of it.
    """

    frames: Frames
    structures: dict[str, UInt8[np.ndarray, "t i j 3"]]
    mask: Float[np.ndarray, "t H W"] | None = None

    @property
    def structure(self) -> UInt8[np.ndarray, "t i j"] | UInt8[np.ndarray, "t i j 3"] | None:
        """The first of them, without colours if it has none: of depth, near is bright. None if there is none."""
        first = next(iter(self.structures.values()), None)
        is_grey = first is not None and (first == first[..., :1]).all()
        return first[..., 0] if is_grey else first
