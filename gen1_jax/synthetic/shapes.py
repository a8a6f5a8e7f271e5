"""The catalogue of objects: each is a list of parts, about 1 unit tall, standing on y = 0 and facing +z.

Articulated shapes carry joints; their phase advances with the gait of the object (see `structure.py`).
"""

import dataclasses
import math
from collections.abc import Callable

from gen1_jax.synthetic.parts import Joint, Part, ball, box, cone, drum, limb, ring, rotation

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
SIDES = (-1.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of object: how it is built and how it may move ("tumble", "turn", "walk", "drive", "fly", "swim")."""

    build: Callable[[], list[Part]]
    motion: str = "turn"


def _sphere() -> list[Part]:
    return [ball((0, 0.5, 0), 0.5)]


def _rounded_box() -> list[Part]:
    return [box((0, 0.45, 0), (0.45, 0.45, 0.45), 0.09)]


def _torus() -> list[Part]:
    return [ring((0, 0.55, 0), 0.37, 0.18, axis=Z)]


def _capsule() -> list[Part]:
    return [limb((0, 0.3, 0), (0, 0.85, 0), 0.3)]


def _cone() -> list[Part]:
    return [cone((0, 0, 0), (0, 1.15, 0), 0.5, bevel=0.03)]


def _cylinder() -> list[Part]:
    return [drum((0, 0.5, 0), 0.4, 0.5, bevel=0.04)]


def _octahedron() -> list[Part]:
    turn = rotation(Y, math.pi / 4)
    return [Part(centre=(0, 0.6, 0), rotation=turn, width=0.4, breadth=0.4, height=0.58, roof=0.4 / 0.58, inflate=0.02)]


def _star() -> list[Part]:
    spikes = []
    for index in range(5):
        angle = 2.0 * math.pi * index / 5
        turn = rotation(Z, -angle)
        centre = (0.31 * math.sin(angle), 0.62 + 0.31 * math.cos(angle), 0.0)
        spike = Part(
            centre=centre, rotation=turn, width=0.13, breadth=0.13, height=0.31, slope=0.13 / 0.31, inflate=0.02
        )
        spikes.append(spike)
    return [*spikes, drum((0, 0.62, 0), 0.24, 0.14, axis=Z, bevel=0.03)]


def _vase() -> list[Part]:
    belly = Part(centre=(0, 0.42, 0), corner=0.4, height=0.38, curve=1.45, wall=0.02, inflate=0.01)
    neck = Part(centre=(0, 0.9, 0), corner=0.19, height=0.14, slope=-0.25, curve=-1.4, wall=0.02, inflate=0.01)
    return [drum((0, 0.04, 0), 0.22, 0.04), belly, neck, ring((0, 1.04, 0), 0.25, 0.03)]


def _arch() -> list[Part]:
    legs = [box((side * 0.42, 0.32, 0), (0.13, 0.34, 0.16), 0.02) for side in SIDES]
    stones = []
    for index in range(5):
        angle = math.pi * (index + 0.5) / 5
        centre = (0.42 * math.cos(angle), 0.66 + 0.42 * math.sin(angle), 0.0)
        tone = 0.8 if index % 2 else 1.1
        stones.append(box(centre, (0.13, 0.17, 0.16), 0.02, rotation=rotation(Z, angle), tone=tone))
    return [*legs, *stones]


def _tree() -> list[Part]:
    crown = [((0, 1.1, 0), 0.36), ((0.28, 0.88, 0.1), 0.27), ((-0.26, 0.9, 0.12), 0.28), ((0.02, 0.86, -0.27), 0.27)]
    branch = limb((0, 0.45, 0), (0.2, 0.8, 0.08), 0.045, 0.03, tone=0.5)
    return [cone((0, 0, 0), (0, 0.9, 0), 0.13, 0.06, tone=0.5), branch, *(ball(c, r) for c, r in crown)]


def _pine() -> list[Part]:
    tiers = [(0.22, 0.75, 0.5), (0.52, 1.05, 0.39), (0.82, 1.4, 0.28)]
    return [
        drum((0, 0.15, 0), 0.09, 0.16, tone=0.5),
        *(cone((0, low, 0), (0, high, 0), radius) for low, high, radius in tiers),
    ]


def _car() -> list[Part]:
    wheels = [
        drum(
            (x * 0.34, 0.17, z),
            0.17,
            0.07,
            axis=X,
            bevel=0.03,
            tone=0.22,
            joints=(Joint(pivot=(0, 0.17, z), turn=2.0),),
        )
        for x in SIDES
        for z in (-0.44, 0.46)
    ]
    cabin = Part(centre=(0, 0.58, -0.08), width=0.25, breadth=0.36, height=0.15, slope=0.45, inflate=0.05)
    glass = Part(centre=(0, 0.59, -0.08), width=0.262, breadth=0.31, height=0.09, slope=0.45, inflate=0.045, tone=0.3)
    windscreen = Part(
        centre=(0, 0.59, -0.08), width=0.2, breadth=0.372, height=0.09, slope=0.45, inflate=0.045, tone=0.3
    )
    lamps = [ball((x * 0.24, 0.34, 0.73), 0.06, tone=1.6) for x in SIDES]
    return [box((0, 0.32, 0), (0.35, 0.15, 0.76), 0.08), cabin, glass, windscreen, *wheels, *lamps]


def _person() -> list[Part]:
    parts = [
        ball((0, 1.42, 0), 0.16, tone=1.1),
        limb((0, 1.25, 0), (0, 1.3, 0), 0.06),
        limb((0, 0.82, 0), (0, 1.12, 0), 0.15, 0.19),
        limb((-0.15, 1.15, 0), (0.15, 1.15, 0), 0.09),
    ]
    for side in SIDES:
        lead = 0.0 if side > 0 else math.pi
        shoulder, elbow = (side * 0.24, 1.14, 0.0), (side * 0.28, 0.88, 0.0)
        hip, knee = (side * 0.1, 0.78, 0.0), (side * 0.11, 0.42, 0.0)
        arm = Joint(pivot=shoulder, swing=0.65, lead=lead + math.pi)
        forearm = Joint(pivot=elbow, swing=0.3, lead=lead + math.pi, bias=-0.5)
        thigh = Joint(pivot=hip, swing=0.6, lead=lead)
        shin = Joint(pivot=knee, swing=0.4, lead=lead + 1.6, bias=0.4)
        parts += [
            limb(shoulder, elbow, 0.075, 0.06, joints=(arm,)),
            limb(elbow, (side * 0.28, 0.62, 0.0), 0.06, 0.055, joints=(arm, forearm), tone=1.1),
            limb(hip, knee, 0.11, 0.08, joints=(thigh,), tone=0.75),
            limb(knee, (side * 0.11, 0.08, 0.0), 0.08, 0.06, joints=(thigh, shin), tone=0.75),
            limb((side * 0.11, 0.05, 0.0), (side * 0.11, 0.05, 0.13), 0.055, joints=(thigh, shin), tone=0.4),
        ]
    return parts


def _legs(width: float, hips: tuple[float, float], height: float, thickness: float) -> list[Part]:
    """Four two-part legs that trot: diagonal pairs swing together."""
    parts = []
    for side in SIDES:
        for z in hips:
            lead = 0.0 if (side > 0) == (z > 0) else math.pi
            hip, knee = (side * width, height, z), (side * width, height * 0.52, z)
            upper = Joint(pivot=hip, swing=0.5, lead=lead)
            lower = Joint(pivot=knee, swing=0.35, lead=lead + 1.6, bias=0.3)
            parts += [
                limb(hip, knee, thickness * 1.35, thickness, joints=(upper,)),
                limb(knee, (side * width, thickness, z), thickness, thickness * 0.85, joints=(upper, lower), tone=0.8),
            ]
    return parts


def _dog() -> list[Part]:
    tail = Joint(pivot=(0, 0.66, -0.42), axis=Y, swing=0.5)
    return [
        limb((0, 0.6, -0.33), (0, 0.62, 0.3), 0.18, 0.21),
        limb((0, 0.68, 0.36), (0, 0.9, 0.5), 0.13, 0.12),
        ball((0, 0.97, 0.53), 0.19),
        limb((0, 0.91, 0.62), (0, 0.88, 0.8), 0.11, 0.08, tone=0.8),
        *(limb((s * 0.12, 1.1, 0.46), (s * 0.2, 0.92, 0.44), 0.06, 0.07, tone=0.5) for s in SIDES),
        limb((0, 0.66, -0.42), (0, 0.98, -0.66), 0.06, 0.035, joints=(tail,)),
        *_legs(0.13, (0.26, -0.32), 0.52, 0.065),
    ][:15]


def _horse() -> list[Part]:
    tail = Joint(pivot=(0, 1.0, -0.5), axis=Z, swing=0.25)
    nod = Joint(pivot=(0, 1.0, 0.4), swing=0.08)
    return [
        limb((0, 0.95, -0.36), (0, 0.93, 0.36), 0.21, 0.2),
        limb((0, 1.0, 0.42), (0, 1.4, 0.68), 0.16, 0.1, joints=(nod,)),
        limb((0, 1.46, 0.66), (0, 1.28, 0.98), 0.12, 0.075, joints=(nod,)),
        limb((0, 1.12, 0.34), (0, 1.5, 0.55), 0.06, joints=(nod,), tone=0.4),
        limb((0, 1.0, -0.54), (0, 0.6, -0.72), 0.07, 0.04, joints=(tail,), tone=0.4),
        *_legs(0.13, (0.34, -0.36), 0.84, 0.062),
    ]


def _bird() -> list[Part]:
    parts = [
        limb((0, 0.5, -0.26), (0, 0.54, 0.2), 0.13, 0.2),
        ball((0, 0.68, 0.38), 0.16),
        cone((0, 0.67, 0.5), (0, 0.64, 0.7), 0.06, tone=0.4),
        box((0, 0.48, -0.56), (0.13, 0.02, 0.22), 0.015, tone=0.7),
    ]
    for side in SIDES:
        inner = Joint(pivot=(side * 0.12, 0.6, 0), axis=Z, swing=side * 0.55, bias=side * 0.1)
        outer = Joint(pivot=(side * 0.55, 0.6, 0), axis=Z, swing=side * 0.5, lead=-0.9)
        parts += [
            box((side * 0.34, 0.6, 0), (0.24, 0.025, 0.2), 0.02, joints=(inner,)),
            box((side * 0.78, 0.6, -0.03), (0.25, 0.02, 0.15), 0.018, joints=(inner, outer), tone=0.75),
        ]
    return parts


def _fish() -> list[Part]:
    tail = Joint(pivot=(0, 0.5, -0.3), axis=Y, swing=0.5)
    fin = Joint(pivot=(0, 0.5, -0.55), axis=Y, swing=0.5, lead=-0.9)
    fins = [
        box(
            (s * 0.27, 0.42, 0.12),
            (0.14, 0.02, 0.09),
            0.015,
            tone=0.7,
            joints=(Joint(pivot=(s * 0.15, 0.42, 0.12), axis=Z, swing=s * 0.4),),
        )
        for s in SIDES
    ]
    return [
        limb((0, 0.5, 0.2), (0, 0.5, -0.3), 0.24, 0.13),
        ball((0, 0.5, 0.26), 0.22),
        limb((0, 0.5, -0.3), (0, 0.5, -0.52), 0.13, 0.06, joints=(tail,)),
        Part(
            centre=(0, 0.5, -0.7),
            rotation=rotation(X, -math.pi / 2),
            width=0.01,
            breadth=0.17,
            height=0.16,
            slope=-0.5,
            inflate=0.02,
            joints=(tail, fin),
            tone=0.7,
        ),
        box((0, 0.78, 0), (0.02, 0.1, 0.18), 0.015, tone=0.7),
        *fins,
        *(ball((s * 0.19, 0.56, 0.36), 0.045, tone=0.1) for s in SIDES),
    ]


def _lamp() -> list[Part]:
    shade = Part(centre=(0, 1.0, 0), corner=0.3, height=0.2, slope=0.5, wall=0.02, inflate=0.01)
    return [
        drum((0, 0.04, 0), 0.26, 0.05),
        limb((0, 0.05, 0), (0, 1.0, 0), 0.04),
        shade,
        ball((0, 0.95, 0), 0.11, tone=1.8),
    ]


def _snowman() -> list[Part]:
    arms = [limb((s * 0.25, 0.8, 0), (s * 0.55, 1.0, 0.05), 0.03, tone=0.4) for s in SIDES]
    hat = [drum((0, 1.38, 0), 0.26, 0.025, tone=0.25), drum((0, 1.5, 0), 0.17, 0.13, tone=0.25)]
    eyes = [ball((s * 0.08, 1.27, 0.18), 0.03, tone=0.1) for s in SIDES]
    return [
        ball((0, 0.36, 0), 0.4), ball((0, 0.85, 0), 0.29), ball((0, 1.22, 0), 0.21),
        cone((0, 1.2, 0.18), (0, 1.18, 0.44), 0.05, tone=0.5), *arms, *hat, *eyes,
    ]  # fmt: skip


def _rocket() -> list[Part]:
    fins = []
    for index in range(3):
        angle = 2.0 * math.pi * index / 3
        x, z = math.sin(angle), math.cos(angle)
        fins.append(limb((x * 0.2, 0.5, z * 0.2), (x * 0.42, 0.06, z * 0.42), 0.04, 0.06, tone=0.55))
    hull = Part(centre=(0, 0.78, 0), corner=0.24, height=0.5, slope=0.08, curve=0.35, inflate=0.02)
    nose = cone((0, 1.26, 0), (0, 1.62, 0), 0.15, tone=0.55)
    return [
        hull,
        nose,
        drum((0, 0.22, 0), 0.16, 0.07, tone=0.35),
        ring((0, 0.95, 0.23), 0.09, 0.025, axis=Z, tone=0.55),
        *fins,
    ]


def _house() -> list[Part]:
    roof = Part(centre=(0, 0.88, 0), width=0.27, breadth=0.34, height=0.26, slope=0.27 / 0.26, inflate=0.02, tone=0.55)
    windows = [box((s * 0.25, 0.42, 0.47), (0.1, 0.11, 0.02), 0.01, tone=0.25) for s in SIDES]
    sides = [box((s * 0.47, 0.42, 0), (0.02, 0.11, 0.14), 0.01, tone=0.25) for s in SIDES]
    return [
        box((0, 0.32, 0), (0.46, 0.34, 0.46), 0.015), roof, box((0.24, 0.95, -0.1), (0.07, 0.24, 0.07), 0.01),
        box((0, 0.2, 0.47), (0.09, 0.2, 0.02), 0.01, tone=0.4), *windows, *sides,
    ]  # fmt: skip


def _boat() -> list[Part]:
    hull = Part(centre=(0, 0.18, 0), width=0.1, breadth=0.45, corner=0.16, height=0.16, slope=-0.45, inflate=0.02)
    sail = Part(centre=(0, 0.82, 0.2), width=0.0, breadth=0.2, height=0.4, slope=0.24, inflate=0.015, tone=1.2)
    aft = Part(centre=(0, 0.75, -0.24), width=0.0, breadth=0.24, height=0.34, slope=0.3, inflate=0.015, tone=1.2)
    deck = box((0, 0.34, -0.3), (0.14, 0.08, 0.16), 0.02, tone=0.6)
    return [hull, limb((0, 0.2, 0), (0, 1.32, 0), 0.03, tone=0.5), sail, aft, deck]


def _cactus() -> list[Part]:
    return [
        limb((0, 0.1, 0), (0, 1.1, 0), 0.17),
        limb((0.12, 0.5, 0), (0.38, 0.52, 0), 0.1), limb((0.38, 0.52, 0), (0.4, 0.85, 0), 0.1),
        limb((-0.12, 0.38, 0), (-0.36, 0.4, 0.03), 0.09), limb((-0.36, 0.4, 0.03), (-0.38, 0.7, 0.03), 0.09),
        ball((0, 1.28, 0), 0.07, tone=1.5),
    ]  # fmt: skip


def _mushroom() -> list[Part]:
    cap = Part(centre=(0, 0.72, 0), corner=0.36, height=0.16, slope=0.75, curve=2.2, inflate=0.08)
    return [limb((0, 0.1, 0), (0, 0.6, 0), 0.17, 0.12, tone=1.25), cap, ring((0, 0.48, 0), 0.14, 0.03, tone=1.1)]


def _chair() -> list[Part]:
    legs = [limb((x * 0.27, 0.0, z * 0.27), (x * 0.25, 0.48, z * 0.25), 0.04, tone=0.7) for x in SIDES for z in SIDES]
    posts = [limb((x * 0.26, 0.5, -0.27), (x * 0.26, 1.1, -0.34), 0.04) for x in SIDES]
    rails = [box((0, y, -0.28 - 0.07 * (y - 0.5)), (0.26, 0.07, 0.03), 0.02) for y in (0.78, 1.02)]
    return [*legs, box((0, 0.52, 0), (0.33, 0.05, 0.33), 0.03), *posts, *rails]


def _windmill() -> list[Part]:
    blades = [
        Part(
            centre=(0.36 * math.sin(a), 1.15 + 0.36 * math.cos(a), 0.36), rotation=rotation(Z, -a), width=0.06,
            height=0.27, inflate=0.02, slope=-0.08, tone=1.3, joints=(Joint(pivot=(0, 1.15, 0), axis=Z, turn=0.35),),
        )
        for a in (math.pi * q / 2 for q in range(4))
    ]  # fmt: skip
    hub = limb((0, 1.15, 0.1), (0, 1.15, 0.36), 0.06, tone=0.5)
    cap = ball((0, 1.1, 0), 0.25, tone=0.55)
    return [
        cone((0, 0, 0), (0, 1.12, 0), 0.38, 0.22),
        cap,
        hub,
        *blades,
        box((0, 0.16, 0.36), (0.08, 0.16, 0.04), 0.01, tone=0.35),
    ]


SHAPES: dict[str, Shape] = {
    "sphere": Shape(build=_sphere, motion="tumble"),
    "box": Shape(build=_rounded_box, motion="tumble"),
    "torus": Shape(build=_torus, motion="tumble"),
    "capsule": Shape(build=_capsule, motion="tumble"),
    "cone": Shape(build=_cone, motion="turn"),
    "cylinder": Shape(build=_cylinder, motion="tumble"),
    "octahedron": Shape(build=_octahedron, motion="tumble"),
    "star": Shape(build=_star, motion="tumble"),
    "vase": Shape(build=_vase, motion="turn"),
    "arch": Shape(build=_arch, motion="turn"),
    "tree": Shape(build=_tree, motion="still"),
    "pine": Shape(build=_pine, motion="still"),
    "car": Shape(build=_car, motion="drive"),
    "person": Shape(build=_person, motion="walk"),
    "dog": Shape(build=_dog, motion="walk"),
    "horse": Shape(build=_horse, motion="walk"),
    "bird": Shape(build=_bird, motion="fly"),
    "fish": Shape(build=_fish, motion="fly"),
    "lamp": Shape(build=_lamp, motion="turn"),
    "snowman": Shape(build=_snowman, motion="turn"),
    "rocket": Shape(build=_rocket, motion="hover"),
    "house": Shape(build=_house, motion="still"),
    "boat": Shape(build=_boat, motion="drive"),
    "cactus": Shape(build=_cactus, motion="still"),
    "mushroom": Shape(build=_mushroom, motion="turn"),
    "chair": Shape(build=_chair, motion="turn"),
    "windmill": Shape(build=_windmill, motion="still"),
}
SHAPE_NAMES = tuple(SHAPES)
