"""HED: soft edges of single pictures, from the features of a VGG network at five scales.

    pixels ─► block 1 ─► half ─► block 2 ─► half ─► ... ─► block 5
                 ▼                  ▼                         ▼       1x1 to one channel, resized to the picture
               map 1              map 2         ...         map 5 ─► their mean ─► sigmoid ─► edges in [0, 1]

"Holistically-Nested Edge Detection", https://arxiv.org/abs/1504.06375, in the variant that the soft edges of ControlNet
1.1 come from (`ControlNetHED`): the maps are averaged instead of fused by a convolution.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.errors import UserError
from gen1_jax.models.chunks import in_chunks
from gen1_jax.models.depth_layers import resize_bilinear
from gen1_jax.models.layers import ZEROS, Conv, parameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class HEDConfig:
    """Shape of a `HED`. The defaults are ControlNetHED's.

    Attributes:
        block_out_channels: width of each block, finest first; each but the first halves H and W.
        layers_per_block: 3x3 convolutions of each block.
    """

    block_out_channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    layers_per_block: tuple[int, ...] = (2, 2, 3, 3, 3)

    def __post_init__(self):
        if not self.block_out_channels or len(self.block_out_channels) != len(self.layers_per_block):
            raise UserError("layers_per_block needs one entry for each of block_out_channels")

    @property
    def smallest(self) -> int:
        """Height and width of the smallest picture: one pixel is left of it in the last block."""
        return 2 ** (len(self.block_out_channels) - 1)


class Block(nnx.Module):
    """3x3 convolutions of one scale, each with a ReLU, and the projection of what they give to a map of edges."""

    def __init__(self, in_channels: int, channels: int, layers: int):
        self.convs = nnx.List([Conv(channels if i else in_channels, channels) for i in range(layers)])
        self.projection = Conv(channels, 1, 1)

    def __call__(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b h w d"], Float[Array, "b h w 1"]]:
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return x, self.projection(x)


class HED(nnx.Module):
    """How likely each pixel lies on an edge.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, the mean of the maps and the sigmoid use float32.
    """

    def __init__(self, config: HEDConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.norm = parameter((3,), ZEROS)  # the mean colour, 0 ... 255
        widths = zip((3, *config.block_out_channels), config.block_out_channels, config.layers_per_block, strict=False)
        self.blocks = nnx.List([Block(*shape) for shape in widths])

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b h w"]:
        """Edges of pictures, in [0, 1], float32.

        Args:
            pixels: RGB, 0 ... 255.

        Raises:
            ValueError: pictures smaller than `config.smallest`.
        """
        _, height, width, _ = pixels.shape
        if min(height, width) < self.config.smallest:
            raise UserError(f"pictures of {width}x{height}: soft edges need {self.config.smallest} pixels at least")
        x = (pixels.astype(jnp.float32) - self.norm[...]).astype(self.dtype)
        total = jnp.zeros(pixels.shape[:-1], jnp.float32)
        for index, block in enumerate(self.blocks):
            x, edges = block(_halve(x) if index else x)
            edges = resize_bilinear(edges.astype(jnp.float32), height, width, align_corners=False)
            total = total + edges[..., 0]
        return jax.nn.sigmoid(total / len(self.blocks))

    def estimate(self, images: Float[Array, "b h w 3"], *, frames_per_chunk: int = 4) -> Float[Array, "b h w"]:
        """Edges of pictures such as the frames of a video, in [0, 1], float32.

        Args:
            images: RGB in [-1, 1].
            frames_per_chunk: pictures evaluated together.

        Raises:
            ValueError: frames_per_chunk is less than 1, or the pictures are too small.
        """
        return in_chunks(lambda x: self((x + 1) * 127.5), images, frames_per_chunk)


def _halve(x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
    """The largest of each 2x2; an odd last row or column is left out."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
