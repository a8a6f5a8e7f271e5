"""The geometry pass: sphere tracing of one frame into a buffer that knows nothing of materials or light."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen1_jax.synthetic.animation import Pose, View
from gen1_jax.synthetic.distance import (
    FAR,
    Solids,
    box_interval,
    in_cone,
    local,
    local_distance,
    near_points,
    nearest,
    only,
    part_distance,
    turned,
)
from gen1_jax.synthetic.grid import Grid
from gen1_jax.synthetic.noise import Point
from gen1_jax.synthetic.structure import MAX_OBJECTS, Structure, Terrain
from gen1_jax.synthetic.terrain import ground_waves

SKY, GROUND, SET, FIRST_OBJECT = 0, 1, 2, 3  # values of the id channel; object i has id FIRST_OBJECT + i
SPHERE_STEPS, NEWTON_STEPS = 8, 4
_HILL_STEPS = 56
AO_REACH = 0.7
_NEAR = 0.05


class Buffer(NamedTuple):
    """What is seen at n samples: every field is (n,) or a triple of (n,). Depends on the structure alone."""

    ids: jax.Array  # SKY, GROUND, SET or FIRST_OBJECT + slot
    depth: jax.Array  # along the optical axis, metres; FAR in the sky
    range: jax.Array  # along the ray, metres
    ray: Point  # unit direction
    point: Point  # world position
    normal: Point  # world, unit, towards the eye's side
    texture: Point  # position in the frame that the texture is painted in: the object's, at rest
    facing: jax.Array  # int: the axis of that frame that the normal is closest to
    tone: jax.Array  # brightness of the part relative to its object
    occlusion: jax.Array  # ambient light that arrives, 0 to 1
    part: jax.Array  # index of the part, 0 where there is none


def rays(view: View, grid: Grid, x: jax.Array, y: jax.Array) -> tuple[Point, jax.Array]:
    """Unit directions through pixel coordinates, and their cosine to the optical axis."""
    scale = view.tangent * (2.0 / grid.shorter)
    u, v = (x - (grid.width - 1) / 2.0) * scale, ((grid.height - 1) / 2.0 - y) * scale
    cosine = jax.lax.rsqrt(u * u + v * v + 1.0)
    right, up, ahead = view.axes
    return [(right[i] * u + up[i] * v + ahead[i]) * cosine for i in range(3)], cosine


def project(view: View, grid: Grid, point: Point, is_far: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pixel coordinates of world points; where `is_far`, `point` is a direction to infinity."""
    offset = [axis - jnp.where(is_far, 0.0, view.eye[i]) for i, axis in enumerate(point)]
    right, up, ahead = (sum(row[i] * offset[i] for i in range(3)) for row in view.axes)
    scale = (grid.shorter / 2.0) / (view.tangent * jnp.maximum(ahead, 1e-3))
    return right * scale + (grid.width - 1) / 2.0, (grid.height - 1) / 2.0 - up * scale


def march(eye: jax.Array, ray: Point, terrain: Terrain) -> jax.Array:
    """Distance along each ray to the ground; `2 FAR` where it is not met."""
    drop = jnp.minimum(ray[1], -1e-6)
    top = terrain.level + 1.1 * terrain.amplitude
    plane = jnp.where(ray[1] < -1e-6, (terrain.level - eye[1]) / drop, 2.0 * FAR)

    def above(t: jax.Array) -> jax.Array:
        x, y, z = (eye[i] + ray[i] * t for i in range(3))
        return y - terrain.level - ground_waves(terrain, x, z)

    def step(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        before, t = state
        gap = above(t)
        ahead = t + jnp.maximum(0.45 * gap, 0.02 * t)
        under = gap < 0.0
        return jnp.where(under, before, t), jnp.where(under, t, ahead)

    def halve(_: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = state
        middle = 0.5 * (low + high)
        under = above(middle) < 0.0
        return jnp.where(under, low, middle), jnp.where(under, middle, high)

    def hills() -> jax.Array:
        enter = jnp.maximum(jnp.where(eye[1] > top, (top - eye[1]) / drop, _NEAR), _NEAR)
        low, high = jax.lax.fori_loop(0, _HILL_STEPS, step, (enter, jnp.minimum(enter, 2.0 * FAR)))
        met = (above(high) < 0.0) & (high < 2.0 * FAR)
        low, high = jax.lax.fori_loop(0, 20, halve, (low, high))
        return jnp.where(met, high, 2.0 * FAR)

    return jax.lax.cond(terrain.amplitude > 0.0, hills, lambda: plane)


def _hit(row: jax.Array, eye: jax.Array, ray: Point, limit: jax.Array) -> jax.Array:
    """Distance along each ray to one part, or `2 FAR` if it is missed or beyond `limit`.

    Sphere tracing inside the bounding box brings every ray close; as the distance to a convex part is convex along a
    ray, Newton's method then closes in without overshooting, also where sphere tracing creeps along a surface.
    """
    origin, along = local(row, eye), turned(row, ray)
    start, end = box_interval(row, origin, along, 0.002)
    end = jnp.minimum(end, limit)

    def gap(t: jax.Array) -> jax.Array:
        return local_distance(row, [o + a * t for o, a in zip(origin, along, strict=True)])

    first = t = jnp.maximum(start, _NEAR)
    for _ in range(SPHERE_STEPS):
        t = t + jnp.where(t < end, gap(t), 0.0)
    for _ in range(NEWTON_STEPS):
        value, slope = jax.jvp(gap, (t,), (jnp.ones_like(t),))
        t = t + jnp.clip(value / jnp.maximum(-slope, 0.02), -0.05, 0.3)
    met = (first < end) & (t > first - 0.01) & (t < end + 0.01) & (jnp.abs(gap(t)) < 3e-4 * t) & (t < limit)
    return jnp.where(met, t, 2.0 * FAR)


def trace_parts(solids: Solids, eye: jax.Array, ray: Point, limit: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distance along each ray to the first part nearer than `limit` (`2 FAR`: none), and its row in Parts.

    Each part is traced alone: what is first then follows from a comparison, and parts do not slow each other's rays.
    """

    def one(index: jax.Array, best: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        t, part = best
        this = _hit(solids.rows[index], eye, ray, jnp.minimum(t, limit))
        return jnp.minimum(t, this), jnp.where(this < t, solids.index[index], part)

    nothing = (jnp.full_like(ray[0], 2.0 * FAR), jnp.zeros(ray[0].shape, jnp.int32))
    return jax.lax.fori_loop(0, solids.count, one, nothing)


def _gradient(function, point: Point) -> Point:
    """Unit gradient of an elementwise function of a point."""
    slopes = jax.grad(lambda p: jnp.sum(function(p)))(list(point))
    norm = jax.lax.rsqrt(sum(s * s for s in slopes) + 1e-12)
    return [s * norm for s in slopes]


def _occlusion(solids: Solids, terrain: Terrain, point: Point, normal: Point) -> jax.Array:
    """Ambient occlusion from five distances along the normal (https://iquilezles.org/articles/nvscene2008/rwwtt.pdf)."""

    def tap(index: jax.Array, blocked: jax.Array) -> jax.Array:
        height = 0.03 + 0.045 * index * (1.0 + 0.5 * index)
        probe = [p + n * height for p, n in zip(point, normal, strict=True)]
        free = jnp.minimum(
            nearest(solids, probe), 0.9 * (probe[1] - terrain.level - ground_waves(terrain, probe[0], probe[2]))
        )
        return blocked + jnp.maximum(height - free, 0.0) / height * (0.34 - 0.04 * index)

    return jnp.clip(1.0 - jax.lax.fori_loop(0, 5, tap, jnp.zeros_like(point[0])), 0.0, 1.0)


def trace(structure: Structure, view: View, solids: Solids, x: jax.Array, y: jax.Array, grid: Grid) -> Buffer:
    """Traces the samples at pixel coordinates (x, y), which should be close together: only parts near them are tested.

    `view` and `solids` are those of `structure` at one time.
    """
    terrain, parts = structure.terrain, structure.parts
    ray, cosine = rays(view, grid, x, y)
    ground = march(view.eye, ray, terrain)
    visible = only(solids, in_cone(solids, view.eye, ray))
    t, part = trace_parts(visible, view.eye, ray, ground)
    is_part = t < ground
    t = jnp.minimum(t, ground)
    is_sky = t * cosine >= FAR
    is_part, is_ground = is_part & ~is_sky, ~is_part & ~is_sky
    t = jnp.where(is_sky, FAR, t)
    point = [view.eye[i] + ray[i] * t for i in range(3)]
    row = solids.rows.T[:, part]
    slot = jnp.asarray(parts.slot)[part]
    object_id = jnp.where(slot == MAX_OBJECTS, SET, FIRST_OBJECT + slot)
    ids = jnp.where(is_sky, SKY, jnp.where(is_ground, GROUND, object_id)).astype(jnp.int32)
    upward = _gradient(lambda p: p[1] - ground_waves(terrain, p[0], p[2]), point)
    outward = _gradient(lambda p: part_distance(row, p), point)
    normal = [jnp.where(is_part, a, b) for a, b in zip(outward, upward, strict=True)]
    # Rest coordinates: the texture of a limb moves with the limb and fits its neighbours when the joints are straight.
    rest = jnp.concatenate([parts.rotation.reshape(-1, 9), parts.centre], 1).T[:, part]
    painted = local(rest, local(row, point))
    texture = [jnp.where(is_part, a, b) for a, b in zip(painted, point, strict=True)]
    facing = jnp.argmax(jnp.abs(jnp.stack(turned(rest, turned(row, normal)))), axis=0)
    around = only(solids, near_points(solids, point, ~is_sky, jnp.zeros(3), 0.0, jnp.float32(AO_REACH)))
    return Buffer(
        ids=ids,
        depth=jnp.where(is_sky, FAR, t * cosine),
        range=t,
        ray=ray,
        point=point,
        normal=normal,
        texture=texture,
        facing=jnp.where(is_part, facing, 1).astype(jnp.int32),
        tone=jnp.where(is_part, jnp.asarray(parts.tone)[part], 1.0),
        occlusion=jnp.where(is_sky, 1.0, _occlusion(around, terrain, point, normal)),
        part=jnp.where(is_part, part, 0),
    )


def optical_flow(
    buffer: Buffer, solids: Solids, next_view: View, next_pose: Pose, grid: Grid
) -> tuple[jax.Array, jax.Array]:
    """Where the samples of `buffer`, one a pixel in reading order, go until the next frame: rigidly with their part."""
    inner = local(solids.rows.T[:, buffer.part], buffer.point)
    table = jnp.concatenate([next_pose.rotation.reshape(-1, 9), next_pose.centre], 1).T[:, buffer.part]
    moved = local(table, inner)
    is_sky = buffer.ids == SKY
    target = [
        jnp.where(is_sky, ray, jnp.where(buffer.ids >= SET, there, here))
        for ray, here, there in zip(buffer.ray, buffer.point, moved, strict=True)
    ]
    next_x, next_y = project(next_view, grid, target, is_sky)
    index = jnp.arange(grid.height * grid.width)
    return next_x - index % grid.width, next_y - index // grid.width
