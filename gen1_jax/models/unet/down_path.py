"""The way down and the middle, which the U-Net and the networks that control it have alike."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.models.layers import Conv, TimestepMLP
from gen1_jax.models.unet.blocks import BlockInputs, DownBlock, MidBlock
from gen1_jax.models.unet.config import UNetConfig

Skips = list[Array]
"""Activations (b t h_i w_i c_i) of every level, finest first."""


class DownPath(nnx.Module):
    """First convolution, embedding of the timestep, levels on the way down, and the middle.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation.
        remat: recompute each block's activations in the backward pass instead of keeping them.

    Attributes:
        skip_widths: channels of each skip connection, finest first.
    """

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike = jnp.float32, remat: bool = False):
        self.config, self.dtype, self.remat = config, dtype, remat
        widths = config.block_out_channels
        self.conv_in = Conv(config.in_channels, widths[0])
        self.time_embedding = TimestepMLP(widths[0], 4 * widths[0])

        down, skips, previous = [], [widths[0]], widths[0]
        for level, width in enumerate(widths):
            is_last = level == len(widths) - 1
            down.append(DownBlock(config, previous, width, config.attention_levels[level], downsample=not is_last))
            skips += [width] * (config.layers_per_block + (not is_last))
            previous = width
        self.down_blocks, self.skip_widths = nnx.List(down), tuple(skips)
        self.mid_block = MidBlock(config, widths[-1])

    def descend(self, x: Float[Array, "b t h w d"], given: BlockInputs) -> tuple[Float[Array, "b t i j e"], Skips]:
        """From what `conv_in` gives to the coarsest level, and the skip connections on the way."""
        skips = [x]
        for block in self.down_blocks:
            x, outputs = self._run(block, x, given)
            skips += outputs
        return x, skips

    def finest(self, x: Float[Array, "b t h w d"], given: BlockInputs) -> Skips:
        """From what `conv_in` gives to the skip connections of the finest level alone, which are the first ones."""
        return [x, *self.down_blocks[0].layers(x, given)]

    def _run(self, block: nnx.Module, *args: Any) -> Any:
        return (jax.checkpoint(lambda *inputs: block(*inputs)) if self.remat else block)(*args)
