"""Noise of long clips: that of the first window again and again, in other orders."""

import numpy as np
from jaxtyping import Int


def shared_noise_order(frames: int, window: int, stride: int, seed: int) -> Int[np.ndarray, " t"]:
    """Of which frame of the first window each frame of a clip has its noise.

    What is far apart so begins alike, which keeps a long clip of one look; each `stride` frames are those that lie a
    window before them, shuffled. Source: FreeNoise (https://arxiv.org/abs/2310.15169), section 3.2.

    Args:
        frames: of the clip.
        window: frames of a window; they have noise of their own.
        stride: frames that are shuffled together, at most `window`.
        seed: of the orders.
    """
    drawn, order = np.random.default_rng(seed), np.arange(frames)
    for start in range(window, frames, stride):
        block = order[start : start + stride]
        order[start : start + stride] = drawn.permutation(order[start - window : start - window + stride])[: len(block)]
    return order
