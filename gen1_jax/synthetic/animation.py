"""Where every part and the camera are at a time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen1_jax.synthetic.structure import Camera, Motion, Parts, Structure, Terrain
from gen1_jax.synthetic.terrain import ground_waves


class Pose(NamedTuple):
    """World from local: `world = rotation @ local + centre`."""

    rotation: jax.Array  # (..., 3, 3)
    centre: jax.Array  # (..., 3)


class View(NamedTuple):
    """A camera at one time: the eye, and its axes right, up, ahead as the rows of `axes`."""

    eye: jax.Array  # (3,)
    axes: jax.Array  # (3, 3)
    tangent: jax.Array  # ()


def _rotation(axis: jax.Array, angle: jax.Array) -> jax.Array:
    """Rodrigues' formula over any batch: axis (..., 3), angle (...) -> (..., 3, 3)."""
    x, y, z = axis[..., 0], axis[..., 1], axis[..., 2]
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
    sine, cosine = jnp.sin(angle)[..., None, None], jnp.cos(angle)[..., None, None]
    return jnp.eye(3) + sine * cross + (1.0 - cosine) * _matmul(cross, cross)


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """A 3x3 product in plain float32: GPUs would otherwise round the operands of a matmul to tf32."""
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def _apply(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def _compose(outer: Pose, inner: Pose) -> Pose:
    return Pose(_matmul(outer.rotation, inner.rotation), _apply(outer.rotation, inner.centre) + outer.centre)


def _about(pivot: jax.Array, rotation: jax.Array) -> Pose:
    return Pose(rotation, pivot - _apply(rotation, pivot))


def slot_poses(motion: Motion, terrain: Terrain, time: jax.Array) -> Pose:
    """The pose of every object (and of the set, last) at `time` seconds: (s, 3, 3) and (s, 3)."""
    radius, rate, phase = (motion.path[:, i] for i in range(3))
    angle = phase + rate * time
    x = motion.anchor[:, 0] + radius * jnp.cos(angle)
    z = motion.anchor[:, 2] + radius * jnp.sin(angle)
    swing = 0.5 - 0.5 * jnp.cos(motion.bob[:, 1] * time + motion.bob[:, 2])
    is_set = jnp.arange(x.shape[0]) == x.shape[0] - 1
    ground = jnp.where(is_set, 0.0, ground_waves(terrain, x, z))
    y = ground + motion.anchor[:, 1] + motion.bob[:, 0] * swing
    yaw = motion.heading[:, 0] + motion.heading[:, 1] * time - motion.follow * angle
    up = jnp.broadcast_to(jnp.array([0.0, 1.0, 0.0]), motion.anchor.shape)
    tumble = _rotation(motion.tumble[:, :3], motion.tumble[:, 3] * time)
    tumbled = _about(up * motion.tumble[:, 4:5], tumble)
    return _compose(Pose(_rotation(up, yaw), jnp.stack([x, y, z], -1)), tumbled)


def part_poses(structure: Structure, time: jax.Array) -> Pose:
    """World pose of every part at `time`: (p, 3, 3) and (p, 3)."""
    parts: Parts = structure.parts
    slots = slot_poses(structure.motion, structure.terrain, time)
    gait = (structure.motion.gait[:, 0] * time + structure.motion.gait[:, 1])[parts.slot][:, None]
    swing, lead, bias, turn = (parts.hinge[..., i] for i in range(4))
    # A joint that only turns starts from its rest pose; a swing starts anywhere in its cycle.
    angle = bias + swing * jnp.sin(gait + lead) + turn * gait
    hinges = _about(parts.pivot, _rotation(parts.axis, angle))
    outer, inner = (Pose(hinges.rotation[:, i], hinges.centre[:, i]) for i in range(2))
    rest = Pose(jnp.asarray(parts.rotation), jnp.asarray(parts.centre))
    joined = _compose(outer, _compose(inner, rest))
    return _compose(Pose(slots.rotation[parts.slot], slots.centre[parts.slot]), joined)


def camera_view(camera: Camera, time: jax.Array) -> View:
    """The camera at `time`."""

    def sine(wave: jax.Array) -> jax.Array:
        return wave[..., 0] * jnp.sin(wave[..., 1] * time + wave[..., 2])

    azimuth = camera.azimuth + camera.orbit * time + sine(camera.sway)
    distance = camera.distance * (1.0 + sine(camera.dolly))
    flat, up = jnp.cos(camera.elevation), jnp.sin(camera.elevation)
    away = jnp.stack([jnp.sin(azimuth) * flat, up, jnp.cos(azimuth) * flat])
    side = jnp.stack([jnp.cos(azimuth), jnp.zeros_like(azimuth), -jnp.sin(azimuth)])
    rates = jnp.array([[1.9, 2.7, 2.3], [2.9, 2.1, 3.4]])
    tremor = jnp.sin(rates * time + camera.shake[..., 1] * jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    tremor = camera.shake[..., 0] * tremor
    eye = camera.target + distance * away + tremor[0]
    target = camera.target + side * sine(camera.pan) + tremor[1]
    ahead = _unit(target - eye)
    right = _unit(jnp.cross(ahead, jnp.array([0.0, 1.0, 0.0])))
    return View(eye, jnp.stack([right, jnp.cross(right, ahead), ahead]), jnp.asarray(camera.tangent))


def _unit(vector: jax.Array) -> jax.Array:
    return vector * jax.lax.rsqrt(jnp.sum(vector * vector))
