"""How layers between frames are applied, in denoisers of any kind: to videos only, and along each position."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from gen1_jax.models.partition import by_frame, by_position, fold, unfold

Video = Float[Array, "b t h w c"]


def along_time(layer: Callable[[Float[Array, "s t c"]], Float[Array, "s t c"]], x: Video) -> Video:
    """`layer` over the sequence of frames at each position."""
    batch, _, height, width, _ = x.shape
    y = by_position(rearrange(x, "b t h w c -> b t (h w) c"))
    y = layer(fold(rearrange(y, "b t p c -> b p t c")))
    y = by_position(rearrange(unfold(y, batch), "b p t c -> b t p c"))
    return by_frame(rearrange(y, "b t (h w) c -> b t h w c", h=height, w=width))


def over_time(
    layer: Callable[..., Video] | None,
    x: Video,
    still: tuple[bool, ...],
    *told: Any,
    pictures: Callable[..., Video] = lambda x, *told: x,
) -> Video:
    """A temporal layer on the clips that are videos; images, and clips seen frame by frame, pass it by.

    Args:
        layer: from activations, and from what it is told of each clip, to activations; None for none.
        x: activations.
        still: see `Conditions.still`.
        told: trees of (B, ...), further arguments of the layer.
        pictures: what is done in its place where frames are seen one by one.
    """
    images = sum(still)
    if layer is None or x.shape[1] == 1 or images == len(still):
        return pictures(x, *told)
    if not images:
        return layer(x, *told)
    rows = lambda y, part: y.reshape(-1, len(still), *y.shape[1:])[:, part].reshape(-1, *y.shape[1:])
    some = lambda part: jax.tree.map(lambda y: rows(y, part), (x, *told))
    seen = pictures(*some(slice(images))), layer(*some(slice(images, None)))
    clips = len(x) // len(still)
    return jnp.concatenate([y.reshape(clips, -1, *y.shape[1:]) for y in seen], axis=1).reshape(x.shape)
