"""Parts of DPT: patch tokens, reassembly of tokens into feature maps, fusion of the maps, the depth head.

Architecture: "Vision Transformers for Dense Prediction", https://arxiv.org/abs/2103.13413.
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from gen1_jax.models.layers import EMBEDDING, ONES, ZEROS, Conv, Linear, parameter
from gen1_jax.models.quantized import kernel_beside
from gen1_jax.models.resampling import bicubic_matrix, bilinear_matrix

_HEAD_CHANNELS = 32


def resize_bilinear(
    x: Float[Array, "b h w c"], height: int, width: int, *, align_corners: bool
) -> Float[Array, "b i j c"]:
    """Bilinear resampling as two products with small constant matrices."""
    rows = bilinear_matrix(x.shape[1], height, align_corners=align_corners)
    return _resample(x, rows, bilinear_matrix(x.shape[2], width, align_corners=align_corners))


def resize_bicubic(
    x: Float[Array, "b h w c"], height: int, width: int, *, offset: float = 0.0
) -> Float[Array, "b i j c"]:
    """The same by cubic convolution, see `bicubic_matrix`."""
    rows = bicubic_matrix(x.shape[1], height, offset=offset)
    return _resample(x, rows, bicubic_matrix(x.shape[2], width, offset=offset))


def _resample(x: Float[Array, "b h w c"], rows: np.ndarray, columns: np.ndarray) -> Float[Array, "b i j c"]:
    rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return jnp.einsum("jw,bhwc->bhjc", columns, jnp.einsum("ih,bhwc->biwc", rows, x))


class PatchTokens(nnx.Module):
    """A class token, then a token for each patch, with learnt positions resampled to the image's grid."""

    def __init__(self, config):
        width, patch = config.hidden_size, config.patch_size
        self.side, self.config = config.image_size // patch, config
        self.projection = Conv(3, width, patch, stride=patch, padding=0)
        self.cls_token = parameter((1, 1, width), EMBEDDING)
        self.position_embeddings = parameter((1, 1 + self.side**2, width), EMBEDDING)

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        patches = self.projection(pixels)
        batch, height, width, channels = patches.shape
        positions = self.position_embeddings[...]
        grid = positions[:, 1:].reshape(1, self.side, self.side, channels)
        if (height, width) != (self.side, self.side):
            if self.config.kind == "depth_anything":
                grid = resize_bicubic(grid, height, width, offset=self.config.position_offset)
            else:
                grid = resize_bilinear(grid, height, width, align_corners=False)
        patches = rearrange(patches + grid.astype(patches.dtype), "b h w c -> b (h w) c")
        cls_token = (self.cls_token[...] + positions[:, :1]).astype(patches.dtype)
        return jnp.concatenate([jnp.broadcast_to(cls_token, (batch, 1, channels)), patches], axis=1)


class PatchUpsample(nnx.Module):
    """A transposed convolution whose stride is its kernel size: every pixel becomes its own factor x factor patch.

    `kernel` is (kh, kw, in, out).
    """

    def __init__(self, channels: int, factor: int):
        self.kernel = parameter((factor, factor, channels, channels))
        self.bias = parameter((channels,), ZEROS)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        y = jnp.einsum("bhwc,ijcd->bhiwjd", x, kernel_beside(self.kernel.get_value(), x))
        return rearrange(y, "b h i w j d -> b (h i) (w j) d") + self.bias[...].astype(x.dtype)


class Reassemble(nnx.Module):
    """Tokens of one backbone layer -> a feature map at `factor` times the patch grid's resolution.

    Each patch token reads the class token ("project" readout, which Depth Anything does without); then a 1x1
    projection and a resize. `conv` brings every map to the fusion width.
    """

    def __init__(self, config, channels: int, factor: int | float):
        width = config.hidden_size
        self.readout = Linear(2 * width, width) if config.kind == "dpt" else None
        self.projection = Conv(width, channels, 1)
        self.upsample = PatchUpsample(channels, int(factor)) if factor > 1 else None
        self.downsample = Conv(channels, channels, stride=round(1 / factor), padding=1) if factor < 1 else None
        self.conv = Conv(channels, config.fusion_hidden_size, bias=False)

    def __call__(self, tokens: Float[Array, "b n c"], grid: tuple[int, int]) -> Float[Array, "b i j d"]:
        cls_token, patches = tokens[:, :1], tokens[:, 1:]
        if self.readout is not None:
            readout = jnp.broadcast_to(cls_token, patches.shape)
            patches = self.readout(jnp.concatenate([patches, readout], axis=-1))
            patches = jax.nn.gelu(patches, approximate=False)
        x = self.projection(rearrange(patches, "b (h w) c -> b h w c", h=grid[0], w=grid[1]))
        for resize in (self.upsample, self.downsample):
            x = x if resize is None else resize(x)
        return x


class ResidualConvUnit(nnx.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int):
        self.convolution1, self.convolution2 = Conv(channels, channels), Conv(channels, channels)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return x + self.convolution2(jax.nn.relu(self.convolution1(jax.nn.relu(x))))


class Fusion(nnx.Module):
    """Adds a feature map to the coarser ones' fusion and brings it to the resolution of the next.

    Args:
        channels: the fusion width.
        coarsest: this is the first fusion, with nothing coarser to add to.
    """

    def __init__(self, channels: int, *, coarsest: bool):
        self.residual_layer1 = None if coarsest else ResidualConvUnit(channels)
        self.residual_layer2 = ResidualConvUnit(channels)
        self.projection = Conv(channels, channels, 1)

    def __call__(
        self, features: Float[Array, "b h w c"], coarser: Float[Array, "b h w c"] | None, size: tuple[int, int]
    ) -> Float[Array, "b i j c"]:
        x = features if self.residual_layer1 is None else coarser + self.residual_layer1(features)
        # Rows of the resampling sum to one, so it commutes with a 1x1 convolution: project the few pixels first.
        return resize_bilinear(self.projection(self.residual_layer2(x)), *size, align_corners=True)


class DepthHead(nnx.Module):
    """Three convolutions and an upsampling to the image's resolution; inverse depth is not negative."""

    def __init__(self, channels: int):
        self.conv1 = Conv(channels, channels // 2)
        self.conv2 = Conv(channels // 2, _HEAD_CHANNELS)
        self.conv3 = Conv(_HEAD_CHANNELS, 1, 1)
        # Start above zero: where the last relu is off everywhere, nothing would ever be learnt.
        self.conv3.bias = parameter((1,), ONES)

    def __call__(self, x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b i j"]:
        x = jax.nn.relu(self.conv2(resize_bilinear(self.conv1(x), *size, align_corners=True)))
        # float32: in bfloat16 a smooth ramp of depth would come out as 256 steps
        return jax.nn.relu(self.conv3(x.astype(jnp.float32)))[..., 0]
