"""The signed distance of the parts, evaluated for many points at once, a chunk of parts at a time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen1_jax.synthetic.animation import Pose
from gen1_jax.synthetic.noise import Point
from gen1_jax.synthetic.structure import Parts

CHUNK = 8  # parts unrolled into one fused loop
FAR = 100.0  # metres
_TINY = 1e-12  # keeps the gradient of a square root finite at zero


class Solids(NamedTuple):
    """Everything the distance needs, one row a part: local-from-world matrix and offset, shape, size."""

    rows: jax.Array  # (p, 25): 9 + 3 for the transform, 9 for the shape, its bound, 3 half extents
    spheres: jax.Array  # (p, 4): centre and radius of a bounding sphere
    index: jax.Array  # (p,): row in Parts
    count: jax.Array  # (): rows beyond it are padding


def place(parts: Parts, pose: Pose) -> Solids:
    """Puts the parts into the world at `pose`."""
    inverse = jnp.swapaxes(pose.rotation, -1, -2)
    offset = -jnp.sum(inverse * pose.centre[:, None, :], axis=-1)
    rows = [
        inverse.reshape(-1, 9),
        offset,
        jnp.asarray(parts.shape),
        jnp.asarray(parts.bound)[:, None],
        jnp.asarray(parts.half),
    ]
    spheres = jnp.concatenate([pose.centre, jnp.asarray(parts.radius)[:, None]], 1)
    return Solids(jnp.concatenate(rows, 1), spheres, jnp.arange(spheres.shape[0]), jnp.asarray(parts.count))


def only(solids: Solids, keep: jax.Array) -> Solids:
    """The solids where `keep` (p,), moved to the front; padding repeats the first part, which changes no minimum."""
    keep = keep & (jnp.arange(keep.shape[0]) < solids.count)
    (order,) = jnp.nonzero(keep, size=keep.shape[0], fill_value=0)
    return Solids(solids.rows[order], solids.spheres[order], solids.index[order], jnp.sum(keep))


def in_cone(solids: Solids, eye: jax.Array, ray: Point) -> jax.Array:
    """Which bounding spheres may be met by any of the rays from `eye`: those that touch the cone around them all."""
    mean = jnp.stack([jnp.mean(axis) for axis in ray])
    axis = mean * jax.lax.rsqrt(jnp.sum(mean * mean))
    cosine = jnp.min(ray[0] * axis[0] + ray[1] * axis[1] + ray[2] * axis[2])
    sine = jnp.sqrt(jnp.maximum(1.0 - cosine * cosine, 0.0))
    offset = solids.spheres[:, :3] - eye
    along = jnp.sum(offset * axis, -1)
    aside = jnp.sqrt(jnp.maximum(jnp.sum(offset * offset, -1) - along * along, 0.0))
    return aside * cosine - along * sine <= solids.spheres[:, 3] + 0.02


def near_points(
    solids: Solids, point: Point, chosen: jax.Array, sun: jax.Array, reach: float, spread: jax.Array
) -> jax.Array:
    """Which bounding spheres come near the `chosen` points, or near rays from them along `sun`.

    Near is within 0 at the point and `spread` per metre along the ray, up to `reach` metres of it.
    """
    low = jnp.stack([jnp.min(jnp.where(chosen, axis, 2.0 * FAR)) for axis in point])
    high = jnp.stack([jnp.max(jnp.where(chosen, axis, -2.0 * FAR)) for axis in point])
    middle, size = 0.5 * (low + high), 0.5 * jnp.sqrt(jnp.sum(jnp.square(high - low)))
    offset = solids.spheres[:, :3] - middle
    along = jnp.clip(jnp.sum(offset * sun, -1), 0.0, reach)
    gap = jnp.sqrt(jnp.sum(jnp.square(offset - along[:, None] * sun), -1))
    return jnp.any(chosen) & (gap <= size + solids.spheres[:, 3] + spread * (along + size) + 0.05)


def local(row: jax.Array, point: Point) -> Point:
    """World to part coordinates; the columns of `row` (first axis) are scalars or one value a point."""
    x, y, z = point
    return [row[3 * i] * x + row[3 * i + 1] * y + row[3 * i + 2] * z + row[9 + i] for i in range(3)]


def turned(row: jax.Array, vector: Point) -> Point:
    """World to part directions, as `local`."""
    x, y, z = vector
    return [row[3 * i] * x + row[3 * i + 1] * y + row[3 * i + 2] * z for i in range(3)]


def box_interval(
    row: jax.Array, origin: Point, ray: Point, margin: float | jax.Array = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Where rays, in part coordinates, enter and leave the part's box, larger by `margin`; never if start > end."""
    start, end = jnp.full_like(ray[0], -2.0 * FAR), jnp.full_like(ray[0], 2.0 * FAR)
    for i in range(3):
        inverse = 1.0 / jnp.where(jnp.abs(ray[i]) < 1e-7, 1e-7, ray[i])
        near, half = -origin[i] * inverse, (row[22 + i] + margin) * jnp.abs(inverse)
        start, end = jnp.maximum(start, near - half), jnp.minimum(end, near + half)
    return start, end


def part_distance(row: jax.Array, point: Point) -> jax.Array:
    """Signed distance (a lower bound of it where the outline slopes) from world points to one part; see `parts.py`."""
    return local_distance(row, local(row, point))


def local_distance(row: jax.Array, point: Point) -> jax.Array:
    """`part_distance` from points in part coordinates."""
    x, y, z = point
    width, breadth, corner, wall, height, inflate, slope, roof, curve, bound = (row[12 + i] for i in range(10))
    ux, uz, ay = jnp.abs(x) - width, jnp.abs(z) - breadth, jnp.abs(y)
    inside = jnp.minimum(jnp.maximum(ux, uz), 0.0)
    ux, uz = jnp.maximum(ux, 0.0), jnp.maximum(uz, 0.0)
    outline = jnp.sqrt(ux * ux + uz * uz + _TINY) + inside - corner
    level = jnp.minimum(ay, height)
    outline = outline + slope * jnp.clip(y, -height, height) + level * (roof + curve * level)
    outline = jnp.maximum(outline, -outline - 2.0 * wall)
    over = ay - height
    inside = jnp.minimum(jnp.maximum(outline, over), 0.0)
    outline, over = jnp.maximum(outline, 0.0), jnp.maximum(over, 0.0)
    return (jnp.sqrt(outline * outline + over * over + _TINY) + inside - inflate) * bound


def nearest(solids: Solids, point: Point) -> jax.Array:
    """Distance to the nearest part, for any number of points; `FAR` where there is none."""

    def chunk(index: jax.Array, distance: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(solids.rows, index * CHUNK, CHUNK)
        for offset in range(CHUNK):
            distance = jnp.minimum(distance, part_distance(rows[offset], point))
        return distance

    chunks = (solids.count + CHUNK - 1) // CHUNK
    return jax.lax.fori_loop(0, chunks, chunk, jnp.full_like(point[0], FAR))
