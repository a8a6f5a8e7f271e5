"""An edit over its source, in pixels: outside of the mask the source stays as it is, number by number."""

import numpy as np
from jaxtyping import Float32, UInt8


def feathered(mask: Float32[np.ndarray, "H W"], feather: float | int) -> Float32[np.ndarray, "H W"]:
    """How much of the edit is seen: none outside of the mask, all of it deeper inside than `feather` pixels.

    The border of the picture is no border of the mask.

    Args:
        mask: in [0, 1].
        feather: pixels over which the edit fades in, inwards; 0 for none.
    """
    if feather <= 0:
        return mask
    import cv2

    depth = cv2.distanceTransform((mask > 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(mask, np.minimum(depth / np.float32(feather + 1), np.float32(1)))


def composited(
    source: UInt8[np.ndarray, "H W 3"], edit: UInt8[np.ndarray, "H W 3"], weight: Float32[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """The source where the weight is 0, the edit where it is 1, exactly; rounded between."""
    below = source.astype(np.float32)
    return np.rint(below + weight[..., None] * (edit - below)).astype(np.uint8)
