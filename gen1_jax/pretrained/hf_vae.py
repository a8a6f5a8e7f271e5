"""Stable Diffusion's autoencoder in diffusers' layout (AutoencoderKL)."""

from collections.abc import Mapping
from typing import Any

from gen1_jax.models.vae import VAEConfig
from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import Signs

VAE = Layout(
    renames=(
        (r"\.downsample\.", ".downsamplers.0.conv."),
        (r"\.upsample\.", ".upsamplers.0.conv."),
        (r"\.mid_block\.norm\.", ".mid_block.attentions.0.group_norm."),
        (r"\.mid_block\.attention\.to_out\.", ".mid_block.attentions.0.to_out.0."),
        (r"\.mid_block\.attention\.", ".mid_block.attentions.0."),
    ),
    aliases=(  # attention as older versions of diffusers spelt it
        (r"\.query\.", ".to_q."),
        (r"\.key\.", ".to_k."),
        (r"\.value\.", ".to_v."),
        (r"\.proj_attn\.", ".to_out.0."),
    ),
)


_SOURCE = "VAE config"
# What diffusers assumes of keys that a file leaves out: not Stable Diffusion.
_DEFAULTS = VAEConfig(block_out_channels=(64,), layers_per_block=1)


def vae_config(config: Mapping[str, Any]) -> VAEConfig:
    """The `VAEConfig` of an AutoencoderKL's config.json; absent keys have diffusers' defaults.

    Raises:
        ConfigError: a variant that we do not implement, or a value of the wrong type, by key.
    """
    values = typed_fields(_DEFAULTS, config, _SOURCE)
    try:
        ours = VAEConfig(**values)
    except ValueError as error:
        raise ConfigError(f"{_SOURCE}: {error}") from None
    levels = len(ours.block_out_channels)
    require(
        config,
        _SOURCE,
        _class_name="AutoencoderKL",
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        out_channels=ours.in_channels,
        act_fn="silu",
        shift_factor=None,
        latents_mean=None,
        latents_std=None,
        use_quant_conv=True,
        use_post_quant_conv=True,
        mid_block_add_attention=True,
    )
    return ours


def vae_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What an AutoencoderKL's config.json would say of tensors in diffusers' names.

    Groups and the scaling factor do not show: they are Stable Diffusion 1.x's.
    """
    signs = Signs(tensors)
    levels = range((signs.largest(r"^encoder\.down_blocks\.(\d+)\.") or 0) + 1)
    conv1 = r"\.resnets\.0\.conv1\.weight$"
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": signs.size(r"^encoder\.conv_in\.weight$", 1),
        "out_channels": signs.size(r"^decoder\.conv_out\.weight$", 0),
        "latent_channels": signs.size(r"^decoder\.conv_in\.weight$", 1),
        "block_out_channels": [signs.size(rf"^encoder\.down_blocks\.{i}{conv1}", 0) for i in levels],
        "down_block_types": ["DownEncoderBlock2D"] * len(levels),
        "up_block_types": ["UpDecoderBlock2D"] * len(levels),
        "layers_per_block": (signs.largest(r"^encoder\.down_blocks\.0\.resnets\.(\d+)\.") or 0) + 1,
    }


def their_vae_config(config: VAEConfig, sample_size: int) -> dict[str, Any]:
    """The config.json of an AutoencoderKL, the inverse of `vae_config`.

    Args:
        config: ours.
        sample_size: the longer side of pictures of training, beyond which diffusers may decode in tiles.
    """
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
        "scaling_factor": config.scaling_factor,
        "act_fn": "silu",
    }
