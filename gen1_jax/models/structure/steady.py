"""Steady inverse depth of clips of any length, from estimates that are right up to a scale and a shift each.

Of networks that see frames together, windows (`steady_depth`):

    window 0    0 ...... 12 ............ 31
    window 1    0 12 | 24 ... 31 | 32 ............ 53        two keyframes, eight frames that fade over, new ones
    window 2    0 .. | 46 ... 53 | 54 ............ 75

A window is brought to the scale and shift of those before it by its keyframes, of which one is always the first frame
of the clip, so that little drifts; then one fades into the other. The scheme of
https://github.com/DepthAnything/Video-Depth-Anything, for windows of any length.

Of networks that see each frame alone, every frame is brought to the one before (`aligned_frames`).

Frames come and go in pieces: memory does not grow with the clip.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float


def steady_depth(
    frames: Iterable[np.ndarray], estimate: Callable[[np.ndarray], Float[np.ndarray, "n H W"]], window: int
) -> Iterator[Float[np.ndarray, "_ H W"]]:
    """Inverse depth of all frames, not negative, in pieces.

    Args:
        frames: (H, W, 3) each, of one clip, in order.
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


def aligned_frames(pieces: Iterable[Float[np.ndarray, "_ H W"]]) -> Iterator[Float[np.ndarray, "_ H W"]]:
    """Frames whose scales and shifts were found alone, each with those that bring it nearest to the one before.

    Most pixels of neighbouring frames show the same; where something moves they differ, and count little. Scales come
    from deviations on both sides: least squares would shrink each frame a little, and the last of many to nothing.
    A small part of what was found is let go at every frame, so that errors do not add up without end; and all of it
    where two frames have little in common, as at a cut.
    """
    before, scale, shift = None, 1.0, 0.0
    for piece in pieces:
        steady = np.array(piece, np.float32)
        for index, frame in enumerate(piece):
            stride = max(1, round((frame.size / _PIXELS) ** 0.5))
            here = np.asarray(frame[::stride, ::stride], np.float64).ravel()
            step = None if before is None else _common_scale_and_shift(here, before)
            if step is None:
                scale, shift = 1.0, 0.0
            else:
                scale, shift = scale * step[0], scale * step[1] + shift
                middle = here.mean()
                at_middle = middle + (1 - _LET_GO) * (scale * middle + shift - middle)
                scale = scale ** (1 - _LET_GO)
                shift = at_middle - scale * middle
            steady[index] = scale * frame + shift
            before = here
        yield steady


_PIXELS = 4096  # of a frame, by which it is compared
_LET_GO = 0.02
_ROUNDS, _TOLERANCE = 8, 1.5
_UNLIKE = 0.5  # median difference of two frames, in mean absolute deviations, that have little in common


def _common_scale_and_shift(
    depth: Float[np.ndarray, " n"], wanted: Float[np.ndarray, " n"]
) -> tuple[float, float] | None:
    """(s, b), so that s depth + b is near to what is wanted in most places; None where it is in none."""
    weight, spread = np.ones_like(depth), np.abs(wanted - np.median(wanted)).mean()
    if not spread or not depth.var():
        return None
    for _ in range(_ROUNDS):  # reweighted, by a redescending function of the difference (Geman and McClure)
        weight = weight / weight.sum()
        means = weight @ depth, weight @ wanted
        deviations = [weight @ np.square(x - mean) for x, mean in zip((depth, wanted), means, strict=True)]
        scale = np.sqrt(deviations[1] / max(deviations[0], 1e-30))
        shift = means[1] - scale * means[0]
        difference = np.abs(scale * depth + shift - wanted)
        median = np.median(difference)
        weight = 1 / (1 + np.square(difference / (_TOLERANCE * median + 1e-9 * spread)))
    return None if median > _UNLIKE * spread else (float(scale), float(shift))


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
