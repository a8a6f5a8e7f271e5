"""Attention with normalised, rotated queries and keys, and the three sets of positions that see each other.

within_frames    (b t) sequences of h w positions     pictures, and the spatial layers of factorised attention
between_frames   (b h w) sequences of t frames        the temporal layers of factorised attention
everywhere       b sequences of t h w positions       videos under full attention
"""

from collections.abc import Callable

from einops import rearrange
from jaxtyping import Array, Float

from gen1_jax.models.attention import Attention, attention
from gen1_jax.models.dit.rotary import Pairs, angles, rotated
from gen1_jax.models.norms import RMSNorm
from gen1_jax.models.over_time import Video, along_time
from gen1_jax.models.partition import by_sequence, fold, unfold

Sequence = Float[Array, "n s c"]


class NormalisedAttention(Attention):
    """Attention whose queries and keys are normalised over each head: scores stay small, in half precision, too.

    Sources: https://arxiv.org/abs/2302.05442 (section 3), https://arxiv.org/abs/2403.03206.

    Args:
        features: width of the input and output.
        heads: number of heads.
        options: further ones of `Attention`.
    """

    def __init__(self, features: int, heads: int, **options):
        super().__init__(features, heads, **options)
        self.norm_q, self.norm_k = RMSNorm(features // heads), RMSNorm(features // heads)

    def projected(
        self, x: Sequence, context: Float[Array, "n k e"] | None = None
    ) -> tuple[Float[Array, "n s heads d"], Float[Array, "n k heads d"], Float[Array, "n k heads d"]]:
        """See `Attention`."""
        query, key, value = super().projected(x, context)
        return self.norm_q(query), self.norm_k(key), value

    def at_positions(self, x: Sequence, by: Float[Array, "s p"]) -> Sequence:
        """Self-attention of positions that are turned so, see `rotary.angles`."""
        query, key, value = self.projected(x)
        return self.output(attention(rotated(query, by), rotated(key, by), value))


def per_frame(layer: Callable[[Sequence], Sequence], x: Video) -> Video:
    """`layer` over the positions of each frame."""
    batch, _, height, *_ = x.shape
    y = layer(rearrange(fold(x), "n h w c -> n (h w) c"))
    return unfold(rearrange(y, "n (h w) c -> n h w c", h=height), batch)


def within_frames(layer: NormalisedAttention, x: Video, pairs: Pairs) -> Video:
    """Each position sees those of its frame."""
    by = angles(pairs, 1, *x.shape[2:4])
    return per_frame(lambda y: layer.at_positions(y, by), x)


def between_frames(layer: NormalisedAttention, x: Video, pairs: Pairs) -> Video:
    """Each position sees itself in all frames."""
    by = angles(pairs, x.shape[1], 1, 1)
    return along_time(lambda y: layer.at_positions(y, by), x)


def everywhere(layer: NormalisedAttention, x: Video, pairs: Pairs) -> Video:
    """Each position sees those of all frames.

    Frames that are divided among devices change places with heads and back (https://arxiv.org/abs/2309.14509).
    """
    batch, frames, height, width, _ = x.shape
    by = angles(pairs, frames, height, width)
    clips = lambda y: by_sequence(rearrange(unfold(y, batch), "b t p heads d -> b (t p) heads d"))
    query, key, value = map(clips, layer.projected(rearrange(fold(x), "n h w c -> n (h w) c")))
    y = by_sequence(attention(rotated(query, by), rotated(key, by), value))
    y = layer.output(fold(rearrange(y, "b (t p) heads d -> b t p heads d", t=frames)))
    return unfold(rearrange(y, "n (h w) c -> n h w c", h=height), batch)
