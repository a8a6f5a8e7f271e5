"""Styles of the whole picture: screen-space filters of colour, albedo, light, normals, depth and ids.

Every filter takes a `Picture` and returns display RGB (H, W, 3) in [0, 1]. Lengths are in units of 1/128 of the
shorter side, so that a style looks alike at any resolution.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gen1_jax.synthetic.noise import cell_noise, fractal_noise, hash_bits, smoothstep, uniform, value_noise, wave


class Picture(NamedTuple):
    """One frame to be styled."""

    colour: jax.Array  # (H, W, 3) display RGB of the photograph
    albedo: jax.Array  # (H, W, 3) display RGB of the materials alone
    light: jax.Array  # (H, W, 3) linear light that falls on them
    normal: jax.Array  # (H, W, 3)
    depth: jax.Array  # (H, W)
    ids: jax.Array  # (H, W)


def _unit(picture: Picture) -> float:
    return max(min(picture.depth.shape) / 128.0, 0.25)


def _grid(picture: Picture) -> tuple[jax.Array, jax.Array]:
    """Row and column of every pixel in units of 1/128 of the shorter side."""
    rows, columns = (jnp.arange(n, dtype=jnp.float32) / _unit(picture) for n in picture.depth.shape)
    return jnp.broadcast_to(rows[:, None], picture.depth.shape), jnp.broadcast_to(columns, picture.depth.shape)


def _shift(image: jax.Array, rows: int, columns: int) -> jax.Array:
    """The image moved by whole pixels, its border repeated."""
    pad = ((abs(rows), abs(rows)), (abs(columns), abs(columns)), *((0, 0),) * (image.ndim - 2))
    padded = jnp.pad(image, pad, mode="edge")
    top, left = abs(rows) - rows, abs(columns) - columns
    return jax.lax.slice(
        padded, (top, left, *(0,) * (image.ndim - 2)), (top + image.shape[0], left + image.shape[1], *image.shape[2:])
    )


def _luminance(image: jax.Array) -> jax.Array:
    return image[..., 0] * 0.299 + image[..., 1] * 0.587 + image[..., 2] * 0.114


def _saturate(image: jax.Array, amount: float) -> jax.Array:
    grey = _luminance(image)[..., None]
    return jnp.clip(grey + (image - grey) * amount, 0.0, 1.0)


def _exposed(image: jax.Array) -> jax.Array:
    """Luminance at an even exposure, so that night scenes do not drown in ink."""
    grey = _luminance(image)
    return jnp.clip(grey * (0.55 / jnp.maximum(jnp.mean(grey), 0.12)) ** 0.8, 0.0, 1.0)


def _edges(picture: Picture, width: float = 1.0) -> jax.Array:
    """Outlines in [0, 1]: where ids change, depth has a step, or normals have a crease; about `width` wide."""
    reach = max(1, round(width * _unit(picture)))
    inverse = 1.0 / picture.depth
    found = jnp.zeros_like(picture.depth)
    for rows, columns in ((0, reach), (reach, 0)):
        there = (_shift(picture.ids, rows, columns) != picture.ids).astype(jnp.float32)
        bend = _shift(inverse, rows, columns) + _shift(inverse, -rows, -columns) - 2.0 * inverse
        step = smoothstep(0.03, 0.09, jnp.abs(bend) * picture.depth)
        turn = 1.0 - jnp.sum(_shift(picture.normal, rows, columns) * picture.normal, -1)
        crease = smoothstep(0.25, 0.6, turn) * (picture.ids > 0)
        found = jnp.maximum(found, jnp.maximum(there, jnp.maximum(step, 0.8 * crease)))
    return found


def _box(image: jax.Array, length: int) -> jax.Array:
    """Mean over `length` x `length` pixels to the lower right."""
    pad = ((0, length - 1), (0, length - 1), *((0, 0),) * (image.ndim - 2))
    window = (length, length, *(1,) * (image.ndim - 2))
    padded = jnp.pad(image, pad, mode="edge")
    total = jax.lax.reduce_window(padded, 0.0, jax.lax.add, window, (1,) * image.ndim, "valid")
    return total / length**2


def _smooth(image: jax.Array, radius: int) -> jax.Array:
    """A Kuwahara filter: the mean of the calmest of four corner windows, which flattens and keeps edges."""
    length = radius + 1
    grey = _luminance(image)
    mean = _box(image, length)
    spread = _box(grey * grey, length) - jnp.square(_box(grey, length))
    best, least = mean, spread
    for rows, columns in ((radius, 0), (0, radius), (radius, radius)):
        moved = _shift(spread, rows, columns)
        best = jnp.where((moved < least)[..., None], _shift(mean, rows, columns), best)
        least = jnp.minimum(least, moved)
    return best


def _radius(picture: Picture, length: float | int) -> int:
    return max(1, round(length * _unit(picture)))


def _vignette(picture: Picture, strength: float) -> jax.Array:
    rows, columns = _grid(picture)
    v, u = rows / jnp.max(rows) - 0.5, columns / jnp.max(columns) - 0.5
    return (1.0 - strength * (u * u + v * v))[..., None]


def _photograph(picture: Picture) -> jax.Array:
    return _saturate(picture.colour, 1.12) * _vignette(picture, 0.3)


def _pencil(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    wobble = 1.2 * value_noise([rows * 0.11, columns * 0.11], 3)
    tone = _exposed(_smooth(picture.colour, 1))
    grain = value_noise([rows * 0.9, columns * 0.9], 5)
    mark = jnp.zeros_like(tone)
    for level, period, slant in ((0.7, 4.2, 1.0), (0.42, 3.8, -1.0), (0.22, 3.2, 0.3)):
        line = 0.5 + 0.5 * wave((columns + slant * rows) / (period * 1.4) + wobble)
        mark = mark + 0.34 * smoothstep(level + 0.1, level - 0.15, tone) * line * (0.5 + 0.5 * grain)
    mark = mark + 0.3 * (1.0 - tone) + 0.75 * _edges(picture) * (0.6 + 0.4 * grain)
    paper = jnp.array([0.965, 0.955, 0.925]) - 0.03 * grain[..., None]
    return paper * (1.0 - jnp.clip(mark, 0.0, 0.9)[..., None]) + 0.05 * (picture.albedo - 0.5)


def _watercolour(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    wet = fractal_noise([rows * 0.06, columns * 0.06], 3, 7)
    grain = value_noise([rows * 0.7, columns * 0.7], 9)
    wash = _smooth(_smooth(0.55 * picture.albedo + 0.45 * picture.colour, _radius(picture, 2)), _radius(picture, 1))
    wash = _saturate(wash, 1.25) * (0.75 + 0.25 * jnp.clip(picture.light, 0.0, 1.3))
    pigment = 0.62 + 0.5 * (wet - 0.4) + 0.1 * (grain - 0.5)
    pigment = jnp.clip(pigment + 0.35 * _edges(picture), 0.15, 1.0)
    v, u = rows / jnp.max(rows), columns / jnp.max(columns)
    border = jnp.minimum(jnp.minimum(u, 1.0 - u), jnp.minimum(v, 1.0 - v)) + 0.12 * (wet - 0.5)
    pigment = pigment * smoothstep(0.0, 0.07, border)
    return 1.0 - (1.0 - wash) * pigment[..., None] * 1.05 - 0.02 * grain[..., None]


def _comic(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    flat = _saturate(_smooth(picture.albedo, _radius(picture, 2)), 1.5)
    tone = _luminance(picture.light)
    tone = tone / (jnp.sum(tone * (picture.ids > 0)) / (jnp.sum(picture.ids > 0) + 1.0) + 1e-3)
    dots = 0.5 + 0.25 * (wave((rows + columns) / 5.6) + wave((rows - columns) / 5.6))
    shadow = smoothstep(0.75, 0.3, tone)
    lit = jnp.where(tone < 0.22, 0.45, jnp.where(dots < 0.75 * shadow, 0.55, 1.0))
    lit = jnp.where(picture.ids == 0, 1.0, lit)
    steps = jnp.round(flat * 5.0) / 5.0
    return jnp.clip(steps * lit[..., None] * 1.1, 0.0, 1.0) * (1.0 - _edges(picture, 1.4))[..., None]


def _clay(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    prints = fractal_noise([rows * 0.16, columns * 0.1], 2, 13)
    ridges = 0.05 * wave(rows * 0.28 + 3.0 * prints) * (picture.ids > 0)
    matte = _smooth(_smooth(picture.albedo, _radius(picture, 3)), _radius(picture, 2))
    matte = 0.12 + 0.78 * _saturate(matte, 1.15)
    soft = 0.15 + 0.78 * jnp.sqrt(jnp.clip(picture.light, 0.0, 2.0) + 1e-4)
    return matte * (soft + (ridges + 0.12 * (prints - 0.5))[..., None]) + 0.03


def _pixel_art(picture: Picture) -> jax.Array:
    height, width = picture.depth.shape
    block = max(2, round(2.7 * _unit(picture)))
    i = jnp.minimum(jnp.arange(height) // block * block + block // 2, height - 1)
    j = jnp.minimum(jnp.arange(width) // block * block + block // 2, width - 1)
    coarse = _saturate(_shift(_box(picture.colour, block), block // 2, block // 2)[i][:, j], 1.35)
    ids = picture.ids[i][:, j]
    outline = (_shift(ids, block, 0) != ids) | (_shift(ids, 0, block) != ids)
    a, b = jnp.arange(height) // block, jnp.arange(width) // block
    bayer = ((2 * (a[:, None] % 2) + 3 * (b % 2) + 0 * a[:, None]) % 4).astype(jnp.float32) / 4.0 - 0.375
    levels = 6.0
    colour = jnp.clip(jnp.round(coarse * levels + 0.4 * bayer[..., None]) / levels, 0.0, 1.0)
    return colour * jnp.where(outline, 0.35, 1.0)[..., None]


def _oil(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    swirl = fractal_noise([rows * 0.05, columns * 0.05], 2, 17) * 4.0
    along, across = jnp.cos(swirl * 1.6), jnp.sin(swirl * 1.6)
    bristle = fractal_noise([(rows * along + columns * across) * 0.4, (columns * along - rows * across) * 0.07], 2, 19)
    reach = 5.0 * _unit(picture) * (bristle - 0.5)
    height, width = picture.depth.shape
    i = jnp.clip(jnp.round(jnp.arange(height)[:, None] + reach * along), 0, height - 1).astype(jnp.int32)
    j = jnp.clip(jnp.round(jnp.arange(width) + reach * across), 0, width - 1).astype(jnp.int32)
    strokes = _smooth(_saturate(picture.colour, 1.45)[i, j], _radius(picture, 2))
    relief = bristle - _shift(bristle, 1, 1)
    return strokes * (0.97 + 0.16 * (bristle - 0.5) + 0.35 * relief)[..., None]


def _low_poly(picture: Picture) -> jax.Array:
    """Each pixel takes the colour at the centre of its triangle in a bent grid, if that is on the same object."""
    rows, columns = _grid(picture)
    side = 8.0
    bent_r = rows + 5.0 * (value_noise([rows * 0.07, columns * 0.07], 23) - 0.5)
    bent_c = columns + 5.0 * (value_noise([rows * 0.07, columns * 0.07], 25) - 0.5)
    v = bent_r / (0.866 * side)
    u = bent_c / side - 0.5 * v
    a, b = jnp.floor(u), jnp.floor(v)
    upper = (u - a + v - b > 1.0).astype(jnp.float32)
    middle_u, middle_v = a + (1.0 + upper) / 3.0, b + (1.0 + upper) / 3.0
    height, width = picture.depth.shape
    unit = _unit(picture)
    i = jnp.clip(jnp.round(middle_v * 0.866 * side * unit), 0, height - 1).astype(jnp.int32)
    j = jnp.clip(jnp.round((middle_u + 0.5 * middle_v) * side * unit), 0, width - 1).astype(jnp.int32)
    flat = _smooth(_saturate(picture.colour, 1.2), _radius(picture, 3))
    same = picture.ids[i, j] == picture.ids
    facet = uniform(hash_bits(a.astype(jnp.int32), b.astype(jnp.int32), upper.astype(jnp.int32)))
    return jnp.where(same[..., None], flat[i, j], flat) * (0.92 + 0.16 * facet)[..., None]


def _blueprint(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    fine = jnp.maximum(wave(rows / 8.0) > 0.93, wave(columns / 8.0) > 0.93) * 0.07
    tone = _luminance(picture.colour)
    hatch = (wave((rows + columns) / 4.0) > 0.2) * smoothstep(0.5, 0.2, tone) * 0.16 * (picture.ids > 0)
    detail = jnp.abs(tone - _luminance(_box(picture.colour, 2))) * 1.6
    ink = jnp.clip(0.95 * _edges(picture) + fine + hatch + detail, 0.0, 1.0)[..., None]
    base = jnp.array([0.06, 0.21, 0.5]) * (0.45 + 0.95 * tone)[..., None]
    return base + (jnp.array([0.93, 0.97, 1.0]) - base) * ink


def _noir(picture: Picture) -> jax.Array:
    height, width = picture.depth.shape
    grain = uniform(hash_bits(jnp.arange(height)[:, None], jnp.arange(width), jnp.int32(3))) - 0.5
    tone = smoothstep(0.1, 0.9, _exposed(picture.colour)) + 0.1 * grain
    return jnp.clip(tone[..., None] * _vignette(picture, 0.9), 0.0, 1.0) * jnp.array([1.0, 0.985, 0.95])


def _stained_glass(picture: Picture) -> jax.Array:
    rows, columns = _grid(picture)
    near, second, label = cell_noise([rows / 13.0, columns / 13.0], 29)
    lead = smoothstep(0.085, 0.03, second - near)
    pane = _saturate(_smooth(_smooth(picture.colour, _radius(picture, 3)), _radius(picture, 3)), 1.9)
    glass = pane * (0.85 + 0.35 * label)[..., None] + 0.05
    border = jnp.maximum(lead, _edges(picture, 1.6))
    return jnp.clip(glass * 1.15, 0.0, 1.0) * (1.0 - 0.93 * border)[..., None]


def _neon(picture: Picture) -> jax.Array:
    line = _edges(picture)
    halo = line
    for radius in (_radius(picture, 2), _radius(picture, 3)):
        halo = _shift(_box(halo, 2 * radius + 1), radius, radius)
    hue = _saturate(_smooth(picture.albedo, _radius(picture, 3)), 2.6)
    hue = hue / (jnp.max(hue, -1, keepdims=True) + 0.12)
    dim = 0.16 * picture.colour * picture.colour
    return jnp.clip(dim + hue * (0.95 * line + 1.5 * halo)[..., None] + 0.35 * line[..., None], 0.0, 1.0)


_FILTERS: dict[str, Callable[[Picture], jax.Array]] = {
    "photograph": _photograph,
    "pencil sketch": _pencil,
    "watercolour": _watercolour,
    "ink comic": _comic,
    "clay": _clay,
    "pixel art": _pixel_art,
    "oil painting": _oil,
    "low poly": _low_poly,
    "blueprint": _blueprint,
    "film noir": _noir,
    "stained glass": _stained_glass,
    "neon lines": _neon,
}
STYLES = tuple(_FILTERS)


def stylise(style: jax.Array, picture: Picture) -> jax.Array:
    """Applies the style of that index; on a CPU only that one is computed, under vmap all are."""
    return jnp.clip(jax.lax.switch(style, list(_FILTERS.values()), picture), 0.0, 1.0)
