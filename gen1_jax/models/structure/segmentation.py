"""Segmentation as structure: a colour for each thing, the same in all frames of a clip and another in every clip.

Colours say nothing but "the same" and "another": they are drawn at random, or a model would learn what thing has which.
That is how it differs from "seg", the maps of ControlNets, whose colours are those of classes of things.

Worlds have regions exactly: objects, set, ground, sky. Of footage they are clusters of colour and place (k-means, on
features as SLIC's, https://doi.org/10.1109/TPAMI.2012.120) of all frames together, so that they last as long as it.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from gen1_jax.models.module import Bound
from gen1_jax.models.structure.kind import Degraded, Frames, Resampling
from gen1_jax.models.structure.pictures import PictureKind, opencv

_FITTED = 20_000  # pixels that clusters are found from
_PLACE = 0.6  # how much place counts beside colour


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation(PictureKind):
    """Regions in colours of chance. See `StructureKind`.

    Attributes:
        regions: of an estimate, at most.
    """

    runs_on_host: ClassVar[bool] = True
    name: str = "segmentation"
    looks: str = "a colour for each thing of the clip, of chance"
    channels: int = 3
    degrades: Degraded = "nothing"
    resampling: Resampling = "nearest"
    regions: int = 10

    @property
    def contract(self) -> Mapping[str, Any]:
        """What a map shows, and how many regions are estimated."""
        return {**super().contract, "regions": self.regions}

    def estimate(
        self, frames: Frames, networks: Mapping[str, Bound], frames_per_chunk: int | None = None
    ) -> Float[np.ndarray, "n H W 3"]:
        """Colours of `estimate_regions`, in [0, 1]; of the same frames always the same.

        Raises:
            UserError: OpenCV cannot be imported.
        """
        labels = estimate_regions(np.asarray(frames), self.regions)
        return colours_of(labels, zlib.crc32(labels.tobytes()))


def colours_of(
    labels: Int[np.ndarray, "n H W"] | UInt8[np.ndarray, "n H W"], seed: int
) -> Float32[np.ndarray, "n H W 3"]:
    """A colour for each label, in [0, 1]: far from each other, and others for another seed.

    Points of a low-discrepancy sequence (http://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/)
    from a random one on, in random order.
    """
    rng = np.random.default_rng(seed)
    count = int(labels.max()) + 1
    steps = rng.permutation(count)[:, None] * np.array([0.8191725134, 0.6710436067, 0.5497004779])
    return ((rng.random(3) + steps) % 1).astype(np.float32)[labels]


def estimate_regions(frames: UInt8[np.ndarray, "n H W 3"], regions: int) -> UInt8[np.ndarray, "n H W"]:
    """The number of the region of every pixel, over all frames.

    Raises:
        UserError: OpenCV cannot be imported.
    """
    cv2 = opencv("segmentation")
    from scipy.cluster.vq import kmeans2, vq

    flat = [cv2.pyrMeanShiftFiltering(np.ascontiguousarray(frame), 6, 24) for frame in frames]
    colours = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in flat]).astype(np.float32) / 128
    height, width = frames.shape[1:3]
    rows, columns = np.mgrid[:height, :width].astype(np.float32) * (_PLACE / min(height, width))
    place = np.broadcast_to(np.stack([rows, columns], -1), (*frames.shape[:3], 2))
    points = np.concatenate([colours, place], -1).reshape(-1, 5)
    fitted = points[:: max(1, len(points) // _FITTED)]
    centres, _ = kmeans2(fitted, min(regions, len(fitted)), minit="++", seed=0, missing="warn")
    labels = vq(points, centres)[0].reshape(frames.shape[:3])
    return np.stack([_smoothed(cv2, frame, len(centres)) for frame in labels])


def _smoothed(cv2, labels: Int[np.ndarray, "H W"], count: int) -> UInt8[np.ndarray, "H W"]:
    """The most frequent label around each pixel."""
    votes = [cv2.blur((labels == label).astype(np.float32), (5, 5)) for label in range(count)]
    return np.argmax(votes, axis=0).astype(np.uint8)
