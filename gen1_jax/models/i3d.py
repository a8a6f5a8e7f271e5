"""I3D: clips to the logits of 400 actions, whose distribution FVD compares ("Quo Vadis", arXiv 1705.07750).

clip (b t 224 224 3) ─► 7x7x7 / 2 ─► pool ─► 1x1x1, 3x3x3 ─► pool ─► 9 Inception blocks with pools ─► mean ─► (b 400)

For evaluation alone: batch normalisations are folded into kernels and biases.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.errors import UserError
from gen1_jax.models.layers import ZEROS, parameter

SIZE = 224
"""Height and width of what it takes."""

FEWEST_FRAMES = 9
"""Of a clip: time is halved three times, and the last pool takes two."""

_BLOCKS = {
    "3b": (64, 96, 128, 16, 32, 32),
    "3c": (128, 128, 192, 32, 96, 64),
    "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64),
    "4d": (128, 128, 256, 24, 64, 64),
    "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128),
    "5b": (256, 160, 320, 32, 128, 128),
    "5c": (384, 192, 384, 48, 128, 128),
}
"""Widths by the authors' names: of the 1x1x1 branch; of two branches before and after a 3x3x3; of the pooled one."""

_POOLS = {"4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}
"""Window and strides of what stands before a block."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class I3DConfig:
    """The one network that there are weights of.

    Attributes:
        classes: of Kinetics.
    """

    classes: int = 400


class Unit(nnx.Module):
    """A convolution over time and space, padded as TensorFlow's "SAME", and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, size: int = 1, stride: int = 1, *, relu: bool = True):
        self.kernel = parameter((size, size, size, in_channels, out_channels))
        self.bias = parameter((out_channels,), ZEROS)
        self.stride, self.relu = stride, relu

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b s i j d"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            (self.stride,) * 3,
            "SAME",
            dimension_numbers=("NTHWC", "THWIO", "NTHWC"),
        )
        y = y + self.bias[...].astype(x.dtype)
        return jax.nn.relu(y) if self.relu else y


class Inception(nnx.Module):
    """Four branches side by side."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]):
        alone, before, middle, thin, narrow, pooled = widths
        self.alone = Unit(in_channels, alone)
        self.reduced = nnx.List([Unit(in_channels, before), Unit(in_channels, thin)])
        self.spread = nnx.List([Unit(before, middle, 3), Unit(thin, narrow, 3)])
        self.pooled = Unit(in_channels, pooled)

    def __call__(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w d"]:
        middle = [wide(thin(x)) for thin, wide in zip(self.reduced, self.spread, strict=True)]
        return jnp.concatenate([self.alone(x), *middle, self.pooled(_pool(x, (3, 3, 3), (1, 1, 1)))], axis=-1)


class I3D(nnx.Module):
    """What happens in a clip, as logits.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own.
    """

    def __init__(self, config: I3DConfig = I3DConfig(), *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.stem = nnx.List([Unit(3, 64, 7, 2), Unit(64, 64), Unit(64, 192, 3)])
        self.blocks, channels = nnx.List([]), 192
        for alone, before, middle, thin, narrow, pooled in _BLOCKS.values():
            self.blocks.append(Inception(channels, (alone, before, middle, thin, narrow, pooled)))
            channels = alone + middle + narrow + pooled
        self.logits = Unit(channels, config.classes, relu=False)

    def __call__(self, clips: Float[Array, "b t h w 3"]) -> Float[Array, "b k"]:
        """Logits, float32.

        Args:
            clips: RGB in [-1, 1], of `SIZE` and of at least `FEWEST_FRAMES`; those of 16 are what FVD is told of.

        Raises:
            UserError: another size, or too few frames.
        """
        if clips.shape[2:4] != (SIZE, SIZE) or clips.shape[1] < FEWEST_FRAMES:
            raise UserError(
                f"clips of {clips.shape[1:4]}, but I3D takes {FEWEST_FRAMES} frames or more of {SIZE}x{SIZE}"
            )
        first, second, third = self.stem
        x = _pool(first(clips.astype(self.dtype)), (1, 3, 3), (1, 2, 2))
        x = _pool(third(second(x)), (1, 3, 3), (1, 2, 2))
        for name, block in zip(_BLOCKS, self.blocks, strict=True):
            x = block(_pool(x, *_POOLS[name]) if name in _POOLS else x)
        side = x.shape[2]
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, side, side, 1), (1, 1, 1, 1, 1), "VALID") / (2 * side**2)
        return self.logits(x)[:, :, 0, 0].mean(1).astype(jnp.float32)


def _pool(x: Float[Array, "b t h w c"], window: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    """The largest of each window, padded as TensorFlow's "SAME"."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), "SAME")
