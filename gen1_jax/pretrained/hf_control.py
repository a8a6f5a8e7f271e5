"""ControlNets in diffusers' layout (ControlNetModel): what structure adds to a U-Net's skip connections."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gen1_jax.models.unet import ControlConfig, UNetConfig
from gen1_jax.pretrained.hf_config import ConfigError, require
from gen1_jax.pretrained.hf_unet import ATTENTION_TYPES, UNET, unet_shape
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import Signs

_SOURCE = "ControlNet config"


def control_paths(kind: str) -> str:
    """An expression of our parameters of the control of a kind."""
    return rf"^controls\.{kind}\."


def control_layout(kind: str) -> Layout:
    """Names of the ControlNet of a kind, which is a part of the U-Net's parameters."""
    return Layout(
        renames=(
            (control_paths(kind), ""),
            (r"^hint\.", "controlnet_cond_embedding."),
            (r"^down_zero\.", "controlnet_down_blocks."),
            (r"^mid_zero\.", "controlnet_mid_block."),
            *UNET.renames,
        ),
        pointwise=UNET.pointwise,
    )


CONTROL_FROM_ZERO = (r"\.(down_zero\.\d+|mid_zero)\.kernel$", r"\.hint\.conv_out\.kernel$")


def with_control(config: Mapping[str, Any], *, kind: str, base: UNetConfig) -> UNetConfig:
    """A U-Net's configuration with a ControlNet.

    Args:
        config: the ControlNetModel's config.json, or `control_shape` of a file without one.
        kind: of structure, which a person says, for the files do not.
        base: of the U-Net that it controls.

    Raises:
        ConfigError: a variant that we do not implement, or a ControlNet for another U-Net, by key.
    """
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)
    hint = config.get("conditioning_embedding_out_channels", [16, 32, 96, 256])
    if not isinstance(hint, list | tuple) or not hint or not all(type(width) is int and width > 0 for width in hint):
        raise ConfigError(f"{_SOURCE}: conditioning_embedding_out_channels is {hint!r}, not a list of widths")
    require(
        {**config, "attention_head_dim": heads},
        _SOURCE,
        _class_name="ControlNetModel",
        in_channels=base.latent_channels,
        conditioning_channels=3,
        block_out_channels=base.block_out_channels,
        down_block_types=tuple(ATTENTION_TYPES[attends] for attends in base.attention_levels),
        mid_block_type="UNetMidBlock2DCrossAttn",
        layers_per_block=base.layers_per_block,
        attention_head_dim=base.num_attention_heads,
        cross_attention_dim=base.cross_attention_dim,
        norm_num_groups=base.norm_num_groups,
        norm_eps=1e-5,
        act_fn="silu",
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
        mid_block_scale_factor=1,
        only_cross_attention=False,
        transformer_layers_per_block=1,
        encoder_hid_dim=None,
        encoder_hid_dim_type=None,
        class_embed_type=None,
        addition_embed_type=None,
        num_class_embeds=None,
        resnet_time_scale_shift="default",
        controlnet_conditioning_channel_order="rgb",
    )
    pooled = bool(config.get("global_pool_conditions"))
    control = ControlConfig(kind=kind, hint_channels=tuple(hint), pooled=pooled)
    return dataclasses.replace(base, controls=(*base.controls, control))


def control_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a ControlNetModel's config.json would say of tensors in diffusers' names; heads and groups do not show."""
    signs, stem = Signs(tensors), r"^controlnet_cond_embedding\."
    last = signs.largest(stem + r"blocks\.(\d+)\.") or 0
    names = ["conv_in", *(f"blocks\\.{i}" for i in range(1, last + 1, 2))]
    hint = [signs.size(rf"{stem}{name}\.weight$", 0) for name in names]
    shape = {key: value for key, value in unet_shape(tensors).items() if key != "up_block_types"}
    return shape | {"_class_name": "ControlNetModel", "conditioning_embedding_out_channels": hint}


def their_control_config(control: ControlConfig, config: UNetConfig) -> dict[str, Any]:
    """The config.json of a ControlNetModel, the inverse of `with_control`."""
    return {
        "_class_name": "ControlNetModel",
        "in_channels": config.latent_channels,
        "conditioning_channels": 3,
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": [ATTENTION_TYPES[attends] for attends in config.attention_levels],
        "layers_per_block": config.layers_per_block,
        "attention_head_dim": config.num_attention_heads,  # the number of heads, in spite of its name
        "cross_attention_dim": config.cross_attention_dim,
        "norm_num_groups": config.norm_num_groups,
        "conditioning_embedding_out_channels": list(control.hint_channels),
        "global_pool_conditions": control.pooled,
    }
