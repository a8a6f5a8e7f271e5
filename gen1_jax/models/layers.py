"""Layers shared by every network: abstract parameters, channels last, compute dtype of the activations.

A layer is built without arrays: each parameter is a shape with an initialiser beside it, filled later from a
seed or a file (`module.initialise`, `pretrained`). Parameters stay in the dtype they were given (float32 in
training); a layer computes in the dtype of its input, norms and softmax in float32.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Real

from gen1_jax.models.partition import by_feature, fold, unfold
from gen1_jax.models.quantized import kernel_beside

Initialiser = Callable[[np.random.Generator, tuple[int, ...], int], np.ndarray]
"""Called with the shape of some rows of a parameter, and the number of inputs that each output of it sums."""


def zeros(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """All zeros: biases, and the last projection of a residual that starts as the identity."""
    return np.zeros(shape, np.float32)


def ones(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """All ones: scales of norms."""
    return np.ones(shape, np.float32)


def fan_in_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """Uniform within ±1/sqrt(fan_in), as torch layers start."""
    return rng.uniform(-1, 1, shape).astype(np.float32) / math.sqrt(fan_in)


def small_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    """Normal with standard deviation 0.02: tables of tokens and positions."""
    return rng.normal(0, 0.02, shape).astype(np.float32)


ZEROS, ONES, KERNEL, EMBEDDING = zeros, ones, fan_in_uniform, small_normal


def parameter(shape: tuple[int, ...], init: Initialiser = KERNEL) -> nnx.Param:
    """A float32 parameter of `shape` that holds no array yet; `init` can draw it."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32), init=init)


def over_rows(layer: Callable) -> Callable:
    """A layer over the last axis, applied to (b, s, c) as (b s, c).

    With two axes to sum over, XLA gives the gradients of sequences layouts of their own, and transposes into them.
    """

    @functools.wraps(layer)
    def apply(self, x):
        if x.ndim != 3:
            return layer(self, x)
        y = layer(self, x.reshape(-1, x.shape[-1]))
        return y.reshape(*x.shape[:2], y.shape[-1])

    return apply


class Linear(nnx.Module):
    """y = x W + b over the last axis. `kernel` is (in, out)."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, init=KERNEL):
        self.kernel = parameter((in_features, out_features), init)
        self.bias = parameter((out_features,), ZEROS) if bias else None

    @over_rows
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch d"]:
        y = x @ kernel_beside(self.kernel.get_value(), x)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)

    def halves(self, x: Float[Array, "*batch c"]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """y in two without the bias, (*batch, d / 2) each, and the bias in two: y is far larger than weights to cut."""
        divide = lambda p: by_feature(p.astype(x.dtype).reshape(*p.shape[:-1], 2, -1))
        kernel, bias = divide(kernel_beside(self.kernel.get_value(), x)), divide(self.bias[...])
        return (x @ kernel[:, 0], x @ kernel[:, 1]), (bias[0], bias[1])


class Conv(nnx.Module):
    """2D convolution over (..., H, W, C); leading axes are batch. `kernel` is (kh, kw, in, out)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        *,
        stride: int = 1,
        padding: int | tuple[tuple[int, int], tuple[int, int]] | None = None,
        bias: bool = True,
        init=KERNEL,
    ):
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.kernel = parameter((kh, kw, in_channels, out_channels), init)
        self.bias = parameter((out_channels,), ZEROS) if bias else None
        self.stride = stride
        if padding is None:  # keeps H and W at stride 1
            padding = ((kh // 2, kh // 2), (kw // 2, kw // 2))
        self.padding = ((padding, padding),) * 2 if isinstance(padding, int) else padding

    def __call__(self, x: Float[Array, "*batch h w c"], rows: np.ndarray | None = None) -> Float[Array, "*batch i j d"]:
        """y = x * W + b; `rows` are the input channels that x has, where it has some of them."""
        is_video, kernel = x.ndim == 5, kernel_beside(self.kernel.get_value(), x)
        y = jax.lax.conv_general_dilated(
            fold(x) if is_video else x.reshape(-1, *x.shape[-3:]),
            kernel if rows is None else kernel[:, :, rows],
            (self.stride, self.stride),
            self.padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = unfold(y, len(x)) if is_video else y.reshape(*x.shape[:-3], *y.shape[1:])
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Embedding(nnx.Module):
    """A table of `features`-wide rows, looked up by index."""

    def __init__(self, entries: int, features: int):
        self.embedding = parameter((entries, features), EMBEDDING)

    def __call__(self, index: Int[Array, "*batch"]) -> Float[Array, "*batch d"]:
        return self.embedding[...][index]


class FeedForward(nnx.Module):
    """The transformer block's GEGLU feed-forward: (x W1) * gelu(x W2) -> W3.

    The exact (erf) gelu, as diffusers. GLU variants: https://arxiv.org/abs/2002.05202.

    Args:
        features: width of the input and output.
        hidden_features: width inside; four times `features` if None.
        out_init: initialiser of the last projection.
    """

    def __init__(self, features: int, hidden_features: int | None = None, *, out_init=KERNEL):
        hidden = hidden_features or 4 * features
        self.proj_in = Linear(features, 2 * hidden)
        self.proj_out = Linear(hidden, features, init=out_init)

    @over_rows
    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        return self.proj_out(_geglu(*self.proj_in.halves(x)))


@jax.custom_vjp
def _geglu(products: tuple[Array, Array], biases: tuple[Array, Array]) -> Array:
    value, gate = (product + bias for product, bias in zip(products, biases, strict=True))
    return value * jax.nn.gelu(gate, approximate=False)


def _geglu_slopes(kept: tuple[tuple[Array, Array], tuple[Array, Array]], slope: Array):
    """Both in one pass that computes again what would be larger to keep; biases' are sums of what it has written."""
    products, biases = kept
    in_float32 = lambda x: x.astype(jnp.float32)
    value, gate = (in_float32(product) + in_float32(bias) for product, bias in zip(products, biases, strict=True))
    below = 0.5 * (1 + jax.lax.erf(gate * math.sqrt(0.5)))  # of the normal distribution: gelu(x) = x below(x)
    density = jnp.exp(-0.5 * jnp.square(gate)) / math.sqrt(2 * math.pi)
    of_gate = in_float32(slope) * value * (below + gate * density)
    slopes = (in_float32(slope) * gate * below).astype(slope.dtype), of_gate.astype(slope.dtype)
    slopes = jax.lax.optimization_barrier(slopes)  # else both are computed once more for each sum
    axes = tuple(range(slope.ndim - 1))
    return slopes, tuple(in_float32(x).sum(axes).astype(x.dtype) for x in slopes)


_geglu.defvjp(lambda products, biases: (_geglu(products, biases), (products, biases)), _geglu_slopes)


def timestep_embedding(
    timesteps: Real[Array, "*batch"], features: int, max_period: float = 10_000.0
) -> Float[Array, "*batch d"]:
    """Sinusoidal embedding of steps or other numbers, float32: cosines then sines, periods from 2π to 2π `max_period`.

    Args:
        timesteps: from 0.
        features: width of the embedding.
        max_period: about as many steps as there are; 10,000 serves the 1000 steps of the diffusion.

    Source: https://arxiv.org/abs/2006.11239 with the order of halves that Stable Diffusion uses
    (diffusers: flip_sin_to_cos, freq_shift 0).
    """
    half = features // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = timesteps[..., None].astype(jnp.float32) * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepMLP(nnx.Module):
    """Sinusoidal embedding of the diffusion step through two linear layers, float32: every block adds a product of it.

    Guidance multiplies the differences between evaluations, and with them what rounding here would add to each.
    """

    def __init__(self, features: int, out_features: int):
        self.linear_1 = Linear(features, out_features)
        self.linear_2 = Linear(out_features, out_features)

    def __call__(self, timesteps: Int[Array, " b"], more: Float[Array, "b d"] | None = None) -> Float[Array, "b e"]:
        embedding = timestep_embedding(timesteps, self.linear_1.kernel.shape[0])
        embedding = embedding if more is None else embedding + more
        return self.linear_2(jax.nn.silu(self.linear_1(embedding)))


def upsample_nearest(
    x: Float[Array, "*batch h w c"], height: int | None = None, width: int | None = None
) -> Float[Array, "*batch i j c"]:
    """Each pixel becomes 2x2, cropped to `height` and `width`: an odd size was rounded up when it was halved."""
    return jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2)[..., :height, :width, :]
