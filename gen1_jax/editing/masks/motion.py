"""Motion between frames, and what is moved by it."""

import itertools

import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.editing.structures import Frames


def estimated_flow(here: UInt8[np.ndarray, "H W 3"], there: UInt8[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 2"]:
    """Pixels right and down, from each place in one frame to where it is in the other.

    Source: https://arxiv.org/abs/1603.03590 (dense inverse search), as OpenCV has it.
    """
    import cv2

    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)  # frames of the model's size are small
    return estimator.calc(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (here, there)), None)


def flows_between(frames: Frames) -> list[tuple[Float32[np.ndarray, "H W 2"], Float32[np.ndarray, "H W 2"]]]:
    """Of every two neighbouring frames the flow forward and the flow back."""
    return [(estimated_flow(a, b), estimated_flow(b, a)) for a, b in itertools.pairwise(frames)]


def carried(mask: Float32[np.ndarray, "H W"], flow: Float32[np.ndarray, "H W 2"]) -> Float32[np.ndarray, "H W"]:
    """A mask looked up along a flow, from the frame where it is wanted to the one where it is known."""
    import cv2

    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(mask, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
