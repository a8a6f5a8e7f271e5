"""Draws structures: which objects, where they may move without touching, and a camera that sees them all."""

import dataclasses
import math

import jax
import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.synthetic.parts import SHAPE_FIELDS, Part, box, drum, limb, rotation
from gen1_jax.synthetic.shapes import SHAPE_NAMES, SHAPES
from gen1_jax.synthetic.structure import (
    CAMERAS,
    LAYOUTS,
    MAX_OBJECTS,
    MAX_PARTS,
    Camera,
    Motion,
    Parts,
    Structure,
    Terrain,
)

TAU = 2.0 * math.pi
_FRAMED = np.linspace(0.0, 2.0, 9)  # seconds during which all objects are in view; later some may leave and return


@dataclasses.dataclass(kw_only=True)
class _Placed:
    """An object while it is being arranged: its parts, its motion, and the circle (`anchor`, `reach`) it stays in."""

    shape: str
    parts: list[Part]
    scale: float
    height: float
    girth: float
    anchor: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    path: tuple[float, float, float] = (0.0, 0.0, 0.0)
    heading: tuple[float, float] = (0.0, 0.0)
    follow: float = 0.0
    tumble: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0, 0.0)
    bob: tuple[float, float, float] = (0.0, 0.0, 0.0)
    gait: tuple[float, float] = (0.0, 0.0)

    @property
    def reach(self) -> float:
        return self.path[0] + self.girth


def sample_structure(
    seed: int, *, layout: str | None = None, camera: str | None = None, shapes: tuple[str, ...] | None = None
) -> Structure:
    """Draws a structure from `seed`; what is given by name is not drawn.

    Objects never overlap at any time; the camera frames all of them and never enters anything.

    Raises:
      ValueError: for a name that does not exist, or a number of shapes other than 1 to `MAX_OBJECTS`.
    """
    for name, known in ((layout, LAYOUTS), (camera, CAMERAS), *((shape, SHAPE_NAMES) for shape in shapes or ())):
        if name is not None and name not in known:
            raise UserError(f"unknown name {name!r}: choose one of {', '.join(known)}")
    if shapes is not None and not 1 <= len(shapes) <= MAX_OBJECTS:
        raise UserError(f"{len(shapes)} shapes: a clip holds 1 to {MAX_OBJECTS}")
    rng = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, 0x57]))
    drawn_layout = int(rng.choice(len(LAYOUTS), p=[0.26, 0.22, 0.18, 0.16, 0.18]))
    drawn_camera = int(rng.integers(len(CAMERAS)))
    count = int(rng.choice([1, 2, 3, 4, 5], p=[0.26, 0.32, 0.24, 0.12, 0.06]))
    # Without replacement: the names in a caption then say which object is meant.
    drawn = tuple(SHAPE_NAMES[index] for index in rng.permutation(len(SHAPE_NAMES))[:count])
    layout_index = drawn_layout if layout is None else LAYOUTS.index(layout)
    camera_index = drawn_camera if camera is None else CAMERAS.index(camera)
    placed = [_object(rng, name) for name in (drawn if shapes is None else shapes)]
    radius = _arrange(rng, placed)
    terrain = _terrain(rng, layout_index, radius)
    camera_ = _camera(rng, camera_index, LAYOUTS[layout_index], placed, radius, terrain)
    indices = [SHAPE_NAMES.index(p.shape) for p in placed] + [-1] * (MAX_OBJECTS - len(placed))
    structure = Structure(
        camera=camera_,
        terrain=terrain,
        parts=_pack(placed, _set(rng, LAYOUTS[layout_index], radius, camera_)),
        motion=_motion(placed),
        shapes=np.asarray(indices),
        camera_kind=np.asarray(camera_index),
        layout=np.asarray(layout_index),
        sun_azimuth=camera_.azimuth + rng.choice([-1.0, 1.0]) * rng.uniform(0.7, 1.9),
    )
    return jax.tree.map(_leaf, structure)


def _leaf(value: float | np.ndarray) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(np.int32 if np.issubdtype(array.dtype, np.integer) else np.float32)


def _object(rng: np.random.Generator, name: str) -> _Placed:
    """Builds an object and draws how it moves."""
    parts, kind = SHAPES[name].build(), SHAPES[name].motion
    scale = float(rng.uniform(0.9, 1.2))
    height = scale * max(part.centre[1] + 0.8 * part.radius for part in parts)
    girth = scale * max(math.hypot(part.centre[0], part.centre[2]) + 0.8 * part.radius for part in parts)
    it = _Placed(shape=name, parts=parts, scale=scale, height=height, girth=girth)
    sign, lively = float(rng.choice([-1.0, 1.0])), rng.random()
    phase = float(rng.uniform(0, TAU))
    it.heading = (float(rng.uniform(0, TAU)), 0.0)
    if kind in ("walk", "drive", "fly") and lively < 0.8:
        radius = {"walk": 0.5, "drive": 0.75, "fly": 0.5}[kind] * float(rng.uniform(0.8, 1.3))
        speed = {"walk": 0.75, "drive": 1.3, "fly": 1.0}[kind] * scale * float(rng.uniform(0.8, 1.2))
        _send_round(it, radius, sign * speed, phase)
    if kind == "walk":
        it.gait = (TAU * float(rng.uniform(0.9, 1.3)), phase)
    elif kind == "drive":
        it.gait = (1.3 / 0.34, phase)
        it.bob = (0.02, TAU * 0.8, phase)
    elif kind == "fly":
        it.gait = (TAU * float(rng.uniform(1.2, 2.0)), phase)
        it.anchor[1] = float(rng.uniform(0.25, 0.8))
        it.bob = (0.1, it.gait[0] * 0.5, phase)
    elif kind == "hover":
        it.anchor[1], it.bob = 0.15, (0.25, TAU * 0.35, phase)
        it.heading = (it.heading[0], 0.6 * sign)
    elif kind == "turn":
        it.heading = (it.heading[0], sign * float(rng.uniform(0.3, 1.0)) if lively < 0.7 else 0.0)
    elif kind == "tumble":
        _tumble(rng, it, lively, sign, phase)
    elif kind == "still":
        it.gait = (TAU * 0.6, phase)
    return it


def _send_round(it: _Placed, radius: float, speed: float, phase: float) -> None:
    """Puts the object on a circle, facing where it goes."""
    it.path, it.follow = (radius, speed / radius, phase), 1.0
    it.heading = (0.0 if speed > 0 else math.pi, 0.0)


def _tumble(rng: np.random.Generator, it: _Placed, lively: float, sign: float, phase: float) -> None:
    """Simple solids stand still, turn, bounce, or tumble in the air about a tilted axis."""
    if lively < 0.25:
        it.heading = (it.heading[0], sign * float(rng.uniform(0.4, 1.2)))
    elif lively < 0.5:
        it.bob = (float(rng.uniform(0.15, 0.4)), TAU * float(rng.uniform(0.4, 0.7)), phase)
        it.heading = (it.heading[0], sign * 0.5)
    elif lively < 0.85:
        middle = 0.5 * it.height
        spread = max(np.linalg.norm(np.array(p.centre) - (0, middle / it.scale, 0)) + 0.8 * p.radius for p in it.parts)
        it.girth = max(it.girth, it.scale * float(spread))
        it.anchor[1] = max(0.0, it.girth - middle) + 0.06
        axis = rng.normal(size=3) + np.array([0.0, 0.6, 0.0])
        it.tumble = (*(axis / np.linalg.norm(axis)), sign * float(rng.uniform(0.5, 1.3)), middle)


def _arrange(rng: np.random.Generator, placed: list[_Placed]) -> float:
    """Gives each object a place of its own, close to the others; returns the radius of the circle around all."""
    for index, it in enumerate(placed):
        still = [other for other in placed[:index] if other.path[0] == 0.0]
        if index == 1 and still and it.path[0] > 0.0 and rng.random() < 0.5:
            # The second object goes round the first.
            centre = still[0]
            _send_round(it, centre.girth + it.girth + 0.05, it.path[1] * it.path[0], it.path[2])
            it.anchor[[0, 2]] = centre.anchor[[0, 2]]
            continue
        it.anchor[[0, 2]] = _free_place(rng, it, placed[:index])
    tracks = [_track(it) for it in placed]
    low = np.min([np.min(t, 0) - it.girth for t, it in zip(tracks, placed, strict=True)], axis=0)
    high = np.max([np.max(t, 0) + it.girth for t, it in zip(tracks, placed, strict=True)], axis=0)
    for it in placed:
        it.anchor[[0, 2]] -= (low + high) / 2.0
    return max(math.hypot(*it.anchor[[0, 2]]) + it.reach for it in placed)


def _track(it: _Placed) -> np.ndarray:
    """Where the object is on the ground, (times, 2), in the seconds that the camera frames."""
    radius, rate, phase = it.path
    angle = phase + rate * _FRAMED
    return it.anchor[[0, 2]] + radius * np.stack([np.cos(angle), np.sin(angle)], -1)


def _free_place(rng: np.random.Generator, it: _Placed, others: list[_Placed]) -> np.ndarray:
    """The free place nearest to the middle among a spiral of candidates."""
    turn = rng.uniform(0, TAU)
    for step in range(400):
        distance, angle = 0.1 * math.sqrt(step) * 1.6, turn + 2.4 * step
        place = distance * np.array([math.cos(angle), math.sin(angle)])
        if all(np.linalg.norm(place - o.anchor[[0, 2]]) > it.reach + o.reach + 0.04 for o in others):
            return place
    return np.array([sum(2.0 * o.reach for o in others) + it.reach, 0.0])


def _terrain(rng: np.random.Generator, layout: int, radius: float) -> Terrain:
    hilly = LAYOUTS[layout] == "hills"
    return Terrain(
        level=np.float64(-1.7 if LAYOUTS[layout] == "table top" else 0.0),
        amplitude=np.float64(rng.uniform(1.0, 2.2) if hilly else 0.0),
        frequency=np.float64(rng.uniform(0.05, 0.09)),
        phase=rng.uniform(0, 1, 2),
        plateau=np.float64(radius + 0.4),
    )


def _camera(
    rng: np.random.Generator, kind: int, layout: str, placed: list[_Placed], radius: float, terrain: Terrain
) -> Camera:
    """A pose from which all objects fill the view, and the movement that gives the camera its name."""
    tangent = rng.uniform(0.34, 0.5)
    low, high = {"street": (4, 15), "table top": (12, 30), "room": (8, 22)}.get(layout, (4, 18))
    elevation = math.radians(rng.uniform(low, high))
    top = max(it.height + it.anchor[1] + it.bob[0] for it in placed)
    confined = layout in ("street", "room")
    azimuth, phase = rng.uniform(0, TAU), rng.uniform(0, TAU, 4)
    sign, name = rng.choice([-1.0, 1.0]), CAMERAS[kind]
    sway = (rng.uniform(0.2, 0.3), rng.uniform(0.8, 1.4), phase[0]) if name == "orbit" and confined else (0.0, 0.0, 0.0)
    dolly = (rng.uniform(0.12, 0.22), rng.uniform(0.8, 1.5), phase[1]) if name == "dolly" else (0.0, 0.0, 0.0)
    pan = (rng.uniform(0.2, 0.35) * radius, rng.uniform(0.9, 1.6), phase[2]) if name == "pan" else (0.0, 0.0, 0.0)
    orbit = sign * rng.uniform(0.2, 0.5) if name == "orbit" and not confined else 0.0
    middle = 0.5 * top
    turns = azimuth + orbit * _FRAMED + sway[0] * np.sin(sway[1] * _FRAMED + sway[2])
    distance = _distance(placed, turns, elevation, middle, tangent * rng.uniform(0.9, 1.08)) / (1.0 - 0.7 * dolly[0])
    distance = max(distance, (radius + 0.5) / (1.0 - dolly[0]))
    shake = rng.uniform(0.015, 0.03) * distance if name == "hand-held" else 0.0
    if layout == "hills":
        # The eye stays above the ground: hills reach at most `amplitude`, and rise from the plateau on.
        rise = min(1.0, max(0.0, (distance / float(terrain.plateau) - 1.0) / 1.6))
        ground = 0.8 * float(terrain.amplitude) * rise * rise * (3.0 - 2.0 * rise)
        elevation = max(elevation, math.asin(min(0.9, max(0.0, ground + 0.5 - middle) / distance)))
    return Camera(
        target=np.array([0.0, middle, 0.0]),
        azimuth=np.float64(azimuth),
        elevation=np.float64(elevation),
        distance=np.float64(distance),
        tangent=np.float64(tangent),
        orbit=np.float64(orbit),
        sway=np.array(sway),
        dolly=np.array(dolly),
        pan=np.array(pan),
        shake=np.array([shake, phase[3]]),
    )


def _distance(placed: list[_Placed], azimuth: np.ndarray, elevation: float, middle: float, tangent: float) -> float:
    """The smallest distance from which the view holds every object's bounding cylinder at all framed times."""
    flat, up = math.cos(elevation), math.sin(elevation)
    needed = 0.0
    for it in placed:
        x, z = _track(it).T
        y = it.anchor[1] + 0.5 * (it.bob[0] + it.height) - middle
        side = np.abs(x * np.cos(azimuth) - z * np.sin(azimuth)) + it.girth
        nearer = (x * np.sin(azimuth) + z * np.cos(azimuth)) * flat + y * up
        rise = np.abs(y * flat - (x * np.sin(azimuth) + z * np.cos(azimuth)) * up)
        rise = rise + 0.5 * (it.bob[0] + it.height) * flat + it.girth * up
        needed = max(needed, float(np.max(np.maximum(side, rise) / tangent + nearer)))
    return needed


def _set(rng: np.random.Generator, layout: str, radius: float, camera: Camera) -> list[Part]:
    """What stands around the objects: walls, blocks of houses, a table; built facing the camera, then turned to it."""
    distance = float(camera.distance)
    sideways = distance * 1.3 * float(camera.sway[0] + camera.shake[0] / distance) + float(camera.pan[0])
    if layout == "table top":
        return _table(rng, radius)
    if layout == "room":
        parts = _room(rng, radius, max(radius, sideways) + 0.7, distance)
    elif layout == "street":
        parts = _street(rng, max(radius + 0.5, sideways + 0.8), distance)
    else:
        return []
    turn = rotation((0.0, 1.0, 0.0), float(camera.azimuth))
    return [dataclasses.replace(p, centre=tuple(turn @ np.array(p.centre)), rotation=turn @ p.rotation) for p in parts]


def _table(rng: np.random.Generator, radius: float) -> list[Part]:
    size = radius + float(rng.uniform(0.15, 0.4))
    if rng.random() < 0.5:
        return [
            drum((0, -0.08, 0), size, 0.08, bevel=0.03),
            limb((0, -0.1, 0), (0, -1.6, 0), 0.22, tone=0.8),
            drum((0, -1.65, 0), 0.6 * size, 0.06, tone=0.8),
        ]
    reach = 0.8 * size
    legs = [limb((x, -0.1, z), (x, -1.7, z), 0.1, tone=0.8) for x in (-reach, reach) for z in (-reach, reach)]
    return [box((0, -0.08, 0), (size, 0.08, size), 0.03), *legs]


def _room(rng: np.random.Generator, radius: float, half: float, distance: float) -> list[Part]:
    """Three walls of a set without a roof, open to the camera (which stands at +z), a rug and pictures."""
    back, height = -(radius + 0.7), float(rng.uniform(2.2, 3.2))
    deep = (distance - back) / 2.0
    walls = [box((0, height / 2, back - 0.1), (half + 0.2, height / 2, 0.1), 0.02)]
    walls += [box((s * (half + 0.1), height / 2, back + deep), (0.1, height / 2, deep), 0.02) for s in (-1, 1)]
    skirting = [box((0, 0.08, back), (half, 0.08, 0.03), 0.01, tone=0.5)]
    frames = []
    for x in (-0.45, 0.45):
        size = (float(rng.uniform(0.2, 0.45)), float(rng.uniform(0.25, 0.5)), 0.03)
        centre = (x * half, 0.62 * height, back)
        frames.append(box(centre, size, 0.015, tone=0.45))
        inner = (size[0] - 0.05, size[1] - 0.05, 0.045)
        frames.append(box(centre, inner, 0.01, tone=float(rng.uniform(1.2, 1.7))))
    rug = drum((0, 0.004, 0), radius * 0.95, 0.012, bevel=0.004, tone=0.7)
    return [*walls, *skirting, *frames, rug]


def _street(rng: np.random.Generator, half: float, distance: float) -> list[Part]:
    """Two rows of six blocks along the view and one that closes the street."""
    blocks = []
    for side in (-1.0, 1.0):
        z = -0.25 * distance + 3.0
        for _ in range(6):
            length, height = float(rng.uniform(1.2, 2.2)), float(rng.uniform(2.0, 6.0))
            depth = float(rng.uniform(1.0, 1.8))
            setback = half + depth + float(rng.uniform(0.0, 0.4))
            tone = float(rng.uniform(0.7, 1.15))
            blocks.append(
                box((side * setback, height / 2, z - length), (depth, height / 2, length - 0.06), 0.03, tone=tone)
            )
            z -= 2.0 * length
    blocks.append(box((float(rng.uniform(-2, 2)), 3.0, -22.0), (half * 0.6, float(rng.uniform(3, 6)), 1.0), 0.03))
    return blocks


def _motion(placed: list[_Placed]) -> Motion:
    """Stacks the motions of all slots; empty slots and the set stay at the origin."""
    still = _Placed(shape="", parts=[], scale=1.0, height=0.0, girth=0.0)
    slots = placed + [still] * (MAX_OBJECTS + 1 - len(placed))
    fields = [field.name for field in dataclasses.fields(Motion)]
    return Motion(**{name: np.stack([np.asarray(getattr(s, name), np.float64) for s in slots]) for name in fields})


def _pack(placed: list[_Placed], set_parts: list[Part]) -> Parts:
    """Writes all parts into one padded table, in metres."""
    rows = [(slot, it.scale, part) for slot, it in enumerate(placed) for part in it.parts]
    rows += [(MAX_OBJECTS, 1.0, part) for part in set_parts]
    if len(rows) > MAX_PARTS:
        raise UserError(f"{len(rows)} parts: a clip holds at most {MAX_PARTS}")
    table = Parts(
        count=np.asarray(len(rows)),
        shape=np.zeros((MAX_PARTS, len(SHAPE_FIELDS))),
        bound=np.ones(MAX_PARTS),
        half=np.zeros((MAX_PARTS, 3)),
        radius=np.zeros(MAX_PARTS),
        rotation=np.tile(np.eye(3), (MAX_PARTS, 1, 1)),
        centre=np.tile([0.0, -1e4, 0.0], (MAX_PARTS, 1)),  # padding lies far below everything
        slot=np.full(MAX_PARTS, MAX_OBJECTS),
        tone=np.ones(MAX_PARTS),
        pivot=np.zeros((MAX_PARTS, 2, 3)),
        axis=np.tile([0.0, 1.0, 0.0], (MAX_PARTS, 2, 1)),
        hinge=np.zeros((MAX_PARTS, 2, 4)),
    )
    lengths = np.array([name not in ("slope", "roof", "curve") for name in SHAPE_FIELDS])
    for row, (slot, scale, part) in enumerate(rows):
        values = np.array([getattr(part, name) for name in SHAPE_FIELDS])
        values = np.where(lengths, values * scale, values)
        values[SHAPE_FIELDS.index("curve")] /= scale
        table.shape[row] = values
        table.bound[row] = 1.0 / math.sqrt(1.0 + part.steepness**2)
        table.half[row], table.radius[row] = np.array(part.half) * scale, part.radius * scale
        table.rotation[row], table.centre[row] = part.rotation, np.array(part.centre) * scale
        table.slot[row], table.tone[row] = slot, part.tone
        for index, joint in enumerate(part.joints):
            table.pivot[row, index] = np.array(joint.pivot) * scale
            table.axis[row, index] = joint.axis
            table.hinge[row, index] = (joint.swing, joint.lead, joint.bias, joint.turn)
    return table
