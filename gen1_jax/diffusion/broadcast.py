"""How one number per example meets an array with a batch axis."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# One number for the whole batch, or one for each of its B examples.
PerExample = Float[Array | np.ndarray, ""] | Float[Array | np.ndarray, " b"] | float | int


def per_example(values: PerExample, like: Float[Array, " b *dims"]) -> Float[Array, "..."]:
    """Reshapes `values` so that they multiply `like` example by example.

    Args:
        values: a scalar, or one value for each of the B examples.
        like: (B, ...), the array they are meant for.

    Returns:
        A scalar, or (B, 1, ..., 1) with the rank of `like`; at least float32, so that half-precision
        predictions are combined in full precision.
    """
    values = jnp.asarray(values)
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return values if values.ndim == 0 else values.reshape(-1, *(1,) * (like.ndim - 1))
