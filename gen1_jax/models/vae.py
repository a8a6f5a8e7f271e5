"""The autoencoder between pictures and latents: Stable Diffusion's KL autoencoder, each frame by itself.

images (… H W 3) ─► encoder ─► quant_conv ─► posterior (… H/8 W/8 4) ─► sample or mean
images (… H W 3) ◄─ decoder ◄─ post_quant_conv ◄───────────────────────────────┘

`encode` and `decode` speak diffusers' unscaled latents; `images_to_latents` and `latents_to_images` speak the U-Net's,
which are `scaling_factor` times those, so that they have about unit variance. Architecture: arXiv 2112.10752.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.errors import UserError
from gen1_jax.models.attention import Attention
from gen1_jax.models.layers import Conv, upsample_nearest
from gen1_jax.models.norms import GroupNorm

Pictures = Float[Array, "n h w c"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Shape of an `AutoencoderKL`. The defaults are Stable Diffusion 1.x's.

    Attributes:
        in_channels: channels of a picture.
        latent_channels: channels of a latent.
        block_out_channels: width of each level, finest first; each level but the last halves H and W.
        layers_per_block: residual blocks of a level of the encoder (one more in the decoder).
        norm_num_groups: groups of every group normalisation.
        scaling_factor: what the U-Net's latents are multiplied by.
    """

    in_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215

    def __post_init__(self):
        widths = self.block_out_channels
        if not widths or any(width < 1 or width % self.norm_num_groups for width in widths):
            raise UserError(
                f"block_out_channels is {widths}, but needs one or more multiples of norm_num_groups, "
                f"{self.norm_num_groups}"
            )

    @property
    def downscale(self) -> int:
        """Pixels of a picture along a side for each of a latent."""
        return 2 ** (len(self.block_out_channels) - 1)


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z | x), in diffusers' unscaled latents.

    Attributes:
        mean: float32.
        log_variance: float32, within [-30, 20].
    """

    mean: Float[Array, "*batch h w c"]
    log_variance: Float[Array, "*batch h w c"]

    def sample(self, key: Key[Array, ""]) -> Float[Array, "*batch h w c"]:
        """A draw of z, a function of `key`."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
        return self.mean + jnp.exp(0.5 * self.log_variance) * noise


class AutoencoderKL(nnx.Module):
    """Encodes and decodes pictures; any leading axes are batch, so a video is frames.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32. For float16 it is
            float32 throughout: nothing bounds a decoder's activations, and those of published ones pass 65504, its
            largest number (https://huggingface.co/madebyollin/sdxl-vae-fp16-fix).
        frames_per_chunk: pictures computed at once; more go through in equal chunks, one after the other, so that
            memory for activations does not grow with the number of frames.
    """

    def __init__(self, config: VAEConfig, *, dtype: DTypeLike = jnp.float32, frames_per_chunk: int = 8):
        if frames_per_chunk < 1:
            raise UserError(f"frames_per_chunk is {frames_per_chunk}, but a chunk needs at least one picture")
        self.config, self.frames_per_chunk = config, frames_per_chunk
        self.dtype = jnp.dtype(jnp.float32 if dtype == jnp.float16 else dtype)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = Conv(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = Conv(config.latent_channels, config.latent_channels, 1)

    def encode(self, images: Float[Array, "*batch H W C"]) -> Posterior:
        """The posterior of each picture, unscaled as diffusers' `encode(x).latent_dist`.

        Args:
            images: in [-1, 1]. H and W that are no multiples of `config.downscale` lose the rest, as in diffusers.
        """
        moments = self._in_chunks(lambda x: self.quant_conv(self.encoder(x)), images)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, -30.0, 20.0))

    def decode(self, latents: Float[Array, "*batch h w c"]) -> Float[Array, "*batch H W C"]:
        """The pictures of unscaled latents, about [-1, 1] but not clipped, as diffusers' `decode(z).sample`."""
        return self._in_chunks(lambda z: self.decoder(self.post_quant_conv(z)), latents)

    def images_to_latents(self, images: Float[Array, "*batch H W C"]) -> Float[Array, "*batch h w c"]:
        """The U-Net's latents of pictures in [-1, 1]: the posterior's mean times `config.scaling_factor`."""
        return self.encode(images).mean * self.config.scaling_factor

    def latents_to_images(self, latents: Float[Array, "*batch h w c"]) -> Float[Array, "*batch H W C"]:
        """The pictures, not clipped, of the U-Net's latents. The (lossy) inverse of `images_to_latents`."""
        return self.decode(latents / self.config.scaling_factor)

    def _in_chunks(self, function: Callable[[Array], Array], pictures: Array) -> Array:
        *batch, height, width, channels = pictures.shape
        flat = pictures.reshape(-1, height, width, channels).astype(self.dtype)
        count = flat.shape[0]
        chunks = -(-count // self.frames_per_chunk)
        if chunks <= 1:
            out = function(flat)
        else:
            each = -(-count // chunks)
            flat = jnp.pad(flat, ((0, chunks * each - count), (0, 0), (0, 0), (0, 0)))
            # a chunk takes every chunks-th picture: where the batch is sharded, each device has its share of every one
            chunked = jnp.moveaxis(flat.reshape(each, chunks, height, width, channels), 1, 0)
            out = jnp.moveaxis(jax.lax.map(function, chunked), 0, 1)
            out = out.reshape(chunks * each, *out.shape[2:])[:count]
        return out.reshape(*batch, *out.shape[1:]).astype(jnp.float32)


class Encoder(nnx.Module):
    """Pictures to moments: mean and log-variance before quant_conv."""

    def __init__(self, config: VAEConfig):
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = Conv(config.in_channels, widths[0])
        self.down_blocks = nnx.List(
            [
                Level(before, width, config.layers_per_block, groups, downsample=level < len(widths) - 1)
                for level, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
            ]
        )
        self.mid_block = MidBlock(widths[-1], groups)
        self.conv_norm_out = GroupNorm(groups, widths[-1], epsilon=1e-6, silu=True)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels)

    def __call__(self, x: Pictures) -> Float[Array, "n i j m"]:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(self.conv_norm_out(x))


class Decoder(nnx.Module):
    """Latents, after post_quant_conv, to pictures."""

    def __init__(self, config: VAEConfig):
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = Conv(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups)
        self.up_blocks = nnx.List(
            [
                Level(before, width, config.layers_per_block + 1, groups, upsample=level < len(widths) - 1)
                for level, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
            ]
        )
        self.conv_norm_out = GroupNorm(groups, widths[-1], epsilon=1e-6, silu=True)
        self.conv_out = Conv(widths[-1], config.in_channels)

    def __call__(self, x: Pictures) -> Float[Array, "n i j m"]:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(x))


class ResnetBlock(nnx.Module):
    """Two convolutions, each after a norm, as a residual."""

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        self.norm1 = GroupNorm(groups, in_channels, epsilon=1e-6, silu=True)
        self.conv1 = Conv(in_channels, out_channels)
        self.norm2 = GroupNorm(groups, out_channels, epsilon=1e-6, silu=True)
        self.conv2 = Conv(out_channels, out_channels)
        self.conv_shortcut = None if in_channels == out_channels else Conv(in_channels, out_channels, 1)

    def __call__(self, x: Pictures) -> Float[Array, "n h w d"]:
        y = self.conv1(self.norm1(x))
        y = self.conv2(self.norm2(y))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Level(nnx.Module):
    """Residual blocks of one resolution, then the way to the next, coarser or finer."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        groups: int,
        *,
        downsample: bool = False,
        upsample: bool = False,
    ):
        self.resnets = nnx.List([ResnetBlock(channels if i else in_channels, channels, groups) for i in range(layers)])
        # padded below and to the right only, as Stable Diffusion was trained
        self.downsample = Conv(channels, channels, stride=2, padding=((0, 1), (0, 1))) if downsample else None
        self.upsample = Conv(channels, channels) if upsample else None

    def __call__(self, x: Pictures) -> Float[Array, "n i j d"]:
        for resnet in self.resnets:
            x = resnet(x)
        if self.downsample is not None:
            x = self.downsample(x)
        return x if self.upsample is None else self.upsample(upsample_nearest(x))


class MidBlock(nnx.Module):
    """The coarsest level: residual block, attention of one head among all positions, residual block."""

    def __init__(self, channels: int, groups: int):
        self.resnets = nnx.List([ResnetBlock(channels, channels, groups) for _ in range(2)])
        self.norm = GroupNorm(groups, channels, epsilon=1e-6)
        self.attention = Attention(channels, 1, bias=True)

    def __call__(self, x: Pictures) -> Pictures:
        x = self.resnets[0](x)
        count, height, width, channels = x.shape
        y = self.attention(self.norm(x).reshape(count, height * width, channels))
        return self.resnets[1](x + y.reshape(x.shape))
