"""Joints of figures and animals: points of their parts, which go where the parts go."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.synthetic.animation import View, part_poses
from gen1_jax.synthetic.grid import Grid
from gen1_jax.synthetic.parts import SHAPE_FIELDS
from gen1_jax.synthetic.shapes import SHAPE_NAMES
from gen1_jax.synthetic.structure import MAX_OBJECTS, Structure
from gen1_jax.synthetic.tracer import FIRST_OBJECT, project

Joint = tuple[int, tuple[int, int, int]]
"""A part of the shape, and where in its own axes: in half widths, half heights (of a limb without its round ends) and
half depths."""

_HIDDEN = 0.06  # metres that another surface lies before a joint which it hides


class Skeleton(NamedTuple):
    """What is drawn of a shape.

    Attributes:
        joints: numbers of parts are those of the shape's own list, see `shapes.py`.
        bones: pairs of joints, with the limb that they are of and the side of it, as the figure has it; see
            `gen1_jax.models.structure.pose`.
    """

    joints: tuple[Joint, ...]
    bones: tuple[tuple[int, int, str, str], ...]


_MIDDLE, _START, _END = (0, 0, 0), (0, -1, 0), (0, 1, 0)
_SIDES = ("right", "left")  # the order of SIDES: x points to the left of what faces along z


def _limbs(first: int, joints: list[Joint], bones: list, parts: tuple[int, int], root: int, names: tuple) -> None:
    """Adds a limb of two parts on either side: three joints, and a bone from the root."""
    for number, side in enumerate(_SIDES):
        upper, lower = (first + number * parts[0] + part for part in (0, parts[1]))
        at = len(joints)
        joints += [(upper, _START), (upper, _END), (lower, _END)]
        bones += [(root, at, "spine", side), (at, at + 1, names[0], side), (at + 1, at + 2, names[1], side)]


def _person() -> Skeleton:
    joints: list[Joint] = [(0, _MIDDLE), (1, _START), (2, _START)]  # head, neck, pelvis
    bones = [(1, 0, "head", "middle"), (1, 2, "spine", "middle")]
    _limbs(4, joints, bones, (5, 1), 1, ("arm", "forearm"))
    _limbs(6, joints, bones, (5, 1), 2, ("thigh", "shin"))
    return Skeleton(tuple(joints), tuple(bones))


def _four_legged(nose: Joint, head: Joint, tail: int, legs: int) -> Skeleton:
    joints: list[Joint] = [nose, head, (0, _END), (0, _START), (tail, _END)]  # then withers, rump, tip of the tail
    bones = [(1, 0, "head", "middle"), (2, 1, "head", "middle"), (2, 3, "spine", "middle"), (3, 4, "tail", "middle")]
    _limbs(legs, joints, bones, (4, 1), 2, ("arm", "forearm"))
    _limbs(legs + 2, joints, bones, (4, 1), 3, ("thigh", "shin"))
    return Skeleton(tuple(joints), tuple(bones))


def _bird() -> Skeleton:
    joints: list[Joint] = [(2, _END), (1, _MIDDLE), (0, _END), (0, _START), (3, (0, 0, -1))]
    bones = [(1, 0, "head", "middle"), (2, 1, "head", "middle"), (2, 3, "spine", "middle"), (3, 4, "tail", "middle")]
    for number, (side, out) in enumerate(zip(_SIDES, (-1, 1), strict=True)):
        inner, at = 4 + 2 * number, len(joints)
        joints += [(inner, (-out, 0, 0)), (inner, (out, 0, 0)), (inner + 1, (out, 0, 0))]
        bones += [(2, at, "spine", side), (at, at + 1, "arm", side), (at + 1, at + 2, "forearm", side)]
    return Skeleton(tuple(joints), tuple(bones))


def _fish() -> Skeleton:
    joints = ((1, _MIDDLE), (0, _END), (2, _END), (3, _MIDDLE))
    return Skeleton(joints, ((1, 0, "spine", "middle"), (1, 2, "tail", "middle"), (2, 3, "tail", "middle")))


SKELETONS: dict[str, Skeleton] = {
    "person": _person(),
    "dog": _four_legged((3, _END), (2, _MIDDLE), 6, 7),
    "horse": _four_legged((2, _END), (2, _START), 4, 5),
    "bird": _bird(),
    "fish": _fish(),
}
MAX_JOINTS = max(len(skeleton.joints) for skeleton in SKELETONS.values())


def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each shape and joint: the part, where in it, and whether there is such a joint."""
    part, place = np.zeros((len(SHAPE_NAMES), MAX_JOINTS), np.int32), np.zeros((len(SHAPE_NAMES), MAX_JOINTS, 3))
    exists = np.zeros((len(SHAPE_NAMES), MAX_JOINTS), bool)
    for row, name in enumerate(SHAPE_NAMES):
        for column, joint in enumerate(SKELETONS[name].joints if name in SKELETONS else ()):
            part[row, column], place[row, column], exists[row, column] = *joint, True
    return part, place.astype(np.float32), exists


_PART, _PLACE, _EXISTS = _table()


def joints_of(
    structure: Structure, time: jax.Array, view: View, depth: jax.Array, ids: jax.Array, grid: Grid
) -> jax.Array:
    """Joints of all objects in one frame, in the order of their skeletons: float32 (MAX_OBJECTS, MAX_JOINTS, 3).

    The last axis is x and y in pixels, and 1 where a joint is seen: it exists, is before the camera, and is not hidden
    by another object, set or ground. What lies outside the picture counts as seen.

    Args:
        structure: whose objects.
        time: of the frame.
        view: of the camera then.
        depth: (H, W), metres, of what is seen.
        ids: (H, W), of what is seen.
        grid: of the frame.
    """
    parts, pose = structure.parts, part_poses(structure, time)
    shapes = jnp.maximum(jnp.asarray(structure.shapes), 0)
    slots = jnp.arange(MAX_OBJECTS)
    first = jnp.argmax(jnp.asarray(parts.slot) == slots[:, None], axis=1)
    part = first[:, None] + jnp.asarray(_PART)[shapes]
    half, height = jnp.asarray(parts.half), jnp.asarray(parts.shape)[:, SHAPE_FIELDS.index("height")]
    place = jnp.asarray(_PLACE)[shapes] * jnp.stack([half[:, 0], height, half[:, 2]], -1)[part]
    point = jnp.einsum("sjik,sjk->sji", pose.rotation[part], place) + pose.centre[part]

    x, y = project(view, grid, [point[..., i] for i in range(3)], jnp.zeros((), bool))
    ahead = jnp.sum((point - view.eye) * view.axes[2], -1)
    column, row = jnp.round(x).astype(jnp.int32), jnp.round(y).astype(jnp.int32)
    inside = (row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width)
    at = (jnp.clip(row, 0, grid.height - 1), jnp.clip(column, 0, grid.width - 1))
    hidden = inside & (ids[at] != FIRST_OBJECT + slots[:, None]) & (depth[at] < ahead - _HIDDEN)
    exists = jnp.asarray(_EXISTS)[shapes] & (jnp.asarray(structure.shapes) >= 0)[:, None]
    return jnp.stack([x, y, (exists & (ahead > 0.05) & ~hidden).astype(jnp.float32)], -1)
