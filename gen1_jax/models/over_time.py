"""How layers between frames are applied, in denoisers of any kind: to videos only, and along each position."""

from collections.abc import Callable
from typing import Any

import jax
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
    pictures: Callable[..., Video] | None = None,
) -> Video:
    """A temporal layer on the clips that are videos; images, and clips seen frame by frame, pass it by.

    Args:
        layer: from activations, and from what it is told of each clip, to activations; None for none.
        x: activations.
        still: see `Conditions.still`.
        told: trees of (B, ...), further arguments of the layer.
        pictures: what is done in its place where frames are seen one by one; None for nothing.
    """
    images = sum(still)
    if layer is None or x.shape[1] == 1 or images == len(still):
        return x if pictures is None else pictures(x, *told)
    if not images:
        return layer(x, *told)
    clips = lambda y: y.reshape(-1, len(still), *y.shape[1:])
    some = lambda part: jax.tree.map(lambda y: clips(y)[:, part].reshape(-1, *y.shape[1:]), (x, *told))
    out = clips(x)
    for apply, first, part in ((pictures, 0, slice(images)), (layer, images, slice(images, None))):
        if apply is not None:
            done = apply(*some(part)).reshape(len(out), -1, *x.shape[1:])
            out = jax.lax.dynamic_update_slice_in_dim(out, done, first, axis=1)  # the others stay where they lie
    return out.reshape(x.shape)
