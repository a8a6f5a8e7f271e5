"""Edit the first frame, carry it along the motion: the baseline that no model is needed for but an image one."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.measures import warp


def propagate_first(first: UInt8[np.ndarray, "n 1 h w 3"], flow: Float32[np.ndarray, "n t h w 2"]) -> EditClips:
    """Every frame looked up in the first one.

    Args:
        first: the edited first frames.
        flow: pixels, to where what is seen was in frame 0. What was hidden there is taken from what hid it, what was
            outside from the border.
    """
    clips = [_warp(np.repeat(a, f.shape[0], axis=0)[None], f[None])[0] for a, f in zip(first, flow, strict=True)]
    return np.stack(clips)


def propagate_stepwise(first: UInt8[np.ndarray, "n 1 h w 3"], flow: Float32[np.ndarray, "n t h w 2"]) -> EditClips:
    """Every frame looked up in the one before.

    Args:
        first: the edited first frames.
        flow: pixels, to where what is seen was in the frame before; that of frame 0 is not used.
    """
    frames = [first]
    for index in range(1, flow.shape[1]):
        frames.append(_warp(frames[-1], flow[:, index : index + 1]))
    return np.concatenate(frames, axis=1)


def _warp(clips: EditClips, flow: np.ndarray) -> EditClips:
    seen, _ = _look(jnp.asarray(clips, jnp.float32), jnp.asarray(flow))
    return np.rint(np.asarray(seen)).astype(np.uint8)


_look = jax.jit(warp)
