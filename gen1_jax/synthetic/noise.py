"""Integer-hash value noise and smooth polynomial waves.

Everything here is exact integer arithmetic followed by a few multiplications, so that CPU and GPU agree to rounding;
the usual `fract(sin(x) * 43758.5)` hash amplifies the last bit of `sin` and does not.
Points are triples of equally shaped float32 arrays: components stay apart so that XLA fuses and vectorises them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Point = Sequence[jax.Array] | jax.Array  # three arrays, or one array of three rows


def hash_bits(*keys: jax.Array) -> jax.Array:
    """Mixes int32 arrays into one uint32 array of well distributed bits (an xorshift-multiply finaliser)."""
    bits = jnp.uint32(0x9E3779B9)
    for key in keys:
        bits = (bits ^ key.astype(jnp.uint32)) * jnp.uint32(0x85EBCA6B)
        bits = bits ^ (bits >> 15)
    bits = bits * jnp.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def uniform(bits: jax.Array) -> jax.Array:
    """Turns uint32 bits into float32 in [0, 1); 24 bits are kept, which float32 holds exactly."""
    return (bits >> 8).astype(jnp.float32) * jnp.float32(1.0 / (1 << 24))


def wave(x: jax.Array) -> jax.Array:
    """A cosine look-alike of period 1 and range [-1, 1], made of a cubic: continuous with its first derivative."""
    triangle = jnp.abs(2.0 * (x - jnp.floor(x)) - 1.0)
    return 2.0 * triangle * triangle * (3.0 - 2.0 * triangle) - 1.0


def smoothstep(low: float | jax.Array, high: float | jax.Array, x: jax.Array) -> jax.Array:
    """The cubic ramp from 0 at `low` to 1 at `high`, which may be the smaller of the two."""
    u = jnp.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def _lattice(point: Point) -> tuple[list[jax.Array], list[jax.Array]]:
    floors = [jnp.floor(axis) for axis in point]
    return [f.astype(jnp.int32) for f in floors], [axis - f for axis, f in zip(point, floors, strict=True)]


def value_noise(point: Point, salt: int = 0) -> jax.Array:
    """Smooth random values in [0, 1] with one independent value a unit cell corner; 2 or 3 coordinates."""
    cells, fractions = _lattice(point)
    weights = [u * u * (3.0 - 2.0 * u) for u in fractions]

    def corner(axis: int, offsets: tuple[int, ...]) -> jax.Array:
        if axis == len(cells):
            keys = [c + o for c, o in zip(cells, offsets, strict=True)]
            return uniform(hash_bits(*keys, jnp.int32(salt)))
        low, high = corner(axis + 1, (*offsets, 0)), corner(axis + 1, (*offsets, 1))
        return low + (high - low) * weights[axis]

    return corner(0, ())


def fractal_noise(point: Point, octaves: int = 3, salt: int = 0) -> jax.Array:
    """Sum of `octaves` of value noise, each of half the size and half the weight of the last; range [0, 1]."""
    total, weight, norm = jnp.zeros_like(point[0]), 1.0, 0.0
    for octave in range(octaves):
        scale = 2.03**octave
        total = total + weight * value_noise([axis * scale + 7.31 * octave for axis in point], salt + octave)
        norm, weight = norm + weight, weight * 0.5
    return total / norm


def cell_noise(point: Point, salt: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Voronoi cells of one jittered point a unit cell: distance to the nearest, to the second, hash of the nearest.

    Only the 2^n lattice cells around the rounded point are searched, which is exact enough for textures.
    """
    cells, fractions = _lattice([axis - 0.5 for axis in point])
    nearest = second = jnp.full_like(point[0], 8.0)
    label = jnp.zeros_like(point[0])
    for index in range(2 ** len(cells)):
        offsets = [(index >> axis) & 1 for axis in range(len(cells))]
        bits = hash_bits(*(c + o for c, o in zip(cells, offsets, strict=True)), jnp.int32(salt))
        squared = 0.0
        for axis, (offset, fraction) in enumerate(zip(offsets, fractions, strict=True)):
            jitter = ((bits >> (8 * axis)) & 255).astype(jnp.float32) * (0.7 / 255.0) - 0.35
            squared = squared + jnp.square(offset + jitter - fraction)
        closer = squared < nearest
        second = jnp.where(closer, nearest, jnp.minimum(second, squared))
        label = jnp.where(closer, uniform(bits * jnp.uint32(0x27D4EB2F)), label)
        nearest = jnp.minimum(nearest, squared)
    return jnp.sqrt(nearest), jnp.sqrt(second), label
