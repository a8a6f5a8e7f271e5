"""The one primitive that everything is made of, its builders, and the joints that move it.

A part is a tapered, possibly hollow, rounded extrusion: a rounded rectangle in the local x-z plane (half extents
`width`, `breadth`, corner radius `corner`), whose outline shrinks along y by `slope * y + roof * |y| + curve * y^2`,
optionally kept only as a wall, extruded to |y| <= `height` and finally inflated by `inflate`. Spheres, capsules,
boxes, cylinders, cones, tori, pyramids and vases are all of this family, so one branch-free formula traces them all
(after the "super primitive" idea, https://www.shadertoy.com/view/MsVGWG).
"""

import dataclasses
import math

import numpy as np

Number = float | int
Vector = tuple[Number, Number, Number]
SOLID = 1e3  # a wall this thick is no wall
SHAPE_FIELDS = ("width", "breadth", "corner", "wall", "height", "inflate", "slope", "roof", "curve")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint:
    """A hinge: angle(phase) = bias + swing * sin(phase + lead) + turn * phase, about `axis` through `pivot`."""

    pivot: Vector = (0.0, 0.0, 0.0)
    axis: Vector = (1.0, 0.0, 0.0)
    swing: Number = 0.0
    lead: Number = 0.0
    bias: Number = 0.0
    turn: Number = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A primitive at rest in its object's frame (y up, +z ahead, ground at y = 0); up to two joints, outer first."""

    centre: Vector
    rotation: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    width: Number = 0.0
    breadth: Number = 0.0
    corner: Number = 0.0
    wall: Number = SOLID
    height: Number = 0.0
    inflate: Number = 0.0
    slope: Number = 0.0
    roof: Number = 0.0
    curve: Number = 0.0
    tone: Number = 1.0
    joints: tuple[Joint, ...] = ()

    @property
    def steepness(self) -> float:
        """Largest slope of the outline along y; the distance is divided by sqrt(1 + steepness^2) to stay a bound."""
        return abs(self.slope) + abs(self.roof) + 2.0 * abs(self.curve) * self.height

    @property
    def half(self) -> Vector:
        """Half extents of a bounding box along the part's own axes."""
        y = np.linspace(-self.height, self.height, 65)
        grow = float(np.max(-(self.slope * y + self.roof * np.abs(y) + self.curve * y * y)))
        side = self.corner + max(grow, -self.corner) + self.inflate
        return (self.width + side, self.height + self.inflate, self.breadth + side)

    @property
    def radius(self) -> float:
        """Radius of a bounding sphere around the centre: that of the box, or of the solid of revolution in it."""
        x, y, z = self.half
        across = x if self.width == self.breadth == 0.0 else math.hypot(x, z)
        return min(math.hypot(across, y), math.hypot(across - self.inflate, y - self.inflate) + self.inflate)


def rotation(axis: Vector, angle: Number) -> np.ndarray:
    """The 3x3 rotation by `angle` radians about `axis` (Rodrigues)."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross


def along(direction: Vector) -> np.ndarray:
    """A rotation that takes +y to `direction`."""
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    axis = np.cross((0.0, 1.0, 0.0), unit)
    if np.linalg.norm(axis) < 1e-9:
        return np.diag([1.0, np.sign(unit[1]), np.sign(unit[1])])
    return rotation(tuple(axis), math.acos(float(np.clip(unit[1], -1.0, 1.0))))


def ball(centre: Vector, radius: Number, **more) -> Part:
    """A sphere."""
    return Part(centre=centre, inflate=radius, **more)


def box(centre: Vector, half: Vector, bevel: Number = 0.03, **more) -> Part:
    """A box of half extents `half` along x, y, z, its edges rounded by `bevel`."""
    x, y, z = (extent - bevel for extent in half)
    return Part(centre=centre, width=x, breadth=z, height=y, inflate=bevel, **more)


def limb(start: Vector, end: Vector, radius: Number, tip: Number | None = None, **more) -> Part:
    """A capsule from `start` to `end`; with `tip`, its radius goes from `radius` to `tip`."""
    a, b = np.asarray(start, float), np.asarray(end, float)
    half = float(np.linalg.norm(b - a)) / 2.0
    tip = radius if tip is None else tip
    inflate, middle = min(radius, tip), (radius + tip) / 2.0
    return Part(
        centre=tuple((a + b) / 2.0),
        rotation=along(tuple(b - a)),
        height=half,
        corner=middle - inflate,
        slope=(radius - tip) / (2.0 * half),
        inflate=inflate,
        **more,
    )


def drum(centre: Vector, radius: Number, half: Number, axis: Vector = (0, 1, 0), bevel: Number = 0.02, **more) -> Part:
    """A cylinder of half height `half` about `axis`; `slope` makes it a cone."""
    return Part(centre=centre, rotation=along(axis), corner=radius - bevel, height=half - bevel, inflate=bevel, **more)


def cone(base: Vector, apex: Vector, radius: Number, tip: Number = 0.0, bevel: Number = 0.02, **more) -> Part:
    """A cone (a frustum with `tip` > 0) from the centre of its base to its apex."""
    a, b = np.asarray(base, float), np.asarray(apex, float)
    half = float(np.linalg.norm(b - a)) / 2.0
    slope = (radius - tip) / (2.0 * half)
    middle = max((radius + tip) / 2.0 - bevel, 0.0)
    return Part(
        centre=tuple((a + b) / 2.0),
        rotation=along(tuple(b - a)),
        corner=middle,
        height=half - bevel,
        slope=slope,
        inflate=bevel,
        **more,
    )


def ring(centre: Vector, radius: Number, thickness: Number, axis: Vector = (0, 1, 0), **more) -> Part:
    """A torus about `axis`."""
    return Part(centre=centre, rotation=along(axis), corner=radius, wall=0.0, inflate=thickness, **more)
