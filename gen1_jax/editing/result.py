"""What an edit gives back."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoOutput:
    """What calling a pipeline gives, as diffusers' pipelines of videos do.

    Attributes:
        frames: of every video: a list of pictures of PIL; or of all of them, float32 from 0 to 1.
        edits: the same as `pipe.edit` gives them, with the structures that were seen.
        seeds: of each.
    """

    frames: list[list[Image.Image]] | Float32[np.ndarray, "b t h w 3"]
    edits: Sequence[EditResult]
    seeds: Sequence[int]
