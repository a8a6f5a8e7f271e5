"""How attention within a frame is computed: from its own positions to them, unless said otherwise in a trace.

Image models become a little consistent over time where all frames read keys and values of the same ones, without any
training: Text2Video-Zero and EVE (the first frame), Pix2Video (the first and the one before). Editors that put outputs
or maps of attention from one clip of a batch into another say so by an `Attending` of their own.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from gen1_jax.models.attention import Attention
from gen1_jax.models.partition import fold, unfold

Attended = Callable[[Float[Array, "b t s c"]], Float[Array, "b t k c"]]
"""Positions of every frame -> those that each frame's queries look at."""


def first_frame(x: Float[Array, "b t s c"]) -> Float[Array, "b t s c"]:
    """Those of the first frame (https://arxiv.org/abs/2308.10648, frame-align attention)."""
    return jnp.broadcast_to(x[:, :1], x.shape)


def first_and_previous(x: Float[Array, "b t s c"]) -> Float[Array, "b t k c"]:
    """Those of the first frame and of the one before, k = 2 s (https://arxiv.org/abs/2303.12688, section 3)."""
    return jnp.concatenate([first_frame(x), jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)], axis=2)


def own_and_middle(x: Float[Array, "b t s c"]) -> Float[Array, "b t k c"]:
    """Those of the frame itself and of the middle one, k = 2 s (https://arxiv.org/abs/2303.09535, section 3.3)."""
    middle = x.shape[1] // 2
    return jnp.concatenate([x, jnp.broadcast_to(x[:, middle : middle + 1], x.shape)], axis=2)


class Attending:
    """Both attentions of a layer within frames, as they are; what is computed otherwise is overridden.

    Sequences are those of n = b t frames, folded by `partition.fold`.
    """

    def to_positions(self, layer: Attention, x: Float[Array, "n s c"], clips: int) -> Float[Array, "n s c"]:
        """Self-attention among the positions of frames.

        Args:
            layer: whose weights.
            x: positions, normalised.
            clips: b, for `partition.unfold`.
        """
        return layer(x)

    def to_content(
        self, layer: Attention, x: Float[Array, "n s c"], tokens: Float[Array, "n m d"], clips: int, **picture: Array
    ) -> Float[Array, "n s c"]:
        """Cross-attention from positions to what is told.

        Args:
            layer: whose weights.
            x: positions, normalised.
            tokens: of each frame's content.
            clips: b.
            picture: for an `AdaptedAttention`.
        """
        return layer(x, tokens, **picture)


@dataclasses.dataclass(frozen=True)
class Looking(Attending):
    """Self-attention with keys and values of other frames.

    Attributes:
        where: which.
    """

    where: Attended

    def to_positions(self, layer: Attention, x: Float[Array, "n s c"], clips: int) -> Float[Array, "n s c"]:
        """See `Attending`."""
        return layer(x, self.seen(x, clips))

    def seen(self, x: Float[Array, "n s c"], clips: int) -> Float[Array, "n k c"]:
        """What each frame looks at."""
        return fold(self.where(unfold(x, clips)))


_attending: contextvars.ContextVar[Attending | None] = contextvars.ContextVar("attending", default=None)


@contextlib.contextmanager
def attending_by(how: Attending | None):
    """Networks traced inside attend so; None for as they do anyway. What was jitted before stays as it is."""
    token = _attending.set(how)
    try:
        yield
    finally:
        _attending.reset(token)


def attending_to(frames: Attended | None) -> contextlib.AbstractContextManager[None]:
    """Networks traced inside look there; None for each frame its own."""
    return attending_by(None if frames is None else Looking(frames))


def attending() -> Attending | None:
    """What was said, see `attending_by`."""
    return _attending.get()
