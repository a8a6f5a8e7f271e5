"""Motion between frames, and what is moved by it."""

import itertools
from functools import partial

import numpy as np
from jaxtyping import Float32

from gen1_jax.editing.structures import Frames
from gen1_jax.models.structure.flow import estimated_flow


def flows_between(frames: Frames) -> list[tuple[Float32[np.ndarray, "H W 2"], Float32[np.ndarray, "H W 2"]]]:
    """Of every two neighbouring frames the flow forward and the flow back."""
    flow = partial(estimated_flow, finest_scale=0)  # frames of the model's size are small
    return [(flow(a, b), flow(b, a)) for a, b in itertools.pairwise(frames)]


def carried(mask: Float32[np.ndarray, "H W"], flow: Float32[np.ndarray, "H W 2"]) -> Float32[np.ndarray, "H W"]:
    """A mask looked up along a flow, from the frame where it is wanted to the one where it is known."""
    return looked_up(mask, flow)


def looked_up(
    picture: Float32[np.ndarray, "H W *c"], flow: Float32[np.ndarray, "H W 2"]
) -> Float32[np.ndarray, "H W *c"]:
    """A picture or a mask where a flow leads to, bilinearly; beyond the border, the border."""
    import cv2

    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
