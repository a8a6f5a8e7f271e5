"""Normalisations, in float32. Those of groups and of layers have gradients of their own: few passes over memory.

What automatic differentiation makes of a norm reads its input and its gradient once for each of several sums. Here the
forward pass reads x twice and writes y; the backward pass reads x and the gradient twice and writes one gradient. All
sums over positions are kept for each channel, from which those of its group and of the parameters follow.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.layers import ONES, ZEROS, over_rows, parameter


class GroupNorm(nnx.Module):
    """Group normalisation of each picture of (..., H, W, C) by itself (https://arxiv.org/abs/1803.08494).

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
        return _group_norm(x, self.scale[...], self.bias[...], self.groups, self.epsilon, self.silu)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _group_norm(x: Array, scale: Array, bias: Array, groups: int, epsilon: float, silu: bool) -> Array:
    return _group_norm_forward(x, scale, bias, groups, epsilon, silu)[0]


def _group_norm_forward(x, scale, bias, groups, epsilon, silu):
    mean, deviation = _of_groups(x, groups, epsilon)
    z = _normalised(x, mean, deviation) * scale + bias
    return _activated(z, silu).astype(x.dtype), (x, scale, bias, mean, deviation)


def _of_groups(x: Array, groups: int, epsilon: float) -> tuple[Array, Array]:
    """Of each channel the mean and 1 / deviation of its group, (..., 1, 1, C).

    From one pass: sums of what is left of x and of its square without the first position's value, so that a mean far
    from 0 costs no digits; channels are then joined as in https://doi.org/10.2307/2683386.
    """
    first = jax.lax.stop_gradient(x[..., :1, :1, :]).astype(jnp.float32)
    rest = x.astype(jnp.float32) - first
    off, square = rest.mean((-3, -2), keepdims=True), jnp.square(rest).mean((-3, -2), keepdims=True)
    mean = _group_mean(first + off, groups)
    variance = _group_mean(square - jnp.square(off) + jnp.square(first + off - mean), groups)
    return mean, jax.lax.rsqrt(variance + epsilon)


def _group_mean(x: Float[Array, "*batch c"], groups: int) -> Float[Array, "*batch c"]:
    """For each channel the mean over those of its group."""
    mean = x.reshape(*x.shape[:-1], groups, -1).mean(-1, keepdims=True)
    return jnp.broadcast_to(mean, (*mean.shape[:-1], x.shape[-1] // groups)).reshape(x.shape)


def _normalised(x: Array, mean: Array, deviation: Array) -> Array:
    return (x.astype(jnp.float32) - mean) * deviation


def _activated(z: Array, silu: bool) -> Array:
    return jax.nn.silu(z) if silu else z


def _group_norm_backward(groups, epsilon, silu, kept, gradient):
    x, scale, bias, mean, deviation = kept

    def inside(x, gradient):
        """x normalised, and the gradient of what SiLU is applied to."""
        y, gradient = _normalised(x, mean, deviation), gradient.astype(jnp.float32)
        if silu:
            z = y * scale + bias
            gate = jax.nn.sigmoid(z)
            gradient = gradient * gate * (1 + z * (1 - gate))
        return y, gradient

    y, inner = inside(x, gradient)
    of_bias, of_scale = (s.sum((-3, -2), keepdims=True) for s in (inner, inner * y))
    positions = math.prod(x.shape[-3:-1])
    along_mean, along_y = (_group_mean(s * scale, groups) / positions for s in (of_bias, of_scale))
    y, inner = inside(*jax.lax.optimization_barrier((x, gradient)))  # again, rather than keep both in float32
    of_x = (deviation * (inner * scale - along_mean - y * along_y)).astype(x.dtype)
    every = tuple(range(x.ndim - 1))
    return of_x, of_scale.sum(every).astype(scale.dtype), of_bias.sum(every).astype(bias.dtype)


_group_norm.defvjp(_group_norm_forward, _group_norm_backward)


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
