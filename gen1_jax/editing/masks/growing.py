"""From a click, or from what was drawn on one frame, to a mask of every frame.

click ──► all that is joined to it, near to it in depth and motion ──► carried along the flow, frame by frame,
          cut at its outline by depth and colour                      each time corrected at its border by depth
"""

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from gen1_jax.editing.masks.motion import carried, flows_between
from gen1_jax.editing.structures import Frames

_DEPTH, _FLOW = 0.07, 3.0  # how far depth (of 0 to 1) and motion (pixels a frame) of a thing reach from those clicked
_MAYBE = 3.0  # times that, beyond which nothing belongs to it
_GAIN, _ROUNDS = 400, 3  # levels of GrabCut for all of the depth, and its rounds
_TOLD_APART = 0.1  # by how much depth differs where it tells the sides of a border
_PATCH = 2  # pixels around the click whose median is taken
_BORDER = 0.025  # of the picture's smaller side: how wrong a carried border may be


def grown(
    frames: Frames, depth: Float32[np.ndarray, "t h w"], point: tuple[int, int], at: int
) -> list[Bool[np.ndarray, "h w"]]:
    """Masks of the thing at a point.

    Args:
        frames: of the model's size.
        depth: of each pixel, 0 the farthest and 1 the nearest of the clip.
        point: row and column.
        at: which frame.
    """
    flows = flows_between(frames)
    motion = None if not flows else flows[at][0] if at < len(flows) else -flows[-1][1]
    return spread(frames, depth, _cut_out(frames[at], depth[at], motion, point), at, flows)


def spread(frames: Frames, depth: Float32[np.ndarray, "t h w"], mask: Bool[np.ndarray, "h w"], at: int, flows=None):
    """A mask of one frame carried to all of them, both ways in time.

    Args:
        frames: of the model's size.
        depth: see `grown`.
        mask: of the frame `at`.
        at: which frame.
        flows: between frames, see `flows_between`.
    """
    flows = flows_between(frames) if flows is None else flows
    masks = [mask] * len(frames)
    for index in range(at + 1, len(frames)):
        masks[index] = _corrected(masks[index - 1], flows[index - 1][1], depth[index])
    for index in range(at - 1, -1, -1):
        masks[index] = _corrected(masks[index + 1], flows[index][0], depth[index])
    return masks


def _cut_out(
    frame: UInt8[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "h w"],
    motion: Float32[np.ndarray, "h w 2"] | None,
    point: tuple[int, int],
) -> Bool[np.ndarray, "h w"]:
    """The thing at a point: what is joined to it by pixels near in depth and motion, then cut at its outline.

    Source: https://doi.org/10.1145/1015706.1015720 (GrabCut), of depth and the two colours without brightness.
    """
    import cv2

    row, column = point
    rows, columns = slice(max(0, row - _PATCH), row + _PATCH + 1), slice(max(0, column - _PATCH), column + _PATCH + 1)
    offset = depth - np.median(depth[rows, columns])
    apart = np.abs(offset) / _DEPTH
    if motion is not None:
        clicked = np.median(motion[rows, columns].reshape(-1, 2), axis=0)
        apart = np.hypot(apart, np.linalg.norm(motion - clicked, axis=-1) / _FLOW)
    labels = np.full(depth.shape, cv2.GC_BGD, np.uint8)
    labels[apart < _MAYBE] = cv2.GC_PR_BGD
    labels[_joined(apart < 1, point)] = cv2.GC_PR_FGD
    labels[rows, columns] = cv2.GC_FGD
    if not (labels == cv2.GC_BGD).any():
        return _joined(apart < 1, point)
    colours = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB)[..., 1:]
    seen = np.dstack([np.clip(128 + _GAIN * offset, 0, 255).astype(np.uint8), colours])
    cv2.setRNGSeed(0)  # of its clusters
    cv2.grabCut(seen, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), _ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _joined((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), point)


def _joined(mask: Bool[np.ndarray, "h w"], point: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The part of a mask that a point is in, without its holes and without hairs."""
    import cv2

    row, column = point
    around = mask.copy()
    around[max(0, row - _PATCH) : row + _PATCH + 1, max(0, column - _PATCH) : column + _PATCH + 1] = True
    _, labels = cv2.connectedComponents(around.astype(np.uint8), connectivity=4)
    part = (labels == labels[row, column]).astype(np.uint8)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED)
    opened = cv2.morphologyEx(filled, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, labels = cv2.connectedComponents(opened, connectivity=4)  # hairs may have held parts together
    return (labels == labels[row, column]) & (opened > 0) if opened[row, column] else filled.astype(bool)


def _corrected(
    before: Bool[np.ndarray, "h w"], flow: Float32[np.ndarray, "h w 2"], depth: Float32[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """A mask carried to the next frame; pixels at its border go to the side whose depth is theirs."""
    import cv2

    moved = carried(before.astype(np.float32), flow) >= 0.5
    radius = max(1, round(_BORDER * min(moved.shape)))
    square = np.ones((2 * radius + 1,) * 2, np.uint8)
    inner, outer = (f(moved.astype(np.uint8), square).astype(bool) for f in (cv2.erode, cv2.dilate))
    if not inner.any() or outer.all():
        return moved
    weigh = lambda where: cv2.boxFilter(where.astype(np.float32), -1, (4 * radius + 1,) * 2)
    mean = lambda where: cv2.boxFilter(np.where(where, depth, 0), -1, (4 * radius + 1,) * 2) / (weigh(where) + 1e-6)
    inside, outside = np.abs(depth - mean(inner)), np.abs(depth - mean(~outer))
    unsure = outer & ~inner
    told_apart = np.abs(mean(inner) - mean(~outer)) > _TOLD_APART
    return np.where(unsure & told_apart, inside < outside, moved)
