"""ComfyUI's images and masks as arrays, and arrays as these: a tensor makes tensors like itself, without torch."""

from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from gen1_jax.errors import UserError


def frames_of(images: Any) -> UInt8[np.ndarray, "t h w 3"]:
    """An IMAGE, (B, H, W, 3 or 4) from 0 to 1, as frames; what is transparent lies over black.

    Raises:
        UserError: it is no such thing.
    """
    x = np.asarray(images.cpu(), np.float32)
    if x.ndim != 4 or x.shape[-1] not in (3, 4) or 0 in x.shape:
        raise UserError(f"images must be (B, H, W, 3), got {tuple(x.shape)}")
    x = x[..., :3] * x[..., 3:] if x.shape[-1] == 4 else x
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)


def mask_of(mask: Any, frames: np.ndarray) -> Float32[np.ndarray, "..."]:
    """A MASK, (B, H, W) or (H, W), as `pipe.edit` takes one: (H, W) for all frames, or one for each.

    Raises:
        UserError: it is not of the size or number of the frames.
    """
    x = np.asarray(mask.cpu(), np.float32)
    x = x[0] if x.ndim == 3 and len(x) == 1 else x
    count, height, width, _ = frames.shape
    if x.shape not in ((height, width), (count, height, width)):
        raise UserError(
            f"mask is {' x '.join(map(str, x.shape))}, and the images are {count} x {height} x {width}: "
            "give one mask of their size, or one for each"
        )
    return np.clip(x, 0, 1)


def images_like(frames: UInt8[np.ndarray, "t h w 3"], like: Any) -> Any:
    """Frames as an IMAGE: a tensor as `like` is one."""
    return like.new_tensor(frames.astype(np.float32) / 255)


def mask_like(mask: Float[np.ndarray, "t h w"], like: Any) -> Any:
    """A mask as a MASK."""
    return like.new_tensor(np.asarray(mask, np.float32))
