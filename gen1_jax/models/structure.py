"""Structure: depth of a clip, normalised, blurred t_s times, as the pictures that the autoencoder encodes.

arXiv 2302.03011, section 3.2. Where the paper is silent: depth is normalised over the whole clip, near is bright, the
blur is binomial with sigma 1, a round halves the size, and the way back up is bilinear.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MAX_STRUCTURE_LEVEL = 7
"""Largest t_s; the paper draws it from 0 to 7."""

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def normalise_depth(depth: Float[Array, "*batch t h w"]) -> Float[Array, "*batch t h w"]:
    """Inverse depth of any scale and shift to [-1, 1] over the clip, near is 1. Constant depth becomes 0."""
    low, high = depth.min((-3, -2, -1), keepdims=True), depth.max((-3, -2, -1), keepdims=True)
    span = high - low
    return jnp.where(span > 0, (depth - low) / jnp.where(span > 0, span, 1) * 2 - 1, 0)


def blur_depth(depth: Float[Array, "t h w"], level: Int[Array, ""]) -> Float[Array, "t h w"]:
    """`level` rounds (t_s, 0 to 7, may be traced) of blur and halving, then bilinear back to the size."""

    def rounds(count: int):
        def apply(x):
            for _ in range(count):
                x = _halve(_blur(_blur(x, 1), 2))
            return jax.image.resize(x, depth.shape, "linear")

        return apply

    return jax.lax.switch(level, [rounds(count) for count in range(MAX_STRUCTURE_LEVEL + 1)], depth)


def structure_images(depth: Float[Array, "b t h w"], structure_level: Int[Array, " b"]) -> Float[Array, "b t h w 3"]:
    """What the autoencoder encodes: blurred depth in [-1, 1] as three equal channels.

    Args:
        depth: from `normalise_depth`.
        structure_level: t_s of each clip, 0 to 7.
    """
    blurred = (
        jax.vmap(blur_depth)(depth, structure_level)
        if len(depth) > 1
        else blur_depth(depth[0], structure_level[0])[None]
    )
    return jnp.repeat(blurred[..., None], 3, axis=-1)


def _blur(x: Float[Array, "t h w"], axis: int) -> Float[Array, "t h w"]:
    padding = [(2, 2) if i == axis else (0, 0) for i in range(3)]
    padded = jnp.pad(x, padding, mode="edge")
    size = x.shape[axis]
    return sum(weight * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, weight in enumerate(_BINOMIAL))


def _halve(x: Float[Array, "t h w"]) -> Float[Array, "t h w"]:
    """Half the size, rounded up; pixel centres stay where they are."""
    frames, height, width = x.shape
    return jax.image.resize(x, (frames, -(-height // 2), -(-width // 2)), "linear", antialias=False)
