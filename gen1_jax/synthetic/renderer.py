"""`render`: structure and content to a clip, in two passes, so that many contents share one geometry pass."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen1_jax.errors import UserError
from gen1_jax.synthetic.animation import camera_view, part_poses
from gen1_jax.synthetic.content import Content
from gen1_jax.synthetic.distance import Solids, place
from gen1_jax.synthetic.grid import Grid, over
from gen1_jax.synthetic.shading import shade
from gen1_jax.synthetic.structure import Structure
from gen1_jax.synthetic.styles import Picture, stylise
from gen1_jax.synthetic.tracer import Buffer, optical_flow, trace


class Clip(NamedTuple):
    """A rendered clip of T frames."""

    rgb: jax.Array  # uint8 (T, H, W, 3), sRGB
    depth: jax.Array  # float32 (T, H, W), distance along the optical axis in metres; FAR (100) is the sky
    ids: jax.Array  # int32 (T, H, W): 0 sky, 1 ground, 2 set (walls, blocks, table), 3 + i the object in slot i
    flow: jax.Array  # float32 (T, H, W, 2): pixels right and down to where this surface point is in the next frame


class Geometry(NamedTuple):
    """The geometry pass of a clip: what `shade_clip` needs, and the part of `Clip` that no content can change."""

    buffer: Buffer  # fields (T, tiles, samples)
    time: jax.Array  # (T,) seconds
    depth: jax.Array
    ids: jax.Array
    flow: jax.Array


def _grid(size: int | tuple[int, int], supersample: int) -> Grid:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 2 or supersample < 1:
        raise UserError(f"size {size}, supersample {supersample}: need at least 2 and 1")
    return Grid(height, width, supersample)


def _one_by_one(setting: bool | None) -> bool:
    return jax.default_backend() == "cpu" if setting is None else setting


def trace_clip(
    structure: Structure,
    *,
    frames: int,
    size: int | tuple[int, int],
    fps: float | jax.Array = 12.0,
    supersample: int = 2,
    one_by_one: bool | None = None,
) -> Geometry:
    """The geometry pass: frame i is at i / fps seconds. See `render` for the arguments."""
    if frames < 1:
        raise UserError(f"frames {frames}: need at least 1")
    return trace_frames(structure, jnp.float32(fps), frames, _grid(size, supersample), _one_by_one(one_by_one))


def shade_clip(
    structure: Structure,
    content: Content,
    geometry: Geometry,
    *,
    size: int | tuple[int, int],
    supersample: int = 2,
    one_by_one: bool | None = None,
) -> jax.Array:
    """The shading pass: uint8 RGB (T, H, W, 3) of a traced clip with one content; size as it was traced."""
    return shade_frames(structure, content, geometry, _grid(size, supersample), _one_by_one(one_by_one))


@partial(jax.jit, static_argnums=(2, 3, 4))
def trace_frames(structure: Structure, fps: jax.Array, frames: int, grid: Grid, serial: bool) -> Geometry:
    """`trace_clip` under jit: one compilation a number of frames and grid."""

    def frame(time: jax.Array) -> Geometry:
        view, pose = camera_view(structure.camera, time), part_poses(structure, time)
        solids = place(structure.parts, pose)
        buffer = over(lambda origin: trace(structure, view, solids, *grid.pixels(origin), grid), grid.origins(), serial)
        centres = jax.tree.map(grid.centres, buffer)
        flow = _flow(structure, centres, solids, time + 1.0 / fps, grid)
        return Geometry(buffer, time, centres.depth, centres.ids, flow)

    return over(frame, jnp.arange(frames, dtype=jnp.float32) / fps, serial)


def flow_to(
    structure: Structure,
    geometry: Geometry,
    time: float | jax.Array,
    *,
    size: int | tuple[int, int],
    supersample: int = 2,
    one_by_one: bool | None = None,
) -> jax.Array:
    """Where what is seen of a traced clip is at another time: float32 (T, H, W, 2), pixels right and down.

    Args:
      structure: that of `geometry`; size and supersample as it was traced.
      geometry: from `trace_clip`.
      time: in seconds; it may be traced.
      one_by_one: see `render`.
    """
    grid = _grid(size, supersample)
    return _flow_frames(structure, geometry, jnp.float32(time), grid, _one_by_one(one_by_one))


@partial(jax.jit, static_argnums=(3, 4))
def _flow_frames(structure: Structure, geometry: Geometry, time: jax.Array, grid: Grid, serial: bool) -> jax.Array:
    def frame(seen: Geometry) -> jax.Array:
        solids = place(structure.parts, part_poses(structure, seen.time))
        return _flow(structure, jax.tree.map(grid.centres, seen.buffer), solids, time, grid)

    return over(frame, geometry, serial)


def _flow(structure: Structure, centres: Buffer, solids: Solids, time: jax.Array, grid: Grid) -> jax.Array:
    flat = jax.tree.map(jnp.ravel, centres)
    flow = optical_flow(flat, solids, camera_view(structure.camera, time), part_poses(structure, time), grid)
    return jnp.stack(flow, -1).reshape(*centres.ids.shape, 2)


@partial(jax.jit, static_argnums=(3, 4))
def shade_frames(structure: Structure, content: Content, geometry: Geometry, grid: Grid, serial: bool) -> jax.Array:
    """`shade_clip` under jit."""

    def frame(seen: Geometry) -> jax.Array:
        solids = place(structure.parts, part_poses(structure, seen.time))
        shaded = over(lambda tile: shade(structure, content, tile, solids, grid), seen.buffer, serial)
        colour, albedo, light = (_downsample([grid.image(c) for c in field], grid) for field in shaded)
        normal = jnp.stack([grid.centres(axis) for axis in seen.buffer.normal], -1)
        picture = Picture(colour, albedo, light, normal, seen.depth, seen.ids)
        return jnp.round(stylise(content.style, picture) * 255.0).astype(jnp.uint8)

    return over(frame, geometry, serial)


def _downsample(channels: list[jax.Array], grid: Grid) -> jax.Array:
    """Averages samples into pixels with a tent around the pixel's centre, which is itself a sample: (H, W, 3)."""
    height, width, supersample = grid.height, grid.width, grid.supersample
    image = jnp.stack(channels, -1)
    reach = supersample - 1
    if reach == 0:
        return image
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    weights = [(supersample - abs(k)) / supersample**2 for k in range(-reach, reach + 1)]
    rows = sum(w * padded[k : k + height * supersample : supersample] for k, w in enumerate(weights))
    return sum(w * rows[:, k : k + width * supersample : supersample] for k, w in enumerate(weights))


def render(
    structure: Structure,
    content: Content,
    *,
    frames: int,
    size: int | tuple[int, int],
    fps: float | jax.Array = 12.0,
    supersample: int = 2,
    one_by_one: bool | None = None,
) -> Clip:
    """Renders a clip; pure, so that it can be jitted and vmapped over stacked structures and contents.

    One compilation serves all structures and contents: only the keyword arguments (but `fps`) are static.

    Args:
      structure: what is where; from `sample_structure`. content: what it looks like; from `sample_content`.
      frames: number of frames T >= 1.
      size: height and width in pixels, or one number for both.
      fps: frames a second.
      supersample: samples a pixel along each axis, for `rgb` only.
      one_by_one: whether frames and tiles are computed one after another rather than all at once; by default on a
        CPU only. The result is the same to rounding.

    Raises:
      ValueError: for fewer than one frame, two pixels or one sample.
    """
    static = {"size": size, "supersample": supersample, "one_by_one": one_by_one}
    geometry = trace_clip(structure, frames=frames, fps=fps, **static)
    rgb = shade_clip(structure, content, geometry, **static)
    return Clip(rgb, geometry.depth, geometry.ids, geometry.flow)
