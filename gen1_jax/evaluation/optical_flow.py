"""Motion estimated from pictures alone, as an editor of real footage would have to."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.errors import UserError

_CLIPS_A_WORKER = 8  # fewer are not worth the start of a process


def estimate_backward_flow(clips: UInt8[np.ndarray, "n t h w 3"]) -> Float32[np.ndarray, "n t h w 2"]:
    """Pixels, to where what is seen was in the frame before, by TV-L1; zeros for frame 0.

    Many clips are divided among processes, for it is Python that takes the time.

    Source: https://doi.org/10.1007/978-3-540-74936-3_22, as scikit-image has it.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        import skimage.registration  # noqa: F401
    except ImportError:
        raise UserError('estimated flow needs scikit-image: pip install "gen1-jax[evaluate]"') from None
    grey = clips.astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32) / 255
    workers = min(os.cpu_count() or 1, len(clips) // _CLIPS_A_WORKER)
    if workers < 2:
        return np.stack([_flow(clip) for clip in grey])
    context = multiprocessing.get_context("spawn")  # forking a process that has threads, as JAX has, hangs
    with ProcessPoolExecutor(workers, context) as pool:
        return np.stack(list(pool.map(_flow, grey)))


def _flow(clip: Float32[np.ndarray, "t h w"]) -> Float32[np.ndarray, "t h w 2"]:
    from skimage.registration import optical_flow_tvl1

    flow = np.zeros((*clip.shape, 2), np.float32)
    for index in range(1, len(clip)):
        down, right = optical_flow_tvl1(clip[index], clip[index - 1])
        flow[index] = np.stack([right, down], axis=-1)
    return flow
