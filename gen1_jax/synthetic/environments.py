"""Where and when: environments (ground, set, sky, fog), lights, and the painter of skies."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.synthetic.materials import ALL_NAMES, linear
from gen1_jax.synthetic.noise import Point, fractal_noise, hash_bits, smoothstep, uniform, value_noise

SKYLINES = ("none", "ridges", "towers", "trunks", "mesas")
LIGHTS: tuple[str, ...] = ("noon", "dusk", "overcast", "neon night")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Environment:
    """One row of the table; colours are sRGB hex."""

    ground: str
    walls: str
    zenith: str
    horizon: str
    skyline: str = "none"
    skyline_colour: str = "#808080"
    skyline_height: float = 0.0  # tangent of its elevation
    clouds: float = 0.3
    stars: float = 0.0
    fog: float = 0.008  # per metre
    caustics: float = 0.0
    dark: float = 0.0  # 1: the sky is dark at any hour
    lights: tuple[str, ...] = LIGHTS


def _e(ground: str, walls: str, zenith: str, horizon: str, **more) -> Environment:
    more = {name: float(value) if isinstance(value, int) else value for name, value in more.items()}
    return Environment(ground=ground, walls=walls, zenith=zenith, horizon=horizon, **more)


ENVIRONMENTS: dict[str, Environment] = {
    "desert": _e(
        "sand", "adobe", "#2f7fd0", "#f2dcb0", skyline="mesas", skyline_colour="#b8683c", skyline_height=0.1, clouds=0.1
    ),
    "snow": _e(
        "snow",
        "timber",
        "#6aa6de",
        "#e8f2fc",
        skyline="ridges",
        skyline_colour="#c4d4ea",
        skyline_height=0.2,
        clouds=0.3,
        fog=0.012,
    ),
    "meadow": _e(
        "grass",
        "plaster",
        "#2a78d8",
        "#bfe0fa",
        skyline="ridges",
        skyline_colour="#4c8a4a",
        skyline_height=0.07,
        clouds=0.6,
    ),
    "sea": _e("water", "coral stone", "#1f7ad8", "#c8ecf8", clouds=0.5, fog=0.006),
    "city at night": _e(
        "wet asphalt",
        "lit windows",
        "#04060f",
        "#232a4e",
        skyline="towers",
        skyline_colour="#0d1020",
        skyline_height=0.36,
        clouds=0.0,
        stars=0.3,
        dark=1,
        lights=("neon night",),
    ),
    "studio": _e("studio floor", "studio wall", "#8f969e", "#b4b2b0", clouds=0.0, fog=0.03),
    "Mars": _e(
        "mars soil",
        "mars rock",
        "#c88a5c",
        "#f0c394",
        skyline="mesas",
        skyline_colour="#94482a",
        skyline_height=0.14,
        clouds=0.0,
        fog=0.012,
    ),
    "forest": _e(
        "leaf litter",
        "bark",
        "#8fb878",
        "#bcd69a",
        skyline="trunks",
        skyline_colour="#2c3a20",
        skyline_height=0.6,
        clouds=0.0,
        fog=0.03,
    ),
    "outer space": _e(
        "moon dust",
        "dark hull",
        "#020208",
        "#0a0a1c",
        clouds=0.0,
        stars=1.0,
        fog=0.0,
        dark=1,
        lights=("noon", "neon night"),
    ),
    "underwater": _e(
        "seabed", "reef", "#0b5f96", "#2fa6b4", clouds=0.0, fog=0.075, caustics=1.0, lights=("noon", "dusk", "overcast")
    ),
    "fog": _e("grey soil", "grey stone", "#bcc4c8", "#ccd2d4", clouds=0.0, fog=0.085),
    "autumn park": _e(
        "autumn leaves",
        "red barn",
        "#5a94d0",
        "#f6dcae",
        skyline="ridges",
        skyline_colour="#c46a1e",
        skyline_height=0.12,
        clouds=0.4,
    ),
    "volcano": _e(
        "basalt",
        "obsidian",
        "#2a1418",
        "#8a2c14",
        skyline="ridges",
        skyline_colour="#1c1012",
        skyline_height=0.3,
        clouds=0.5,
        fog=0.03,
        dark=0.5,
        lights=("noon", "dusk", "neon night"),
    ),
    "candy land": _e(
        "icing",
        "biscuit",
        "#8fd4ff",
        "#ffd9ee",
        skyline="ridges",
        skyline_colour="#c48ae0",
        skyline_height=0.13,
        clouds=0.8,
    ),
    "ballroom": _e(
        "ballroom floor",
        "damask",
        "#3a1420",
        "#7a3a34",
        skyline="trunks",
        skyline_colour="#e0b878",
        skyline_height=2.0,
        clouds=0.0,
        fog=0.01,
        lights=("noon", "dusk", "overcast"),
    ),
    "savanna": _e(
        "savanna grass",
        "clay wall",
        "#4a90d8",
        "#fbe2a4",
        skyline="ridges",
        skyline_colour="#8a8a3c",
        skyline_height=0.045,
        clouds=0.25,
    ),
}
ENVIRONMENT_NAMES = tuple(ENVIRONMENTS)

_ENV_NUMBERS = ("skyline_height", "clouds", "stars", "fog", "caustics", "dark")


def _row(e: Environment) -> list[float]:
    colours = [c for name in ("zenith", "horizon", "skyline_colour") for c in linear(getattr(e, name))]
    surfaces = [float(ALL_NAMES.index(e.ground)), float(ALL_NAMES.index(e.walls))]
    return [*surfaces, float(SKYLINES.index(e.skyline)), *colours, *(getattr(e, name) for name in _ENV_NUMBERS)]


ENVIRONMENT_TABLE = np.array([_row(e) for e in ENVIRONMENTS.values()], np.float32)


def _light(elevation, sun, strength, ambient, tint, glow, blend, softness, rim, rim_strength, exposure) -> list[float]:
    angle = math.radians(elevation)
    numbers = (blend, softness, rim_strength, exposure)
    return [
        math.sin(angle),
        math.cos(angle),
        *(strength * c for c in linear(sun)),
        ambient,
        *linear(tint),
        *linear(glow),
        *linear(rim),
        *numbers,
    ]


# elevation, sun colour, strength | ambient, its tint, colour of the horizon, how far the sky takes it | shadow
# softness, rim light, its strength | exposure
LIGHT_TABLE = np.array(
    [
        _light(50, "#fff1d8", 2.3, 0.62, "#eaf2ff", "#ffffff", 0.0, 14.0, "#ffffff", 0.0, 0.95),
        _light(18, "#ffb070", 2.5, 0.5, "#a79cdc", "#ff9660", 0.68, 9.0, "#ff6a8a", 0.2, 1.05),
        _light(68, "#dfe6ee", 0.6, 1.1, "#dfe4ea", "#aab2ba", 0.8, 2.5, "#ffffff", 0.0, 0.95),
        _light(20, "#ff6cbc", 1.9, 0.4, "#7068ea", "#35105c", 0.95, 8.0, "#18d4ff", 1.5, 1.25),
    ],
    np.float32,
)


def horizon_colour(environment: jax.Array, light: jax.Array) -> jax.Array:
    """Linear colour of the haze at the horizon (3,), which is also the colour of fog."""
    return environment[6:9] + (light[9:12] - environment[6:9]) * _blend(environment, light)


def _blend(environment: jax.Array, light: jax.Array) -> jax.Array:
    return light[15] * (1.0 - 0.5 * environment[17])


def sky_glow(environment: jax.Array, light: jax.Array, sun: jax.Array, ray: Point) -> Point:
    """The smooth part of the sky, which surfaces mirror: a gradient and a halo around the sun.

    Args:
      environment: a row of ENVIRONMENT_TABLE. light: a row of LIGHT_TABLE. sun: unit direction to the sun (3,).
      ray: directions, a triple of (n,).
    """
    zenith, dark = environment[3:6], environment[17]
    low = horizon_colour(environment, light)
    grey = zenith[0] * 0.3 + zenith[1] * 0.6 + zenith[2] * 0.1
    # What the hour leaves of the zenith: its brightness in the tint of the ambient light.
    high = zenith * (0.4 * light[5] * light[6:9]) + 0.6 * grey * light[6:9]
    high = zenith + (high - zenith) * _blend(environment, light)
    rise = jnp.sqrt(smoothstep(-0.02, 0.75, ray[1]))
    toward = jnp.clip(sum(axis * sun[i] for i, axis in enumerate(ray)), 0.0, 1.0)
    halo = 0.1 * jnp.square(jnp.square(toward * toward)) * (1.0 - 0.7 * dark)
    return [low[i] + (high[i] - low[i]) * rise + halo * light[2 + i] for i in range(3)]


def sky(environment: jax.Array, light: jax.Array, sun: jax.Array, ray: Point) -> Point:
    """Linear colour of the sky in full: the glow with the sun's disc, clouds, stars and the skyline; see `sky_glow`."""
    clouds, stars, dark = environment[13], environment[14], environment[17]
    colour = sky_glow(environment, light, sun, ray)
    x, y, z = ray
    toward = jnp.clip(sum(axis * sun[i] for i, axis in enumerate(ray)), 0.0, 1.0)
    disc = 3.0 * smoothstep(0.9985, 0.9995, toward) * (1.0 - 0.7 * dark) * (light[16] > 3.0)
    flat = 1.0 / (jnp.maximum(y, 0.0) + 0.25)
    bank = fractal_noise([x * flat * 2.2, z * flat * 2.2], 4, 21)
    cover = smoothstep(0.62 - 0.3 * clouds, 0.85 - 0.2 * clouds, bank) * smoothstep(0.02, 0.2, y) * clouds
    white = light[2:5] * 0.28 + light[5] * light[6:9] * 0.55
    spark = uniform(hash_bits(*(jnp.floor(axis * 70.0).astype(jnp.int32) for axis in ray)))
    nightly = jnp.maximum(stars, 0.35 * (light[15] > 0.9) * (clouds > 0.0))
    twinkle = nightly * 1.6 * smoothstep(0.992, 1.0, spark) * smoothstep(0.0, 0.1, y)
    nebula = stars * 0.16 * jnp.square(fractal_noise([axis * 2.5 for axis in ray], 3, 31))
    tints = (1.0, 0.45, 1.6)
    colour = [
        c + (white[i] - c) * cover + disc * light[2 + i] + twinkle + nebula * tints[i] for i, c in enumerate(colour)
    ]
    low = horizon_colour(environment, light)
    return _skyline(colour, low, environment[2], environment[9:12], environment[12], light, ray)


def _skyline(
    colour: Point, low: jax.Array, kind: jax.Array, outline: jax.Array, height: jax.Array, light: jax.Array, ray: Point
) -> Point:
    """Paints far ridges, towers with lit windows, or trunks in front of the sky; far away, so it has no depth."""
    x, y, z = ray
    flat = jax.lax.rsqrt(x * x + z * z + 1e-6)
    slope, around = y * flat, jnp.arctan2(x, z) * (48.0 / (2.0 * math.pi))
    circle = [x * flat * 3.0, z * flat * 3.0]
    ridge = 1.4 * fractal_noise(circle, 4, 41) - 0.1
    column = jnp.floor(around)
    tall = uniform(hash_bits(column.astype(jnp.int32), jnp.int32(7)))
    inside = around - column
    tower = (0.25 + 0.75 * tall) * (jnp.abs(inside - 0.5) < 0.36 + 0.14 * tall)
    jitter = value_noise([circle[0] * 9.0, circle[1] * 9.0], 43)
    trunk = jnp.where(smoothstep(0.42, 0.58, jitter) > 0.55, 1.0, 0.12 * ridge)
    mesa = smoothstep(0.42, 0.5, ridge) * (0.7 + 0.2 * smoothstep(0.6, 0.64, ridge)) + 0.06
    top = height * jnp.select([kind == i for i in range(1, 5)], [ridge, tower, trunk, mesa], 0.0)
    covered = smoothstep(-0.006, 0.006, top - slope) * (height > 0.0) * (y > -0.05)
    storey, bay = slope * 42.0, inside * 5.0
    floor, side = jnp.floor(storey), jnp.floor(bay)
    pane = (jnp.abs(storey - floor - 0.5) < 0.3) & (jnp.abs(bay - side - 0.5) < 0.3)
    lit = uniform(hash_bits(column.astype(jnp.int32), floor.astype(jnp.int32), side.astype(jnp.int32)))
    window = (kind == 2) * pane * (lit > 0.6) * 0.9
    shade = light[5] * light[6:9] * 0.55 + light[2:5] * 0.14
    haze = jnp.clip(0.45 - slope / (2.5 * height + 1e-3), 0.08, 0.5)
    painted = [
        outline[i] * shade[i] * (1.0 - haze) + low[i] * haze + window * lamp for i, lamp in enumerate((1.0, 0.72, 0.32))
    ]
    return [c + (p - c) * covered for c, p in zip(colour, painted, strict=True)]
