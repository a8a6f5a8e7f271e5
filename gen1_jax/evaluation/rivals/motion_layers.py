"""Where things of a clip are in its middle frame, and which move otherwise than most: two layers to begin with.

Estimated motion alone, as an editor of real footage would have it. Source of the layers, each with an affine motion:
https://doi.org/10.1109/83.334981 (Wang and Adelson).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.models.structure.flow import estimated_flow
from gen1_jax.models.structure.pictures import opencv

ROUNDS = 5
"""Of fitting two motions and asking each place which of them is its own."""

_SOFT = 0.02  # of the picture's width: within that, neighbours decide together

Field = Float32[np.ndarray, "t h w 2"]


class MotionLayers(NamedTuple):
    """A clip's motion towards its middle frame.

    Attributes:
        to_reference: pixels, to where what each pixel of each frame shows is in the middle frame, as flows are chained.
        affine: of each layer, background first, and each frame: (x, y, 1) of a pixel -> (x, y) in the middle frame.
        foreground: of each pixel, the degree to which it is of the layer in front, 0 to 1.
    """

    to_reference: Field
    affine: Float32[np.ndarray, "2 t 3 2"]
    foreground: Float32[np.ndarray, "t h w"]


def motion_layers(
    frames: UInt8[np.ndarray, "t h w 3"], foreground: Float32[np.ndarray, "t h w"] | None = None
) -> MotionLayers:
    """Two layers by the motion that is estimated of a clip.

    Args:
        frames: sRGB.
        foreground: what is in front, 0 to 1; None for what moves otherwise than most.
    """
    count, height, width = frames.shape[:3]
    frames, middle, grid = np.ascontiguousarray(frames), count // 2, _grid(height, width)
    inwards = {t: estimated_flow(frames[t], frames[t + _sign(middle - t)]) for t in range(count) if t != middle}
    outwards = {t: estimated_flow(frames[t - _sign(t - middle)], frames[t]) for t in range(count) if t != middle}
    to_reference, from_reference = np.zeros((2, count, height, width, 2), np.float32)
    for t in sorted(inwards, key=lambda t: abs(t - middle)):
        nearer = t + _sign(middle - t)
        to_reference[t] = inwards[t] + _at(to_reference[nearer], grid + inwards[t])
        from_reference[t] = from_reference[nearer] + _at(outwards[t], grid + from_reference[nearer])
    if foreground is None:
        apart = _foreground(from_reference)
        foreground = np.stack([_at(apart, grid + field) for field in to_reference])
    shares = (1 - foreground, foreground)
    affine = [[_affine(field, share) for field, share in zip(to_reference, layer, strict=True)] for layer in shares]
    return MotionLayers(to_reference, np.array(affine, np.float32), foreground)


def _foreground(fields: Field) -> Float32[np.ndarray, "h w"]:
    """Of the middle frame, where the second motion is: at first where the motion of most is the farthest off."""
    far = _soft(_residual(fields, None))
    share = (far > max(0.5 * (far.min() + far.max()), 1e-3)).astype(np.float32)
    for _ in range(ROUNDS):
        if not 0.002 < share.mean() < 0.9:
            break
        background, foreground = (_soft(_residual(fields, weight)) for weight in (1 - share, share))
        share = (foreground < background).astype(np.float32)
    return _soft(share)


def _residual(fields: Field, weight: Float32[np.ndarray, "h w"] | None) -> Float32[np.ndarray, "h w"]:
    """How far an affine motion of each frame is off, mean over the frames."""
    height, width = fields.shape[1:3]
    there = np.concatenate([_grid(height, width), np.ones((height, width, 1), np.float32)], -1)
    off = [there @ _affine(field, weight) - there[..., :2] - field for field in fields]
    return np.linalg.norm(off, axis=-1).mean(0).astype(np.float32)


def _affine(field: Float32[np.ndarray, "h w 2"], weight: Float32[np.ndarray, "h w"] | None) -> np.ndarray:
    """(3, 2), by weighted least squares, in which what is far off ends up having little weight."""
    height, width = field.shape[:2]
    grid = _grid(height, width)
    rows = np.concatenate([grid, np.ones((height, width, 1))], -1).reshape(-1, 3)
    given = np.ones(len(rows)) if weight is None else weight.reshape(-1).astype(np.float64)
    share, wanted = given + 1e-6, (grid + field).reshape(-1, 2)
    for _ in range(8):
        # towards no motion where nothing has weight
        gram = rows.T @ (rows * share[:, None]) + 1e-3 * np.diag([width**2, height**2, 1])
        right = rows.T @ (wanted * share[:, None]) + 1e-3 * np.diag([width**2, height**2, 1])[:, :2]
        affine = np.linalg.solve(gram, right)
        off = np.square(rows @ affine - wanted).sum(-1)
        share = given / (1 + off / max(np.average(off, weights=given + 1e-6), 1e-2)) + 1e-6
    return affine


def _at(x: np.ndarray, where: Float32[np.ndarray, "h w 2"]) -> np.ndarray:
    """Values at places between pixels, and of the border beyond it."""
    cv2 = opencv("layers")
    return cv2.remap(x, where.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _soft(x: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    return opencv("layers").GaussianBlur(x.astype(np.float32), (0, 0), _SOFT * x.shape[1])


def _grid(height: int, width: int) -> Float32[np.ndarray, "h w 2"]:
    """(x, y) of each pixel."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)


def _sign(x: int) -> int:
    return (x > 0) - (x < 0)
