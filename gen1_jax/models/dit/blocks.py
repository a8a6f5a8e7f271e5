"""Blocks of the space-time transformer: what they add is scaled, shifted and gated by the timestep (adaLN-zero).

x ─┬─ norm · scale + shift ─ attention ─ · gate ─┐
   └──────────────────────────────────────────── + ─┬─ norm ─ attention to the content ─┐
                                                    └──────────────────────────────── + ─┬─ norm · scale + shift ─ ...
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.dit.attention import NormalisedAttention, per_frame
from gen1_jax.models.dit.config import DiTConfig
from gen1_jax.models.layers import ZEROS, FeedForward, Linear, parameter
from gen1_jax.models.norms import LayerNorm, standardised
from gen1_jax.models.over_time import Video
from gen1_jax.models.partition import by_frame, fold

_EPSILON = 1e-6
_PER_BLOCK = 6  # shift, scale and gate of attention, the same of the feed-forward

Time = Float[Array, "b e"]
Attend = Callable[[NormalisedAttention, Video], Video]


class Modulation(nnx.Module):
    """Shifts, scales and gates from the embedding of the timestep, float32; zeros before it is trained.

    Args:
        features: width of the embedding, and of each of them.
        count: how many there are.
    """

    def __init__(self, features: int, count: int):
        self.projection = Linear(features, count * features, init=ZEROS)
        self._count = count

    def __call__(self, time: Time) -> Float[Array, "b k e"]:
        return rearrange(self.projection(jax.nn.silu(time)), "b (k e) -> b k e", k=self._count)


def modulated(x: Video, shift: Float[Array, "b c"], scale: Float[Array, "b c"]) -> Video:
    """Normalised, scaled and shifted in float32; given back in the dtype of x."""
    y = standardised(x, _EPSILON) * (1 + _of_clips(scale)) + _of_clips(shift)
    return y.astype(x.dtype)


def _of_clips(y: Float[Array, "b c"]) -> Float[Array, "b 1 1 1 c"]:
    return y[:, None, None, None]


class Block(nnx.Module):
    """Self-attention, attention to the content if it reads it, feed-forward: the identity at initialisation.

    Args:
        config: of the network.
        reads_content: whether it does.
    """

    def __init__(self, config: DiTConfig, *, reads_content: bool):
        width, heads = config.width, config.num_attention_heads
        shared = config.shared_modulation
        self.modulation = None if shared else Modulation(width, _PER_BLOCK)
        self.modulation_bias = parameter((_PER_BLOCK, width), ZEROS) if shared else None
        self.attn1 = NormalisedAttention(width, heads)
        self.norm2 = LayerNorm(width) if reads_content else None
        context = dict(context_features=config.cross_attention_dim, out_init=ZEROS)
        self.attn2 = NormalisedAttention(width, heads, **context) if reads_content else None
        self.ff = FeedForward(width, config.feed_forward_dim)

    def __call__(
        self,
        x: Video,
        time: Time,
        tokens: Float[Array, "b n d"],
        shared: Float[Array, "b k e"] | None,
        *,
        attend: Attend,
    ) -> Video:
        """The output.

        Args:
            x: activations.
            time: embedding of the timestep, float32.
            tokens: of the content, in the dtype of the computation.
            shared: what blocks of a stack share, see `Stack`; None where each has its own.
            attend: how self-attention is computed.
        """
        own = self.modulation(time) if shared is None else shared + self.modulation_bias[...]
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.unstack(own, axis=1)
        gated = lambda gate, y: (_of_clips(gate) * y).astype(y.dtype)
        x = by_frame(x)
        x = x + gated(gate1, attend(self.attn1, modulated(x, shift1, scale1)))
        if self.attn2 is not None:
            frames = jnp.broadcast_to(tokens[:, None], (*x.shape[:2], *tokens.shape[1:]))
            x = x + per_frame(lambda y: self.attn2(y, fold(frames)), self.norm2(x))
        return x + gated(gate2, per_frame(self.ff, modulated(x, shift2, scale2)))


class Stack(nnx.Module):
    """Blocks of one sort, and the modulation that they share if they do.

    What is between frames has one of its own: training on images leaves it the identity.

    Args:
        config: of the network.
        reads_content: whether they do.
    """

    def __init__(self, config: DiTConfig, *, reads_content: bool):
        self.blocks = nnx.List([Block(config, reads_content=reads_content) for _ in range(config.num_layers)])
        self.modulation = Modulation(config.width, _PER_BLOCK) if config.shared_modulation else None

    def shared(self, time: Time) -> Float[Array, "b k e"] | None:
        """What its blocks share, once an evaluation."""
        return None if self.modulation is None else self.modulation(time)
