"""A clip as two pictures, each laid under all frames by a map of its own: layered atlases, fitted to the one clip.

    pixel x of frame t ─┬─► place in the background's atlas ─► colour ──┐
                        ├─► place in the foreground's atlas ─► colour ──┴─► blended by alpha(x, t) ─► the frame
                        └─► alpha(x, t)

A map is an affine one of each frame, by which the layer's motion was found, and a grid of shifts that is fitted, as are
both pictures and alpha. Places are pixels of the middle frame, which maps onto itself.

Source: https://arxiv.org/abs/2109.11418 (layered neural atlases: colours, estimated motion and masks are fitted) and
https://arxiv.org/abs/2204.02491 (Text2LIVE edits them); grids are here in the place of their networks.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float32, Int, Key, UInt8

from gen1_jax.evaluation.rivals.motion_layers import MotionLayers, motion_layers
from gen1_jax.models.structure.pictures import opencv

STEPS, STRIDE = 400, 4
"""Of Adam; every fourth row and column is seen in each, now these, now others."""

RATES = {"pictures": 0.02, "shifts": 0.05, "alpha": 0.1}
"""Learning rates: of colours in [0, 1], pixels and logits."""

MOTION_WEIGHT, SMOOTH_WEIGHT, PRIOR_WEIGHT = 0.002, 0.005, 0.03
"""Beside the squared error of colours: of the distance in pixels to where the motion has a place, of squared
differences of neighbouring shifts, of alpha's squared distance to where it began. Colours that are not seen stay."""

FINER = 1.5
"""Texels of an atlas over pixels of a frame."""

_CELL = 4  # pixels of the grid of shifts, about
_ENOUGH = 0.2  # of a pixel, to be the colour of a texel
_LOGIT = 4.0  # of what is surely in front before the fit


class Atlas(NamedTuple):
    """Two layers of one clip, the background first, or of several, stacked; a pytree.

    Attributes:
        pictures: colours, 0 to 1.
        box: left, top, width and height of the pictures, in pixels of the middle frame.
        affine: (x, y, 1) of a pixel -> (x, y) in the middle frame.
        shifts: pixels, added to that, at the points of a grid over the frame.
        alpha: logits of the degree to which a pixel is of the foreground.
    """

    pictures: Float[Array, "2 i j 3"] | np.ndarray
    box: Float[Array, "2 4"] | np.ndarray
    affine: Float[Array, "2 t 3 2"] | np.ndarray
    shifts: Float[Array, "2 t k l 2"] | np.ndarray
    alpha: Float[Array, "t h w"] | np.ndarray


def fitted(
    clips: UInt8[np.ndarray, "n t h w 3"],
    foreground: Float32[np.ndarray, "n t h w"] | None = None,
    *,
    keys: Key[Array, " n"],
) -> Atlas:
    """Layers of each clip, stacked.

    Args:
        clips: sRGB.
        foreground: masks of what is in front; None for what moves otherwise than most.
        keys: of the pixels that are seen in each step, a clip's own.
    """
    motions = [motion_layers(clip, None if foreground is None else foreground[i]) for i, clip in enumerate(clips)]
    begin = [_begin(clip, motion) for clip, motion in zip(clips, motions, strict=True)]
    stacked, seen = jax.tree.map(lambda *leaves: np.stack(leaves), *begin)
    towards = np.stack([motion.to_reference for motion in motions])
    return jax.device_get(_fit(keys, stacked, seen, clips.astype(np.float32) / 255, towards, STEPS, STRIDE))


def rendered(atlas: Atlas, pictures: Float32[np.ndarray, "n 2 i j 3"] | None = None) -> Float[Array, "n t h w 3"]:
    """Clips, 0 to 1, as their layers have them.

    Args:
        atlas: of N clips.
        pictures: in the place of the layers' own, of any size; both lie where those do.
    """
    return _render(atlas, atlas.pictures if pictures is None else pictures)


def coverage(atlas: Atlas) -> Float32[np.ndarray, "n i j"]:
    """How much of the foreground's pictures is seen in some frame, 0 to 1."""
    return np.stack([_coverage(jax.tree.map(lambda x: x[i], atlas)) for i in range(len(atlas.alpha))])  # noqa: B023


def behind(atlas: Atlas) -> Float[Array, "n i j 3"]:
    """What the background has where the foreground's pictures lie, as both are in the middle frame."""
    return _behind(atlas)


@partial(jax.jit, static_argnums=(5, 6))
def _fit(
    keys: Key[Array, " n"], begin: Atlas, seen: Array, clips: Array, towards: Array, steps: int, stride: int
) -> Atlas:
    rates = optax.multi_transform({name: optax.adam(rate) for name, rate in RATES.items()}, lambda x: {n: n for n in x})
    count, height, width = begin.alpha.shape[1:]

    def clip(key: Key[Array, ""], begin: Atlas, seen: Array, frames: Array, towards: Array) -> Atlas:
        alpha = jax.nn.sigmoid(begin.alpha)

        def of(learned: dict[str, Array]) -> Atlas:
            shifts = learned["shifts"].at[:, count // 2].set(0)
            pictures = jnp.where(seen, learned["pictures"], begin.pictures)
            return begin._replace(pictures=pictures, shifts=shifts, alpha=learned["alpha"])

        def loss(learned: dict[str, Array], key: Key[Array, ""]) -> Array:
            atlas, first = of(learned), jax.random.randint(key, (2,), 0, stride)
            y, x = (
                start + jnp.arange(side // stride) * stride for start, side in zip(first, (height, width), strict=True)
            )
            chosen = lambda z: z[:, y][:, :, x]
            places, share = _places(atlas, y, x), jax.nn.sigmoid(chosen(atlas.alpha))
            colours = _mixed(*_colours(atlas.pictures, atlas.box, places), share)
            off = places - _pixels(y, x) - chosen(towards)
            far = jnp.sqrt(jnp.square(off).sum(-1) + 0.01)
            mine = jax.lax.stop_gradient(jnp.stack([1 - share, share]))
            rough = sum(jnp.square(jnp.diff(atlas.shifts, axis=axis)).mean() for axis in (2, 3))
            return (
                jnp.square(colours - chosen(frames)).mean()
                + MOTION_WEIGHT * (mine * far).mean()
                + SMOOTH_WEIGHT * rough
                + PRIOR_WEIGHT * jnp.square(share - chosen(alpha)).mean()
            )

        def step(i: Int[Array, ""], state: tuple) -> tuple:
            learned, moments = state
            updates, moments = rates.update(jax.grad(loss)(learned, jax.random.fold_in(key, i)), moments)
            return optax.apply_updates(learned, updates), moments

        learned = {name: getattr(begin, name) for name in RATES}
        return of(jax.lax.fori_loop(0, steps, step, (learned, rates.init(learned)))[0])

    return jax.vmap(clip)(keys, begin, seen, clips, towards)


@jax.jit
def _render(atlas: Atlas, pictures: Array) -> Array:
    def clip(atlas: Atlas, pictures: Array) -> Array:
        colours = _colours(pictures, atlas.box, _all_places(atlas))
        return _mixed(*colours, jax.nn.sigmoid(atlas.alpha))

    return jax.vmap(clip)(atlas, pictures)


@jax.jit
def _behind(atlas: Atlas) -> Array:
    def clip(atlas: Atlas) -> Array:
        places = _texels(atlas.box[1], atlas.pictures.shape[1:3])
        return _looked_up(atlas.pictures[0], atlas.box[0], places)

    return jax.vmap(clip)(atlas)


def _places(atlas: Atlas, y: Float[Array, " i"] | Int[Array, " i"], x: Float[Array, " j"] | Int[Array, " j"]) -> Array:
    """(2, T, i, j, 2), in the middle frame, of rows y and columns x of pixels, by the map of each layer."""
    (_, _, *grid, _), (_, *size) = atlas.shifts.shape, atlas.alpha.shape
    shares = (_shares(at, side, points) for at, side, points in zip((y, x), size, grid, strict=True))
    shifts = jnp.einsum("atklc,ik,jl->atijc", atlas.shifts, *shares)
    there = _pixels(y, x)
    there = jnp.concatenate([there, jnp.ones_like(there[..., :1])], axis=-1)
    return jnp.einsum("ijc,atcd->atijd", there, atlas.affine) + shifts


def _all_places(atlas: Atlas) -> Float[Array, "2 t h w 2"]:
    return _places(atlas, *map(jnp.arange, atlas.alpha.shape[1:]))


def _pixels(y: Array, x: Array) -> Float[Array, "i j 2"]:
    return jnp.stack(jnp.meshgrid(x, y), -1).astype(jnp.float32)


def _shares(at: Array, side: int, points: int) -> Float[Array, "i k"]:
    """Of points that divide a side evenly, how much each counts at a pixel."""
    return jnp.maximum(0, 1 - jnp.abs(at[:, None] * ((points - 1) / (side - 1)) - jnp.arange(points)))


def _colours(pictures: Array, boxes: Array, places: Float[Array, "2 *p 2"]) -> Float[Array, "2 *p 3"]:
    return jax.vmap(_looked_up)(pictures, boxes, places)


def _looked_up(picture: Float[Array, "i j c"], box: Float[Array, "4"], places: Float[Array, "*p 2"]) -> Array:
    """Colours between texels, of the border beyond it."""
    height, width, _ = picture.shape
    texels = (places - box[:2]) / box[2:] * jnp.array([width, height]) - 0.5
    texels = jnp.clip(texels, 0, jnp.array([width - 1, height - 1]))
    corner = jnp.clip(jnp.floor(texels), 0, jnp.array([width - 2, height - 2]))
    (left, top), (right, down) = (jnp.moveaxis(z, -1, 0) for z in (corner.astype(jnp.int32), texels - corner))
    above, below = (_mixed(picture[row, left], picture[row, left + 1], right) for row in (top, top + 1))
    return _mixed(above, below, down)


def _mixed(one: Array, other: Array, share: Array) -> Array:
    return one + share[..., None] * (other - one)


def _texels(box: Array, size: tuple[int, int]) -> Float[Array, "i j 2"]:
    """Where the middles of a picture's texels are."""
    y, x = jnp.mgrid[: size[0], : size[1]]
    return box[:2] + (jnp.stack([x, y], -1) + 0.5) / jnp.array(size[::-1]) * box[2:]


def _begin(frames: UInt8[np.ndarray, "t h w 3"], motion: MotionLayers) -> tuple[Atlas, np.ndarray]:
    """Layers as the motion has them, and which texels are seen: pictures are means of the pixels that lie there."""
    count, height, width = frames.shape[:3]
    grid = tuple(max(2, 1 + round(side / _CELL)) for side in (height, width))
    size = math.ceil(FINER * height), math.ceil(FINER * width)
    shares = np.stack([1 - motion.foreground, motion.foreground]).astype(np.float32)
    y, x = np.mgrid[:height, :width]
    there = np.stack([x, y, np.ones_like(x)], -1).astype(np.float32)
    affine = motion.affine.copy()
    affine[:, count // 2] = np.eye(3, 2)
    straight = np.einsum("hwi,ltij->lthwj", there, affine)
    over = there[..., :2] + motion.to_reference - straight
    shifts = np.array(
        [
            [_means(field, share, grid) for field, share in zip(*of, strict=True)]
            for of in zip(over, shares, strict=True)
        ]
    )
    shifts[:, count // 2] = 0
    logits = _LOGIT * (2 * motion.foreground - 1)
    atlas = Atlas(np.zeros((2, *size, 3), np.float32), np.zeros((2, 4), np.float32), affine, shifts, logits)
    places = np.asarray(_all_places(atlas))
    boxes = np.stack([_box(p, share > 0.5, (height, width)) for p, share in zip(places, shares, strict=True)])
    colours = frames.reshape(-1, 3) / np.float32(255)
    found = [_sums(*each, colours, size) for each in zip(places, boxes, np.square(shares), strict=True)]
    pictures, seen = np.stack([_filled(*each) for each in found]), np.stack([_seen(weights) for _, weights in found])
    return atlas._replace(box=boxes, pictures=pictures), seen


def _means(field: np.ndarray, share: np.ndarray, grid: tuple[int, int]) -> Float32[np.ndarray, "k l 2"]:
    """Of a field around the points of a grid, where it has a share; nothing where it has none."""
    cv2 = opencv("layered atlases")
    blur = lambda x: cv2.GaussianBlur(x.astype(np.float32), (0, 0), _CELL / 2)
    weight = np.square(share)
    smooth = blur(field * weight[..., None]) / (blur(weight) + 1e-2)[..., None]
    rows, columns = (np.linspace(0, side - 1, n, dtype=np.float32) for side, n in zip(share.shape, grid, strict=True))
    return cv2.remap(smooth, *np.meshgrid(columns, rows), cv2.INTER_LINEAR)


def _box(places: np.ndarray, mine: np.ndarray, size: tuple[int, int]) -> Float32[np.ndarray, "4"]:
    """What holds the middle frame and all that is seen of a layer, of the shape of a frame, at most twice as large."""
    side = np.array(size[::-1], np.float32)
    seen = places[mine] if mine.any() else places[:0]
    low, high = np.minimum(seen.min(0, initial=0), 0), np.maximum(seen.max(0, initial=0), side)
    low, high = np.maximum(low, -0.5 * side), np.minimum(high, 1.5 * side)
    wide = side * ((high - low) / side).max()
    return np.concatenate([(low + high - wide) / 2, wide]).astype(np.float32)


def _filled(sums: Float32[np.ndarray, "i j c"], weights: Float32[np.ndarray, "i j 1"]) -> Float32[np.ndarray, "i j c"]:
    """Means of what lies at each texel, or of what lies around it if not enough does."""
    cv2 = opencv("layered atlases")
    means, missing, radius = sums / np.maximum(weights, 1e-6), weights[..., 0] < _ENOUGH, 0.7
    while missing.any() and radius < 2 * max(missing.shape):
        around, weight = (cv2.GaussianBlur(x, (0, 0), radius).reshape(x.shape) for x in (sums, weights))
        found = missing & (weight[..., 0] > 1e-3)
        means[found] = around[found] / weight[found]
        missing, radius = missing & ~found, 2 * radius
    return means.clip(0, 1)


def _seen(weights: Float32[np.ndarray, "i j 1"]) -> Bool[np.ndarray, "i j 1"]:
    """Where pixels lie at a texel, or at one beside it: texels are finer than pixels."""
    return opencv("layered atlases").GaussianBlur(weights, (0, 0), 1.0).reshape(weights.shape) > _ENOUGH


def _sums(places, box, share, values, size) -> tuple[Float32[np.ndarray, "i j c"], Float32[np.ndarray, "i j 1"]]:
    """Of values times shares, and of shares, at each texel."""
    texels = ((places.reshape(-1, 2) - box[:2]) / box[2:] * size[::-1]).astype(int)
    inside = ((texels >= 0) & (texels < size[::-1])).all(1)
    at, share = (texels[:, 1] * size[1] + texels[:, 0])[inside], share.reshape(-1)[inside]
    total = lambda x: np.bincount(at, x, size[0] * size[1]).reshape(size).astype(np.float32)
    sums = np.stack([total(share * column) for column in values[inside].T], -1)
    return sums, total(share)[..., None]


def _coverage(atlas: Atlas) -> Float32[np.ndarray, "i j"]:
    share = np.asarray(jax.nn.sigmoid(atlas.alpha))
    places, size = np.asarray(_all_places(atlas))[1], atlas.pictures.shape[1:3]
    return _filled(*_sums(places, atlas.box[1], np.ones_like(share), share.reshape(-1, 1), size))[..., 0]
