"""A second kind of structure, in one file: what adding one takes. It needs no network."""

import contextlib
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from gen1_jax.models.structure import STRUCTURE_KINDS, blur

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


class Edges:
    """Sobel magnitude of luminance, -1 where there is none and 1 at the strongest edge of the clip."""

    name: ClassVar[str] = "sobel"
    part: ClassVar[str | None] = None
    is_estimated: ClassVar[bool] = True
    runs_on_host: ClassVar[bool] = False
    channels: ClassVar[int] = 1
    degrades: ClassVar[str] = "maps"
    resampling: ClassVar[str] = "area"
    contract: ClassVar[dict] = {"operator": "sobel", "support": "all frames that are encoded together"}

    def estimate(self, frames, networks, frames_per_chunk=None):
        grey = jnp.pad(jnp.asarray(frames, jnp.float32) @ _LUMINANCE, ((0, 0), (1, 1), (1, 1)), "edge")
        smooth = lambda x, axis: sum(
            weight * jnp.take(x, jnp.arange(i, x.shape[axis] - 2 + i), axis) for i, weight in enumerate((1, 2, 1))
        )
        slope = lambda x, axis: (
            jnp.take(x, jnp.arange(2, x.shape[axis]), axis) - jnp.take(x, jnp.arange(x.shape[axis] - 2), axis)
        )
        return jnp.hypot(slope(smooth(grey, 2), 1), slope(smooth(grey, 1), 2))[..., None]

    def from_pictures(self, pictures):
        return jnp.asarray(pictures, jnp.float32).mean(-1, keepdims=True) / 127.5 - 1

    def normalise(self, maps):
        strongest = maps.max((-4, -3, -2, -1), keepdims=True)
        return 2 * maps / jnp.where(strongest > 0, strongest, 1) - 1

    def transformed(self, maps, scale=(1.0, 1.0), mirrored=False):
        return maps

    def degrade(self, maps, level):
        return blur(maps, level)

    def encode(self, maps, encode_images):
        return encode_images(jnp.repeat(maps, 3, axis=-1))

    def hint(self, maps):
        return jnp.repeat((maps + 1) / 2, 3, axis=-1)


@contextlib.contextmanager
def edges_known():
    """While it lasts, recipes and commands know the kind."""
    STRUCTURE_KINDS[Edges.name] = Edges()
    try:
        yield STRUCTURE_KINDS[Edges.name]
    finally:
        del STRUCTURE_KINDS[Edges.name]
