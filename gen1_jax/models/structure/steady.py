"""Inverse depth of a clip of any length from windows of it, each of which is estimated up to a scale and a shift.

    window 0    0 ...... 12 ............ 31
    window 1    0 12 | 24 ... 31 | 32 ............ 53        two keyframes, eight frames that fade over, new ones
    window 2    0 .. | 46 ... 53 | 54 ............ 75

A window is brought to the scale and shift of those before it by its keyframes, of which one is always the first frame
of the clip, so that little drifts; then one fades into the other. Frames come and go in pieces: memory does not grow
with the clip. The scheme of https://github.com/DepthAnything/Video-Depth-Anything, for windows of any length.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, UInt8


def steady_depth(
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    estimate: Callable[[UInt8[np.ndarray, "n H W 3"]], Float[np.ndarray, "n H W"]],
    window: int,
) -> Iterator[Float[np.ndarray, "_ H W"]]:
    """Inverse depth of all frames, not negative, in pieces.

    Args:
        frames: of one clip, in order.
        estimate: of `window` frames together, the last of which may come several times.
        window: at least 4.
    """
    middle, fade = 3 * window // 8, window // 4
    source = iter(frames)
    seen = list(itertools.islice(source, window))
    depth = _estimate(seen, estimate, window)
    anchors = depth[[0, min(middle, len(depth) - 1)]]
    while new := list(itertools.islice(source, window - 2 - fade)):
        yield depth[:-fade]
        seen = [seen[0], seen[middle], *seen[-fade:], *new]
        found = _estimate(seen, estimate, window)
        scale, shift = scale_and_shift(found[:2], anchors)
        found = np.maximum(found * scale + shift, 0)
        weight = np.linspace(0, 1, fade, dtype=np.float32)[:, None, None]
        faded = (1 - weight) * depth[-fade:] + weight * found[2 : 2 + fade]
        depth = np.concatenate([faded, found[2 + fade :]])
        anchors = np.stack([anchors[0], found[min(middle, len(found) - 1)]])
    yield depth


def scale_and_shift(
    depth: Float[np.ndarray, "*shape"], wanted: Float[np.ndarray, "*shape"]
) -> tuple[np.float32, np.float32]:
    """(s, b), so that s depth + b is nearest to what is wanted (least squares).

    Depth that is constant, or would be turned upside down, is only shifted.
    """
    x, y = depth.astype(np.float64), wanted.astype(np.float64)
    variance = x.var()
    scale = ((x - x.mean()) * (y - y.mean())).mean() / variance if variance > 0 else 0.0
    scale = scale if scale > 0 else 1.0
    return np.float32(scale), np.float32(y.mean() - scale * x.mean())


def _estimate(seen: list[np.ndarray], estimate: Callable, window: int) -> Float[np.ndarray, "_ H W"]:
    """Of fewer frames than a window has, the last one is repeated."""
    filled = np.stack(seen + seen[-1:] * (window - len(seen)))
    return np.asarray(estimate(filled), np.float32)[: len(seen)]
