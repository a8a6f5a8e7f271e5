"""Which frames self-attention within a frame looks at: its own, unless said otherwise while a network is traced.

Image models become a little consistent over time where all frames read keys and values of the same ones, without any
training: Text2Video-Zero and EVE (the first frame), Pix2Video (the first and the one before).
"""

import contextlib
import contextvars
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

Attended = Callable[[Float[Array, "b t s c"]], Float[Array, "b t k c"]]
"""Positions of every frame -> those that each frame's queries look at."""


def first_frame(x: Float[Array, "b t s c"]) -> Float[Array, "b t s c"]:
    """Those of the first frame (https://arxiv.org/abs/2308.10648, frame-align attention)."""
    return jnp.broadcast_to(x[:, :1], x.shape)


def first_and_previous(x: Float[Array, "b t s c"]) -> Float[Array, "b t k c"]:
    """Those of the first frame and of the one before, k = 2 s (https://arxiv.org/abs/2303.12688, section 3)."""
    return jnp.concatenate([first_frame(x), jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)], axis=2)


_attended: contextvars.ContextVar[Attended | None] = contextvars.ContextVar("attended", default=None)


@contextlib.contextmanager
def attending_to(frames: Attended | None):
    """Networks traced inside look there; None for each frame its own. What was jitted before stays as it is."""
    token = _attended.set(frames)
    try:
        yield
    finally:
        _attended.reset(token)


def attended() -> Attended | None:
    """What was said, see `attending_to`."""
    return _attended.get()
