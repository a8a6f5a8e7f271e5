"""Pictures as networks see them: float32 RGB in [-1, 1]."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8


def pixels_to_images(pixels: UInt8[Array, "*shape"] | UInt8[np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
    """0 ... 255 to [-1, 1], float32."""
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1
