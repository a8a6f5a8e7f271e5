"""Edit the first frame, carry it along the motion: the baseline that no model is needed for but an image one."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.evaluation.pictures import warp

Clips = UInt8[np.ndarray, "n t h w 3"]


def propagate_first(first: UInt8[np.ndarray, "n 1 h w 3"], flow: Float32[np.ndarray, "n t h w 2"]) -> Clips:
    """Every frame looked up in the first one.

    Args:
        first: the edited first frames.
        flow: pixels, to where what is seen was in frame 0. What was hidden there is taken from what hid it, what was
            outside from the border.
    """
    clips = [_warp(np.repeat(a, f.shape[0], axis=0)[None], f[None])[0] for a, f in zip(first, flow, strict=True)]
    return np.stack(clips)


def propagate_stepwise(first: UInt8[np.ndarray, "n 1 h w 3"], flow: Float32[np.ndarray, "n t h w 2"]) -> Clips:
    """Every frame looked up in the one before.

    Args:
        first: see `propagate_first`.
        flow: pixels, to where what is seen was in the frame before; that of frame 0 is not used.
    """
    frames = [first]
    for index in range(1, flow.shape[1]):
        frames.append(_warp(frames[-1], flow[:, index : index + 1]))
    return np.concatenate(frames, axis=1)


def _warp(clips: Clips, flow: np.ndarray) -> Clips:
    seen, _ = _look(jnp.asarray(clips, jnp.float32), jnp.asarray(flow))
    return np.rint(np.asarray(seen)).astype(np.uint8)


_look = jax.jit(warp)


def estimate_backward_flow(clips: Clips) -> Float32[np.ndarray, "n t h w 2"]:
    """Pixels, to where what is seen was in the frame before, by TV-L1; zeros for frame 0.

    Source: https://doi.org/10.1007/978-3-540-74936-3_22, as scikit-image has it.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError:
        raise ValueError('estimated flow needs scikit-image: pip install "gen1-jax[evaluate]"') from None
    grey = clips.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32) / 255

    def estimate(clip: np.ndarray) -> np.ndarray:
        flow = np.zeros((*clip.shape, 2), np.float32)
        for index in range(1, len(clip)):
            down, right = optical_flow_tvl1(clip[index], clip[index - 1])
            flow[index] = np.stack([right, down], axis=-1)
        return flow

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(estimate, grey)))
