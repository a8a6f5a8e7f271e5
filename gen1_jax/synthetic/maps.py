"""Exact maps of a traced clip beside its depth, ids and flow: edges, normals, joints."""

from functools import partial

import jax
import jax.numpy as jnp

from gen1_jax.synthetic.animation import View, camera_view
from gen1_jax.synthetic.content import Content
from gen1_jax.synthetic.grid import Grid, over
from gen1_jax.synthetic.renderer import Clip, Geometry, _grid, _one_by_one, shade_clip, trace_clip
from gen1_jax.synthetic.skeletons import joints_of
from gen1_jax.synthetic.structure import Structure
from gen1_jax.synthetic.tracer import GROUND, SKY

EXACT = ("edges", "normals", "joints")
"""The maps that `exact_maps` makes."""

_BEND = 0.77  # cosine of the angle between normals of neighbours from which on there is an edge: 40 degrees
_JUMP, _JUMP_OF_GROUND = 0.06, 0.2  # of inverse depth, relative to it, beyond what a plane would have


def exact_maps(
    structure: Structure,
    geometry: Geometry,
    names: tuple[str, ...] = EXACT,
    *,
    size: int | tuple[int, int],
    supersample: int = 2,
    one_by_one: bool | None = None,
) -> dict[str, jax.Array]:
    """Maps of a traced clip.

    edges: bool (T, H, W), where the next pixel to the right or below is of another thing or part, behind or before it,
        or bent away from it.
    normals: float32 (T, H, W, 3), unit vectors to the left, up and towards the camera; the sky faces the camera.
    joints: float32 (T, MAX_OBJECTS, MAX_JOINTS, 3), see `skeletons.joints_of`.

    Args:
      structure: that of `geometry`.
      geometry: from `trace_clip`.
      names: of `EXACT`, those wanted.
      size, supersample: as it was traced.
      one_by_one: see `render`.
    """
    return _maps(structure, geometry, tuple(names), _grid(size, supersample), _one_by_one(one_by_one))


def render_with_maps(
    structure: Structure,
    content: Content,
    names: tuple[str, ...] = EXACT,
    *,
    frames: int,
    size: int | tuple[int, int],
    fps: float | jax.Array = 12.0,
    supersample: int = 2,
    others: tuple[Content, ...] = (),
) -> tuple[Clip, dict[str, jax.Array], tuple[jax.Array, ...]]:
    """A clip as `render` makes it, its `exact_maps`, and its pictures in other contents; one pass over the geometry.

    Args:
      structure, content, frames, size, fps, supersample: see `render`.
      names: of `EXACT`, those wanted.
      others: further contents of the same structure.
    """
    static = {"size": size, "supersample": supersample}
    geometry = trace_clip(structure, frames=frames, fps=fps, **static)
    clip = Clip(shade_clip(structure, content, geometry, **static), geometry.depth, geometry.ids, geometry.flow)
    maps = exact_maps(structure, geometry, names, **static) if names else {}
    return clip, maps, tuple(shade_clip(structure, other, geometry, **static) for other in others)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _maps(
    structure: Structure, geometry: Geometry, names: tuple[str, ...], grid: Grid, serial: bool
) -> dict[str, jax.Array]:
    def frame(seen: Geometry) -> dict[str, jax.Array]:
        view = camera_view(structure.camera, seen.time)
        normals = _camera_normals(seen, view, grid)
        made = {
            "edges": lambda: _edges(seen, normals, grid),
            "normals": lambda: normals,
            "joints": lambda: joints_of(structure, seen.time, view, seen.depth, seen.ids, grid),
        }
        return {name: made[name]() for name in names}

    return over(frame, geometry, serial)


def _camera_normals(seen: Geometry, view: View, grid: Grid) -> jax.Array:
    world = jnp.stack([grid.centres(axis) for axis in seen.buffer.normal], -1)
    right, up, ahead = view.axes
    normals = jnp.stack([world @ -right, world @ up, world @ -ahead], -1)
    return jnp.where((seen.ids == SKY)[..., None], jnp.array([0.0, 0.0, 1.0]), normals)


def _edges(seen: Geometry, normals: jax.Array, grid: Grid) -> jax.Array:
    part, inverse = grid.centres(seen.buffer.part), 1.0 / seen.depth
    is_ground = seen.ids == GROUND  # which bends without a crease, and far away from pixel to pixel
    jump = jnp.where(is_ground, _JUMP_OF_GROUND, _JUMP) * inverse
    edges = jnp.zeros(seen.ids.shape, bool)
    for axis in (0, 1):
        other = (_next(seen.ids, axis) != seen.ids) | (_next(part, axis) != part)
        slope = _next(inverse, axis) - inverse
        leaps = jnp.minimum(jnp.abs(slope - jnp.roll(slope, 1, axis)), jnp.abs(slope - _next(slope, axis))) > jump
        bends = (jnp.sum(_next(normals, axis) * normals, -1) < _BEND) & ~is_ground
        edges |= other | leaps | bends
    return edges


def _next(x: jax.Array, axis: int) -> jax.Array:
    """What the next pixel has; the last one, itself."""
    return jnp.concatenate(
        [jax.lax.slice_in_dim(x, 1, None, axis=axis), jax.lax.slice_in_dim(x, -1, None, axis=axis)], axis
    )
