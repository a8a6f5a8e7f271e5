"""What a clip looks like in space and time, and nothing of what it is made of: camera, layout, objects, motion."""

import dataclasses
from typing import Any

import jax
import numpy as np

from gen1_jax.synthetic.shapes import SHAPE_NAMES

MAX_OBJECTS = 5
MAX_PARTS = 88  # 5 objects of at most 15 parts, and 13 of the set; a multiple of the tracer's chunk
CAMERAS = ("orbit", "dolly", "pan", "hand-held")
LAYOUTS = ("open ground", "hills", "room", "street", "table top")

Leaf = Any  # an array, of the shape in the comment beside it; anything at all while jax maps over the tree


def _record(cls: type) -> type:
    """A frozen keyword-only dataclass that is a pytree of arrays, so that clips can be stacked and vmapped."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


@_record
class Parts:
    """All primitives of a clip, padded to `MAX_PARTS` (axis p); the first `count` are real. See `parts.py`."""

    count: Leaf  # () int32
    shape: Leaf  # (p, 9): in the order of SHAPE_FIELDS
    half: Leaf  # (p, 3): half extents of a bounding box
    radius: Leaf  # (p,): of a bounding sphere
    bound: Leaf  # (p,): 1 / Lipschitz constant of the distance
    rotation: Leaf  # (p, 3, 3)
    centre: Leaf  # (p, 3)
    slot: Leaf  # (p,) int32: which object; MAX_OBJECTS is the set
    tone: Leaf  # (p,)
    pivot: Leaf  # (p, 2, 3)
    axis: Leaf  # (p, 2, 3)
    hinge: Leaf  # (p, 2, 4): swing, lead, bias, turn


@_record
class Motion:
    """How each slot moves (axis s = MAX_OBJECTS + 1; the last is the set, which stays), in metres, radians, seconds."""

    anchor: Leaf  # (s, 3): centre of the path, height above the ground
    path: Leaf  # (s, 3): radius, angular rate, phase
    heading: Leaf  # (s, 2): yaw at time 0, yaw rate
    follow: Leaf  # (s,): 1: faces along the path
    tumble: Leaf  # (s, 5): axis, rate, height of the axis above the object's base
    bob: Leaf  # (s, 3): amplitude, rate, phase
    gait: Leaf  # (s, 2): rate and phase of the joints


@_record
class Camera:
    """A look-at camera: sums of slow sines over a base pose, so that clips of any length stay framed."""

    target: Leaf  # (3,)
    azimuth: Leaf  # ()
    elevation: Leaf  # ()
    distance: Leaf  # ()
    tangent: Leaf  # (): of half the field of view, over the shorter side
    orbit: Leaf  # (): radians a second
    sway: Leaf  # (3,): amplitude of azimuth, rate, phase
    dolly: Leaf  # (3,): relative amplitude of distance, rate, phase
    pan: Leaf  # (3,): sideways amplitude of the target, rate, phase
    shake: Leaf  # (2,): amplitude, phase


@_record
class Terrain:
    """The ground: height y = level + amplitude * waves, flattened around the origin where the objects are."""

    level: Leaf  # ()
    amplitude: Leaf  # ()
    frequency: Leaf  # ()
    phase: Leaf  # (2,)
    plateau: Leaf  # ()


@_record
class Structure:
    """One clip's geometry and motion; a pytree of numpy or jax arrays of fixed shapes, whatever it describes."""

    camera: Camera
    terrain: Terrain
    parts: Parts
    motion: Motion
    shapes: Leaf  # (5,) int32: indices into SHAPE_NAMES, -1 for an empty slot
    camera_kind: Leaf  # () int32: index into CAMERAS
    layout: Leaf  # () int32: index into LAYOUTS
    sun_azimuth: Leaf  # ()

    @property
    def names(self) -> tuple[str, ...]:
        """The shape names of the objects, in slot order; only for one clip, not for a batch."""
        return tuple(SHAPE_NAMES[index] for index in np.asarray(self.shapes) if index >= 0)
