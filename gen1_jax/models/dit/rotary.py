"""Rotary positions (RoPE, https://arxiv.org/abs/2104.09864) over time, rows and columns.

features of a head   t t t t | h h h | w w w        pairs of features, each turned by position · frequency
"""

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

_LONGEST = 10_000.0
"""Period of the slowest pair, in positions, over 2π: as in the paper."""

Pairs = tuple[int, int, int]
"""How many pairs of features turn with time, rows and columns; one that has none does not see that axis."""


def pairs_of_all_axes(head_size: int) -> Pairs:
    """A third of the pairs for rows and for columns, what is left for time (as Wan 2.1 divides them)."""
    third = head_size // 6
    return head_size // 2 - 2 * third, third, third


def angles(pairs: Pairs, frames: int, rows: int, columns: int) -> Float[Array, "s p"]:
    """By how much each pair turns at each position of (t h w), float32."""
    axes = jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in (frames, rows, columns)), indexing="ij")
    turned = []
    for positions, count in zip(axes, pairs, strict=True):
        frequencies = _LONGEST ** -(jnp.arange(count, dtype=jnp.float32) / max(count, 1))
        turned.append(rearrange(positions, "t h w -> (t h w) 1") * frequencies)
    return jnp.concatenate(turned, axis=-1)


def rotated(x: Float[Array, "n s heads d"], by: Float[Array, "s p"]) -> Float[Array, "n s heads d"]:
    """Queries or keys, turned at each position, d = 2 p; in float32, given back in the dtype of x.

    A pair is a feature of the first half and its like of the second.
    """
    cosines, sines = jnp.cos(by)[:, None], jnp.sin(by)[:, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cosines - second * sines, second * cosines + first * sines]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
