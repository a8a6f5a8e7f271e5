"""Normalisations, computed in float32."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.layers import ONES, ZEROS, over_rows, parameter


class GroupNorm(nnx.Module):
    """Group normalisation of each picture of (..., H, W, C) by itself (https://arxiv.org/abs/1803.08494).

    It reads its input twice: for the statistics, and to scale and shift each channel. So does its gradient.

    Args:
        groups: number of channel groups.
        channels: size of the last axis.
        epsilon: added to the variance.
        silu: whether x sigmoid(x) follows, in float32, too.
    """

    def __init__(self, groups: int, channels: int, *, epsilon: float, silu: bool = False):
        self.scale, self.bias = parameter((channels,), ONES), parameter((channels,), ZEROS)
        self.groups, self.epsilon, self.silu = groups, epsilon, silu

    def __call__(self, x: Float[Array, "*batch h w c"]) -> Float[Array, "*batch h w c"]:
        # sums are of what x differs by from its first position: a mean far from 0 costs no digits
        first = jax.lax.stop_gradient(x[..., :1, :1, :]).astype(jnp.float32)
        rest = x.astype(jnp.float32) - first
        off, square = (y.mean((-3, -2), keepdims=True) for y in (rest, jnp.square(rest)))
        mean = _of_groups(first + off, self.groups)
        inside = jnp.maximum(square - jnp.square(off), 0)  # what rounding may leave below
        variance = _of_groups(inside + jnp.square(first + off - mean), self.groups)
        scale = self.scale[...] * jax.lax.rsqrt(variance + self.epsilon)
        return _scaled(x, first, scale, self.bias[...] + (first - mean) * scale, self.silu)


def _of_groups(x: Float[Array, "*batch c"], groups: int) -> Float[Array, "*batch c"]:
    """For each channel the mean over those of its group."""
    mean = x.reshape(*x.shape[:-1], groups, -1).mean(-1)
    return jnp.repeat(mean, x.shape[-1] // groups, axis=-1)


@partial(jax.checkpoint, static_argnums=4)  # the gradient needs nothing but x, which is kept as the norm's input anyway
def _scaled(x: Array, first: Array, scale: Array, shift: Array, silu: bool) -> Array:
    y = (x.astype(jnp.float32) - first) * scale + shift
    return (jax.nn.silu(y) if silu else y).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, features: int, *, epsilon: float = 1e-5):
        self.scale, self.bias = parameter((features,), ONES), parameter((features,), ZEROS)
        self.epsilon = epsilon

    @over_rows
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        return (standardised(x, self.epsilon) * self.scale[...] + self.bias[...]).astype(x.dtype)


def standardised(x: Float[Array, "*batch c"], epsilon: float) -> Float[Array, "*batch c"]:
    """Of mean 0 and variance 1 over the last axis, float32."""
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    variance = jnp.square(y - mean).mean(-1, keepdims=True)
    return (y - mean) * jax.lax.rsqrt(variance + epsilon)


class RMSNorm(nnx.Module):
    """Division by the root of the mean square over the last axis, in float32 (https://arxiv.org/abs/1910.07467)."""

    def __init__(self, features: int, *, epsilon: float = 1e-6):
        self.scale, self.epsilon = parameter((features,), ONES), epsilon

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        return (y * self.scale[...]).astype(x.dtype)
