"""A network of single pictures over many of them, a few at a time, inside one jit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gen1_jax.errors import UserError


def in_chunks(function: Callable[[Any], Any], images: Any, frames_per_chunk: int) -> Any:
    """What a function gives for each picture; beside the result, memory grows with the chunk and not with b.

    Args:
        function: of pictures that do not see each other.
        images: (b, ...), the pictures, or several such arrays of the same b.
        frames_per_chunk: how many it is given at once.

    Raises:
        ValueError: frames_per_chunk is less than 1.
    """
    if frames_per_chunk < 1:
        raise UserError(f"frames_per_chunk is {frames_per_chunk}, not at least 1")
    count = len(jax.tree.leaves(images)[0])
    chunk = min(frames_per_chunk, count)

    def part(start: int | Array) -> Any:
        return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, chunk), images)

    def one_chunk(index, results):
        start = jnp.minimum(index * chunk, count - chunk)  # the last chunk may repeat images of the one before
        put = lambda whole, x: jax.lax.dynamic_update_slice_in_dim(whole, x, start, axis=0)
        return jax.tree.map(put, results, function(part(start)))

    shapes = jax.eval_shape(function, jax.eval_shape(part, 0))
    empty = jax.tree.map(lambda x: jnp.zeros((count, *x.shape[1:]), x.dtype), shapes)
    return jax.lax.fori_loop(0, -(-count // chunk), one_chunk, empty)
