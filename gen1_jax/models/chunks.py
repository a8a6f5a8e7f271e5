"""A network of single pictures over many of them, a few at a time, inside one jit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gen1_jax.errors import UserError


def in_chunks(
    function: Callable[[Float[Array, "n h w c"]], Float[Array, "n h w"]],
    images: Float[Array, "b h w c"],
    frames_per_chunk: int,
) -> Float[Array, "b h w"]:
    """What a function gives for each picture, float32; beside the result, memory grows with the chunk and not with b.

    Args:
        function: of pictures that do not see each other.
        images: the pictures.
        frames_per_chunk: how many it is given at once.

    Raises:
        ValueError: frames_per_chunk is less than 1.
    """
    if frames_per_chunk < 1:
        raise UserError(f"frames_per_chunk is {frames_per_chunk}, not at least 1")
    count, height, width, _ = images.shape
    chunk = min(frames_per_chunk, count)

    def one_chunk(index, results):
        start = jnp.minimum(index * chunk, count - chunk)  # the last chunk may repeat images of the one before
        x = function(jax.lax.dynamic_slice_in_dim(images, start, chunk))
        return jax.lax.dynamic_update_slice_in_dim(results, x, start, axis=0)

    empty = jnp.zeros((count, height, width), jnp.float32)
    return jax.lax.fori_loop(0, -(-count // chunk), one_chunk, empty)
