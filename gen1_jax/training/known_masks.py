"""What of a clip is given in training, for a network that is to go on from it: some frames, a region, or nothing.

first frames   █ █ . . . . . .     an edited frame is carried, a long clip goes on
ends           █ . . . . . . █     what lies between keyframes is filled in
any frames     . █ . . █ . . █     each with a probability that is drawn, too
a box          the same in every frame, its inside or all around it: inpainting; at times with the first frame
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

_WITH_FIRST_FRAME = 0.25  # how often a box comes with it


def draw_known(key: Key[Array, ""], shape: tuple[int, int, int], probability: float) -> Float[Array, "t h w 1"]:
    """1 where the latents of an example are given, else 0. All patterns are equally likely; a picture has a box.

    Args:
        key: of the example.
        shape: (T, h, w) of its latents.
        probability: that anything is given.
    """
    frames, height, width = shape
    given, pattern, *others = jax.random.split(key, 6)
    box = _box(others[0], height, width)[None]
    if frames == 1:
        mask = box
    else:
        first = jnp.arange(frames)[:, None, None] == 0
        of_frames = [_first(others[1], frames), _ends(frames), _any(others[2], frames)]
        patterns = [jnp.broadcast_to(x[:, None, None], shape) for x in of_frames]
        patterns.append(box | (first & jax.random.bernoulli(others[3], _WITH_FIRST_FRAME)))
        mask = jnp.stack(patterns)[jax.random.randint(pattern, (), 0, len(patterns))]
    return jnp.asarray(mask & jax.random.bernoulli(given, probability), jnp.float32)[..., None]


def _first(key: Key[Array, ""], frames: int) -> Bool[Array, " t"]:
    """The first frame, or as often the first ones, at most all but the last."""
    one, count = jax.random.split(key)
    several = jax.random.randint(count, (), 1, frames)
    return jnp.arange(frames) < jnp.where(jax.random.bernoulli(one), 1, several)


def _ends(frames: int) -> Bool[Array, " t"]:
    return jnp.isin(jnp.arange(frames), jnp.array([0, frames - 1]))


def _any(key: Key[Array, ""], frames: int) -> Bool[Array, " t"]:
    share, draw = jax.random.split(key)
    return jax.random.uniform(draw, (frames,)) < jax.random.uniform(share)


def _box(key: Key[Array, ""], height: int, width: int) -> Bool[Array, "h w"]:
    """A box of any size and place, or what is around it."""
    around, rows, columns = jax.random.split(key, 3)
    box = _span(rows, height)[:, None] & _span(columns, width)[None]
    return box ^ jax.random.bernoulli(around)


def _span(key: Key[Array, ""], size: int) -> Bool[Array, " size"]:
    """From one place to another."""
    length, start = jax.random.split(key)
    count = jax.random.randint(length, (), 1, size + 1)
    begin = jnp.floor(jax.random.uniform(start) * (size - count + 1))
    return (jnp.arange(size) >= begin) & (jnp.arange(size) < begin + count)
