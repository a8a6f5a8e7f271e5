"""The shading pass: materials, sun with soft shadows, sky light, reflections and fog for a traced buffer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen1_jax.synthetic.content import Content
from gen1_jax.synthetic.distance import Solids, box_interval, local, local_distance, near_points, only, turned
from gen1_jax.synthetic.environments import ENVIRONMENT_TABLE, LIGHT_TABLE, horizon_colour, sky, sky_glow
from gen1_jax.synthetic.grid import TILE, Grid
from gen1_jax.synthetic.materials import TABLE, surface
from gen1_jax.synthetic.noise import Point, cell_noise, smoothstep
from gen1_jax.synthetic.structure import Structure
from gen1_jax.synthetic.tracer import FIRST_OBJECT, GROUND, SET, SKY, Buffer

SHADOW_STEPS = 10
_REACH = 7.0  # how far shadows fall, metres


class Shaded(NamedTuple):
    """What styles start from; triples of (n,). Colour and albedo are display-referred in [0, 1], light is linear."""

    colour: Point
    albedo: Point
    light: Point


def _dot(a: Point, b: Point) -> jax.Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _soft_shadow(casters: Solids, origin: Point, sun: jax.Array, softness: jax.Array) -> jax.Array:
    """Share of the sun that arrives: the narrowest cone along the ray (https://iquilezles.org/articles/rmshadows).

    The least of gap / distance over all parts is found part by part, between entry into and exit from its box.
    """
    ray = [jnp.broadcast_to(axis, origin[0].shape) for axis in sun]

    def one(index: jax.Array, lit: jax.Array) -> jax.Array:
        row = casters.rows[index]
        start, along = local(row, origin), turned(row, ray)
        reach = jnp.sqrt(sum(jnp.square(axis) for axis in start))
        enter, leave = box_interval(row, start, along, 0.02 + reach / softness)
        t, leave = jnp.maximum(enter, 0.03), jnp.minimum(leave, _REACH)
        least_step = (leave - t) * (1.0 / SHADOW_STEPS)
        for _ in range(SHADOW_STEPS):
            gap = local_distance(row, [s + a * t for s, a in zip(start, along, strict=True)])
            lit = jnp.where(t <= leave, jnp.minimum(lit, softness * gap / t), lit)
            t = t + jnp.maximum(jnp.maximum(gap, least_step), 1e-3)
        return lit

    lit = jax.lax.fori_loop(0, casters.count, one, jnp.ones_like(origin[0]))
    lit = jnp.clip(lit, 0.0, 1.0)
    return lit * lit * (3.0 - 2.0 * lit)


def _emboss(buffer: Buffer, relief: jax.Array) -> Point:
    """Tilts the normals by a relief (Mikkelsen 2010, "Bump mapping unparametrized surfaces on the GPU")."""

    def slope(values: jax.Array, axis: int) -> jax.Array:
        change = jnp.diff(values.reshape(TILE, TILE), axis=axis)
        last = jax.lax.slice_in_dim(change, TILE - 2, TILE - 1, axis=axis)
        return jnp.concatenate([change, last], axis).reshape(-1)

    same_x, same_y = (slope(buffer.part * 8 + buffer.ids, axis) == 0 for axis in (1, 0))
    across, down = ([slope(p, axis) for p in buffer.point] for axis in (1, 0))
    rise_x = jnp.where(same_x, slope(relief, 1), 0.0)
    rise_y = jnp.where(same_y, slope(relief, 0), 0.0)
    n = buffer.normal

    def cross(a: Point, b: Point) -> Point:
        return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]

    one, two = cross(down, n), cross(n, across)
    area = _dot(across, one)
    sign = jnp.where(area < 0.0, -1.0, 1.0)
    tilted = [jnp.abs(area) * n[i] - sign * (rise_x * one[i] + rise_y * two[i]) for i in range(3)]
    length = _dot(tilted, tilted)
    good = same_x & same_y & (length > 1e-16)
    scale = jax.lax.rsqrt(jnp.maximum(length, 1e-16))
    return [jnp.where(good, t * scale, a) for t, a in zip(tilted, n, strict=True)]


def _display(linear: jax.Array) -> jax.Array:
    """Filmic shoulder, then the sRGB gamma."""
    x = jnp.maximum(linear, 0.0)
    x = x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14)  # Narkowicz' fit of the ACES curve
    return jnp.power(jnp.clip(x, 1e-6, 1.0), 1.0 / 2.2)


def shade(structure: Structure, content: Content, buffer: Buffer, solids: Solids, grid: Grid) -> Shaded:
    """Lights one tile of a frame; `solids` are those of the whole frame."""
    environment = jnp.asarray(ENVIRONMENT_TABLE)[content.environment]
    light = jnp.asarray(LIGHT_TABLE)[content.light]
    is_sky, is_ground = buffer.ids == SKY, buffer.ids <= GROUND
    own = jnp.asarray(content.materials)[jnp.clip(buffer.ids - FIRST_OBJECT, 0, 4)]
    stage = jnp.where(is_ground, environment[0], environment[1]).astype(jnp.int32)
    index = jnp.where(buffer.ids > SET, own, stage)
    facing_eye = jnp.clip(-_dot(buffer.ray, buffer.normal), 0.0, 1.0)
    pixel = structure.camera.tangent * (2.0 / grid.shorter) * buffer.range
    made_of = surface(index, buffer.texture, buffer.facing, pixel / jnp.sqrt(jnp.maximum(facing_eye, 0.04)))
    normal = _emboss(buffer, made_of.relief * jnp.clip(1.5 - 25.0 * pixel, 0.0, 1.0))

    elevation, flat = light[0], light[1]
    sun = jnp.stack([jnp.sin(structure.sun_azimuth) * flat, elevation, jnp.cos(structure.sun_azimuth) * flat])
    toward = _dot(normal, sun)
    origin = [p + 0.012 * n for p, n in zip(buffer.point, buffer.normal, strict=True)]
    wanted = (toward > 0.0) & ~is_sky & (buffer.range < 40.0)
    casters = only(solids, near_points(solids, origin, wanted, sun, _REACH, 1.0 / light[16]))
    shadow = _soft_shadow(casters, origin, sun, light[16])
    caustic = _caustics(environment[16], buffer.point)
    direct = jnp.maximum(toward, 0.0) * shadow * caustic
    rim_from = jnp.array([-1.0, 0.1, -1.0]) * jnp.stack([sun[0], jnp.float32(1.0), sun[2]]) / flat
    rim = light[17] * jnp.maximum(_dot(normal, rim_from), 0.0) * buffer.occlusion

    ground_tint = jnp.asarray(TABLE)[environment[0].astype(jnp.int32), 7:10]
    horizon = horizon_colour(environment, light)
    above = 0.5 + 0.5 * normal[1]
    irradiance = []
    for i in range(3):
        ambient = light[5] * light[6 + i] * (0.7 + 0.3 * horizon[i])
        bounce = 0.35 * ground_tint[i] * (ambient + 0.5 * light[2 + i] * elevation)
        sky_light = (ambient * above + bounce * (1.0 - above)) * buffer.occlusion
        irradiance.append(direct * light[2 + i] + rim * light[12 + i] + sky_light)

    mirrored = [r + 2.0 * facing_eye * n for r, n in zip(buffer.ray, normal, strict=True)]
    reflected = sky_glow(environment, light, sun, mirrored)
    # Mirrors want something to mirror: a darker far ground below the horizon and the skyline's colour just above it.
    below = smoothstep(0.06, -0.12, mirrored[1]) * (~is_ground)
    nadir = 0.35 + 0.65 * jnp.clip(1.0 + mirrored[1], 0.0, 1.0)
    band = 0.75 * smoothstep(0.3, 0.1, mirrored[1]) * (~is_ground)
    for i in range(3):
        floor = (
            (0.4 * ground_tint[i] + 0.2 * jnp.sum(ground_tint))
            * (light[5] * light[6 + i] + 0.5 * light[2 + i] * elevation)
            * nadir
        )
        far = 0.35 * environment[9 + i] * (light[5] * light[6 + i] + 0.2 * light[2 + i])
        mixed = reflected[i] + (far - reflected[i]) * band
        reflected[i] = mixed + (floor - mixed) * below
    fresnel = jnp.power(1.0 - facing_eye, 5.0)
    half = [s - r for s, r in zip(sun, buffer.ray, strict=True)]
    shine = jnp.clip(_dot(normal, half) * jax.lax.rsqrt(_dot(half, half) + 1e-6), 0.0, 1.0)
    power = 4.0 / jnp.square(made_of.rough + 0.06) + 4.0
    spark = jnp.exp(power * (shine - 1.0)) * made_of.gloss * shadow * (toward > 0.0) * (1.4 - made_of.rough)
    mirror = (0.04 + 0.9 * fresnel) * made_of.gloss * (1.0 - made_of.rough)
    rimmed = made_of.sheen * jnp.power(1.0 - facing_eye, 3.0)
    mist = 1.0 - jnp.exp(-environment[15] * buffer.range)
    # Tiles without sky skip it.
    backdrop = jax.lax.cond(jnp.any(is_sky), lambda ray: sky(environment, light, sun, ray), lambda ray: ray, buffer.ray)

    colours, albedos = [], []
    for i in range(3):
        albedo = jnp.clip(made_of.albedo[i] * buffer.tone, 0.0, 0.95)
        diffuse = albedo * irradiance[i] * (1.0 - made_of.metal)
        metallic = albedo * made_of.metal * (reflected[i] * 1.3 * (0.4 + 0.6 * buffer.occlusion) + 0.2 * irradiance[i])
        glint = spark * light[2 + i] * (1.0 + made_of.metal * (albedo - 1.0))
        colour = diffuse + metallic + glint + mirror * reflected[i] * buffer.occlusion
        colour = colour + rimmed * irradiance[i] * (0.3 + 0.7 * albedo) + made_of.glow * made_of.albedo[i]
        colour = colour + (horizon[i] - colour) * mist
        colour = jnp.where(is_sky, backdrop[i], colour) * light[18]
        colours.append(_display(colour))
        albedos.append(_display(jnp.where(is_sky, backdrop[i], albedo + 0.5 * made_of.glow * made_of.albedo[i])))
    lights = [jnp.where(is_sky, 1.0, channel) for channel in irradiance]
    return Shaded(colours, albedos, lights)


def _caustics(strength: jax.Array, point: Point) -> jax.Array:
    """Bright nets of light on everything under water."""
    near, second, _ = cell_noise([point[0] * 1.8 + 0.4 * point[1], point[2] * 1.8 - 0.3 * point[1]], 61)
    net = jnp.clip(1.0 - 3.0 * (second - near), 0.0, 1.0)
    return 1.0 + strength * (1.6 * net * net - 0.35)
