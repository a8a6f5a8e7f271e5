"""What things are made of: one texture program, and a table whose rows are its parameters.

A material is a pattern in [0, 1] (noise, stripes, rings, bricks, ...), a ramp of three colours over it, grain, and
how it answers light. All patterns are evaluated in the object's own rest coordinates, so they move with it.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.synthetic.noise import Point, cell_noise, fractal_noise, hash_bits, smoothstep, uniform, value_noise, wave

PATTERNS = (
    "noise",
    "stripes",
    "rings",
    "checker",
    "bricks",
    "dots",
    "cells",
    "veins",
    "weave",
    "spots",
    "planks",
    "windows",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
    """One row of the table. Colours are sRGB hex, low to high pattern values."""

    pattern: str
    ramp: tuple[str, str, str]
    scale: float = 4.0  # pattern cells a metre
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    warp: float = 0.0  # how much noise bends the pattern, in cells
    low: float = 0.0  # pattern values mapped to the ends of the ramp
    high: float = 1.0
    grain: float = 0.1  # strength of a fine brightness noise
    bump: float = 0.0  # height of the pattern as relief
    gloss: float = 0.1  # strength of highlights
    rough: float = 0.6  # 0 mirror, 1 matte
    metal: float = 0.0  # 1: reflects with its own colour, no diffuse light
    sheen: float = 0.0  # bright rim of cloth, fur, ice
    glow: float = 0.0  # light given off by the high end of the ramp


def _m(pattern: str, ramp: str, **more) -> Material:
    numbers = {name: tuple(map(float, value)) if name == "stretch" else float(value) for name, value in more.items()}
    return Material(pattern=pattern, ramp=tuple(ramp.split()), **numbers)


MATERIALS: dict[str, Material] = {
    "wood": _m(
        "rings", "#5a3214 #a86a32 #d29a58", scale=9, warp=1.6, stretch=(1, 0.12, 1), grain=0.25, gloss=0.2, rough=0.5
    ),
    "marble": _m("veins", "#4d5561 #e4e4e6 #fbfaf6", scale=2.6, warp=2.0, high=0.45, grain=0.03, gloss=0.6, rough=0.15),
    "brick": _m("bricks", "#cfc4b4 #8e3a26 #b9573a", scale=6.5, grain=0.3, bump=0.5, gloss=0.03, rough=0.95),
    "gold": _m("noise", "#e09a18 #f4b42c #ffc846", scale=3, grain=0.04, metal=1, gloss=1, rough=0.2),
    "chrome": _m("noise", "#d8dde2 #eef1f4 #ffffff", scale=2, grain=0.0, metal=1, gloss=1, rough=0.03),
    "copper": _m(
        "noise", "#2f8f79 #c8643a #ee9468", scale=2.6, low=0.25, high=0.6, grain=0.1, metal=0.8, gloss=0.8, rough=0.3
    ),
    "moss": _m("noise", "#1f3d12 #4f7d22 #93b83c", scale=7, grain=0.7, bump=0.8, gloss=0.0, rough=1, sheen=0.2),
    "ice": _m(
        "cells", "#eafcff #9fdcf2 #62b4e0", scale=3.2, warp=0.5, grain=0.08, bump=0.2, gloss=1, rough=0.08, sheen=0.7
    ),
    "lava": _m(
        "cells", "#ffdb4a #ff5a0a #1d100d", scale=3.6, warp=0.8, low=0.0, high=0.42, grain=0.2, bump=0.4, glow=2.2
    ),
    "denim": _m("weave", "#1b2c55 #35528c #7f9ac8", scale=13, grain=0.4, gloss=0.0, rough=1, sheen=0.15),
    "zebra": _m(
        "stripes",
        "#14130f #14130f #f7f3ea",
        scale=4.2,
        warp=1.5,
        stretch=(0.5, 1, 0.7),
        low=0.42,
        high=0.58,
        grain=0.08,
        sheen=0.1,
    ),
    "polka dots": _m("dots", "#e02438 #e02438 #ffffff", scale=5, low=0.4, high=0.6, grain=0.0, gloss=0.3, rough=0.4),
    "checker": _m("checker", "#141414 #808080 #f4f4f4", scale=4.5, grain=0.0, gloss=0.4, rough=0.3),
    "fur": _m(
        "noise",
        "#4a2c18 #9a6434 #d9a868",
        scale=16,
        stretch=(1, 0.22, 1),
        warp=0.3,
        low=0.15,
        high=0.85,
        grain=0.6,
        bump=0.7,
        gloss=0,
        rough=1,
        sheen=0.6,
    ),
    "rust": _m(
        "noise", "#3a1c12 #9a4517 #d9822b", scale=5, low=0.2, high=0.75, grain=0.6, bump=0.5, gloss=0.05, rough=0.95
    ),
    "jade": _m(
        "veins", "#cfeeda #2f9e68 #12734a", scale=2.0, warp=1.4, high=0.7, grain=0.03, gloss=0.8, rough=0.12, sheen=0.35
    ),
    "porcelain": _m(
        "spots", "#1e3f9e #2d57c4 #fbfbff", scale=3.6, warp=0.7, low=0.35, high=0.55, grain=0.0, gloss=0.9, rough=0.08
    ),
    "concrete": _m("noise", "#7b7b78 #9c9c98 #bbbab5", scale=5, grain=0.35, bump=0.15, gloss=0.02, rough=1),
    "leather": _m(
        "cells", "#2b1008 #6e2f17 #8a4220", scale=16, low=0.0, high=0.5, grain=0.15, bump=0.5, gloss=0.4, rough=0.4
    ),
    "camouflage": _m("noise", "#20291a #5c6b32 #b8a468", scale=7, warp=1.0, low=0.42, high=0.58, grain=0.05, rough=1),
    "leopard": _m("spots", "#2a1a0c #8a5a20 #e8b458", scale=5.5, warp=0.4, low=0.3, high=0.55, grain=0.15, sheen=0.3),
    "tiger": _m(
        "stripes",
        "#1a120a #f07c14 #ffa338",
        scale=3.6,
        warp=2.2,
        stretch=(0.35, 1, 0.8),
        low=0.25,
        high=0.6,
        grain=0.12,
        sheen=0.25,
    ),
    "candy": _m(
        "stripes",
        "#e81f3c #ff9aa8 #ffffff",
        scale=3.4,
        stretch=(0.8, 1, 0.8),
        low=0.45,
        high=0.55,
        grain=0.0,
        gloss=0.7,
        rough=0.15,
    ),
    "rainbow": _m(
        "stripes", "#ff2f6e #ffd91f #1f8fff", scale=1.1, stretch=(0.25, 1, 0.25), grain=0.0, gloss=0.3, rough=0.4
    ),
    "wicker": _m("weave", "#5e3d1a #c08d4a #efd296", scale=7, grain=0.2, bump=0.9, gloss=0.1, rough=0.7),
    "emerald": _m(
        "cells", "#9af0c4 #08a856 #036034", scale=2.8, high=0.4, grain=0.0, bump=0.3, gloss=1, rough=0.05, sheen=0.5
    ),
    "amethyst": _m(
        "cells", "#e2b8ff #9038d8 #4c148c", scale=2.8, high=0.4, grain=0.0, bump=0.3, gloss=1, rough=0.05, sheen=0.5
    ),
    "pink velvet": _m("noise", "#a81862 #d8307f #f05a9c", scale=4, grain=0.25, gloss=0, rough=1, sheen=0.9),
    "mosaic": _m("cells", "#f3efe4 #1aa3b8 #f2a81d", scale=7, low=0.05, high=0.95, grain=0.05, gloss=0.5, rough=0.3),
    "sapphire glass": _m(
        "noise", "#0a3fd0 #1f66ff #58a0ff", scale=1.5, grain=0, gloss=1, rough=0.04, metal=0.35, sheen=0.6
    ),
}
MATERIAL_NAMES = tuple(MATERIALS)

# What grounds and sets are made of; not offered for objects.
SURFACES: dict[str, Material] = {
    "sand": _m(
        "stripes", "#cfa066 #dcb079 #e6be8a", scale=2.2, warp=1.3, stretch=(0.35, 1, 1.6), grain=0.2, bump=0.12, rough=1
    ),
    "adobe": _m("noise", "#b97a48 #cf9360 #e0ab7a", scale=3, grain=0.3, rough=1),
    "snow": _m("noise", "#b9cbe2 #d6e2f0 #e8eff7", scale=1.1, grain=0.08, bump=0.2, gloss=0.1, rough=0.8),
    "timber": _m("planks", "#4a2f1c #7a5233 #9a6d46", scale=2.6, grain=0.35, rough=0.8),
    "grass": _m("noise", "#2f6b1a #57992b #a5c94b", scale=3.5, grain=0.75, bump=0.5, rough=1),
    "plaster": _m("noise", "#e3d3b3 #efe2c8 #f8efdd", scale=2, grain=0.12, rough=1),
    "water": _m(
        "stripes",
        "#0c4c7a #125d90 #2078aa",
        scale=2.6,
        stretch=(0.5, 1, 1.1),
        warp=2.6,
        low=0.1,
        high=1.0,
        grain=0.0,
        bump=0.22,
        gloss=1,
        rough=0.08,
        metal=0.35,
    ),
    "coral stone": _m("cells", "#fff2dc #f0cfae #e8b08c", scale=3, grain=0.2, rough=0.9),
    "wet asphalt": _m(
        "noise", "#0c0e16 #171a24 #2a2f3d", scale=2.2, low=0.3, high=0.7, grain=0.3, gloss=1, rough=0.12, metal=0.3
    ),
    "lit windows": _m("windows", "#10121e #1a1e30 #ffd27a", scale=2.4, grain=0.05, glow=1.3, rough=0.5),
    "studio floor": _m("noise", "#8d8a88 #949190 #9c9997", scale=0.8, grain=0.02, gloss=0.5, rough=0.3),
    "studio wall": _m("noise", "#8fa3b8 #9bb0c6 #a8bdd2", scale=0.8, grain=0.03, rough=0.9),
    "mars soil": _m("noise", "#7a2f16 #b4532a #d98650", scale=2.2, grain=0.45, bump=0.5, rough=1),
    "mars rock": _m("cells", "#4a1c10 #8a3b20 #a85430", scale=2.2, grain=0.35, bump=0.5, rough=1),
    "leaf litter": _m("cells", "#241a0c #5d4a1c #8a7a2c", scale=7, grain=0.5, bump=0.7, rough=1),
    "bark": _m("planks", "#241a12 #46342a #66503c", scale=5, grain=0.6, bump=0.6, rough=1),
    "moon dust": _m("spots", "#48484e #6a6a72 #85858e", scale=1.2, warp=0.3, grain=0.3, bump=0.4, rough=1),
    "dark hull": _m("planks", "#1a1c26 #343a4c #4c546a", scale=2, grain=0.1, gloss=0.6, rough=0.3, metal=0.4),
    "seabed": _m(
        "stripes", "#6f9f90 #88b4a2 #a2c8b2", scale=1.6, stretch=(0.4, 1, 1.3), warp=1.0, grain=0.25, bump=0.15, rough=1
    ),
    "reef": _m("cells", "#d8587a #e88a70 #7a4a9a", scale=3.4, grain=0.3, bump=0.6, rough=0.9),
    "grey soil": _m("noise", "#5f6462 #7d827e #9a9e98", scale=2.4, grain=0.35, rough=1),
    "grey stone": _m("bricks", "#50555a #868b8e #a3a7a8", scale=2.4, grain=0.25, bump=0.4, rough=1),
    "autumn leaves": _m("cells", "#5a2408 #d8661a #f4bc2c", scale=6, grain=0.5, bump=0.6, rough=1),
    "red barn": _m("planks", "#6a1a12 #a02c1c #b84430", scale=3, grain=0.25, rough=0.9),
    "basalt": _m(
        "cells",
        "#ff7a14 #2a2422 #3a3432",
        scale=1.3,
        warp=0.9,
        low=0.0,
        high=0.22,
        grain=0.4,
        bump=0.6,
        glow=1.4,
        rough=1,
    ),
    "obsidian": _m("cells", "#0c0a10 #1e1a22 #34303a", scale=2.2, grain=0.2, gloss=0.7, rough=0.2),
    "icing": _m(
        "stripes", "#ff9ecb #ffc4de #fff0f6", scale=0.9, warp=0.6, low=0.4, high=0.6, grain=0.05, gloss=0.4, rough=0.4
    ),
    "biscuit": _m("dots", "#d99a52 #e6b06c #8a4f22", scale=3, low=0.55, high=0.7, grain=0.3, rough=0.9),
    "ballroom floor": _m(
        "checker", "#1c1820 #6a6068 #ece4d8", scale=1.1, grain=0.03, gloss=0.8, rough=0.12, metal=0.15
    ),
    "damask": _m("dots", "#6a1226 #8c1c34 #d8a24a", scale=2.4, low=0.5, high=0.65, grain=0.1, rough=0.8),
    "savanna grass": _m("noise", "#8a6a1e #c49a34 #e6c866", scale=3.5, grain=0.65, bump=0.4, rough=1),
    "clay wall": _m("noise", "#8a4a26 #a86236 #c07a4a", scale=2.5, grain=0.3, rough=1),
}
ALL_NAMES = (*MATERIALS, *SURFACES)


def linear(colour: str) -> list[float]:
    """An sRGB hex colour as linear light."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return list(np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4))


_NUMBERS = ("scale", "warp", "low", "high", "grain", "bump", "gloss", "rough", "metal", "sheen", "glow")


def _row(m: Material) -> list[float]:
    colours = [channel for colour in m.ramp for channel in linear(colour)]
    return [float(PATTERNS.index(m.pattern)), *m.stretch, *colours, *(getattr(m, name) for name in _NUMBERS)]


TABLE = np.array([_row(m) for m in (*MATERIALS.values(), *SURFACES.values())], np.float32)


class Surface(NamedTuple):
    """A material at n points; colours are triples, the rest (n,)."""

    albedo: Point
    relief: jax.Array  # metres
    gloss: jax.Array
    rough: jax.Array
    metal: jax.Array
    sheen: jax.Array
    glow: jax.Array


def _pattern(kind: jax.Array, q: Point, uv: Point, upright: jax.Array, noise: jax.Array) -> jax.Array:
    """All patterns at all points, then the one asked for: q in cells, uv on the facing plane, `upright` or not."""
    u, v = uv
    near, second, label = cell_noise(q)
    edge = jnp.clip((second - near) * 2.2, 0.0, 1.0)
    row = jnp.floor(v)
    brick_u = 0.5 * u + 0.5 * (row - 2.0 * jnp.floor(row * 0.5))
    brick = jnp.floor(brick_u)
    mortar = jnp.minimum(jnp.minimum(brick_u - brick, 1.0 - brick_u + brick) * 2.0, jnp.minimum(v - row, 1.0 - v + row))
    brick_tone = uniform(hash_bits(brick.astype(jnp.int32), row.astype(jnp.int32)))
    laid = smoothstep(0.05, 0.12, mortar)
    column = jnp.floor(u)
    dot_u, dot_v = u - column - 0.5, v - row - 0.5
    lit = uniform(hash_bits(column.astype(jnp.int32), row.astype(jnp.int32), jnp.int32(5)))
    pane = (jnp.abs(dot_u) < 0.3) & (jnp.abs(dot_v) < 0.34)
    checks = wave(0.5 * u) * wave(0.5 * v)
    patterns = (
        noise,
        0.5 + 0.5 * wave(q[1] + 0.6 * q[0] + 0.4 * q[2]),
        0.5 + 0.5 * wave(jnp.sqrt(q[0] * q[0] + q[2] * q[2] + 1e-6) + 0.35 * q[1]),
        jnp.clip(0.5 + 6.0 * checks, 0.0, 1.0),
        laid * (0.5 + 0.5 * brick_tone),
        1.0 - jnp.sqrt(dot_u * dot_u + dot_v * dot_v + 1e-6) * 1.5,
        edge * (0.45 + 0.55 * label),
        jnp.clip(jnp.abs(2.0 * noise - 1.0) * 2.5, 0.0, 1.0),
        0.5 + 0.3 * wave(u + v) + 0.2 * wave(0.5 * (u - v)),
        near + 0.25 * jnp.abs(near - 0.3),
        laid * (0.35 + 0.65 * uniform(hash_bits(row.astype(jnp.int32), jnp.int32(3)))),
        jnp.where(pane & upright, jnp.where(lit > 0.6, 0.6 + 0.4 * lit, 0.3), 0.0),
    )
    return jnp.select([kind == i for i in range(len(patterns))], patterns)


def surface(index: jax.Array, point: Point, facing: jax.Array, footprint: jax.Array) -> Surface:
    """Evaluates materials.

    Args:
      index: row of TABLE at each point (n,).
      point: rest coordinates in metres, a triple of (n,).
      facing: the axis the surface faces (n,).
      footprint: size of a pixel on the surface in metres (n,); detail below it fades to its mean.
    """
    column = jnp.asarray(TABLE).T[:, index]
    kind, stretch, ramp = column[0].astype(jnp.int32), column[1:4], column[4:13]
    scale, warp, low, high, grain, bump, gloss, rough, metal, sheen, glow = column[13:]
    q = [axis * scale * s for axis, s in zip(point, stretch, strict=True)]
    slow = [axis * jnp.where(warp > 0.0, 0.6, 1.0) + 3.7 for axis in q]
    noise = jnp.clip(1.6 * fractal_noise(slow, 3) - 0.3, 0.0, 1.0)
    bent = [axis + warp * (noise - 0.5) for axis in q]
    flat = [axis * scale for axis in point]
    u = jnp.where(facing == 0, flat[2], flat[0])
    v = jnp.where(facing == 1, flat[2], flat[1])
    value = _pattern(kind, bent, (u, v), facing != 1, noise)
    fade = jnp.clip(1.5 - 1.6 * footprint * scale, 0.0, 1.0)
    level = jnp.clip((value - low) / (high - low), 0.0, 1.0)
    level = 0.55 + (level - 0.55) * fade
    fine = value_noise([axis * 38.0 for axis in point], 9) + value_noise([axis * 17.0 for axis in point], 11) - 1.0
    speckle = 1.0 + grain * fine * jnp.clip(1.5 - 30.0 * footprint, 0.0, 1.0)
    first, last = jnp.clip(2.0 * level, 0.0, 1.0), jnp.clip(2.0 * level - 1.0, 0.0, 1.0)
    albedo = [
        (a + (b - a) * first + (c - b) * last) * speckle for a, b, c in zip(ramp[:3], ramp[3:6], ramp[6:], strict=True)
    ]
    # Cracks glow where the ramp starts (lava, basalt), windows where it ends.
    hot = jnp.where(kind == PATTERNS.index("windows"), last, jnp.square(1.0 - level))
    relief = 0.5 * bump * level * fade / scale + 0.005 * grain * fine
    return Surface(albedo, relief, gloss, rough, metal, sheen, glow * hot)
