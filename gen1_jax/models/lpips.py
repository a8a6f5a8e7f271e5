"""LPIPS: how different two pictures look, by the features of AlexNet (arXiv 1801.03924).

both pictures ─► five layers ─► each position at length 1 ─► squared differences ─► weights of channels ─► mean ─► sum
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.errors import UserError
from gen1_jax.models.layers import ZEROS, Conv, parameter

SMALLEST = 32
"""Height and width of the smallest picture of which every layer has a position left."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the pictures of its training, in [-1, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LPIPSConfig:
    """The variant "alex", version 0.1, which its authors advise to compare by.

    Attributes:
        widths: channels of AlexNet's convolutions.
    """

    widths: tuple[int, ...] = (64, 192, 384, 256, 256)


class LPIPS(nnx.Module):
    """Distances of pictures.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own.
    """

    def __init__(self, config: LPIPSConfig = LPIPSConfig(), *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        first, *rest = config.widths
        convs = [Conv(3, first, 11, stride=4, padding=2)]
        for before, width, size in zip(config.widths, rest, (5, 3, 3, 3), strict=False):
            convs.append(Conv(before, width, size))
        self.convs = nnx.List(convs)
        self.weights = nnx.List([Weights(width) for width in config.widths])

    def __call__(self, ours: Float[Array, "b h w 3"], theirs: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
        """The distance of each pair, from 0, float32.

        Args:
            ours: RGB in [-1, 1].
            theirs: what they are compared with.

        Raises:
            UserError: pictures smaller than `SMALLEST`.
        """
        if min(ours.shape[1:3]) < SMALLEST:
            raise UserError(f"pictures of {ours.shape[2]}x{ours.shape[1]}: LPIPS needs {SMALLEST} pixels at least")
        total = jnp.zeros(len(ours), jnp.float32)
        for x, y, weights in zip(self._features(ours), self._features(theirs), self.weights, strict=True):
            difference = jnp.square(_at_length_one(x) - _at_length_one(y))
            total = total + (difference * weights.scale[...]).sum(-1).mean((1, 2)).astype(jnp.float32)
        return total

    def _features(self, x: Float[Array, "b h w 3"]) -> list[Float[Array, "b i j c"]]:
        x = ((x.astype(jnp.float32) - jnp.array(_SHIFT)) / jnp.array(_SCALE)).astype(self.dtype)
        features = []
        for index, conv in enumerate(self.convs):
            x = jax.nn.relu(conv(_pooled(x) if index in (1, 2) else x))
            features.append(x)
        return features


class Weights(nnx.Module):
    """How much each channel counts."""

    def __init__(self, width: int):
        self.scale = parameter((width,), ZEROS)


def _pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")


def _at_length_one(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return x / (jnp.sqrt(jnp.square(x).sum(-1, keepdims=True)) + 1e-10)
