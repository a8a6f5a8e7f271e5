"""Which Hugging Face checkpoints we read, and how their names and configurations become ours.

Layouts are those of diffusers (U-Net, autoencoder, prior) and transformers (CLIP, DPT).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.layout import Layout

_ATTENTION = (
    (r"\.to_out\.", ".to_out.0."),
    (r"\.ff\.proj_in\.", ".ff.net.0.proj."),
    (r"\.ff\.proj_out\.", ".ff.net.2."),
)

UNET = Layout(
    renames=(
        (r"\.downsample\.", ".downsamplers.0.conv."),
        (r"\.upsample\.", ".upsamplers.0.conv."),
        (r"\.spatial\.block\.", ".transformer_blocks.0."),
        (r"\.spatial\.", "."),
        *_ATTENTION,
    ),
    new=(r"\.temporal", r"\.temporal_conv\d"),
    zero_rows=(r"^conv_in\.kernel$",),
)


class ConfigError(ValueError):
    """A Hugging Face configuration describes a network that we do not have."""


def require(config: Mapping, source: str, **expected) -> None:
    """Check that keys of `config`, where present, have the one value that we implement.

    Raises:
        ConfigError: naming the key, its value and what is supported.
    """
    for key, value in expected.items():
        found = config.get(key, value)
        found = tuple(found) if isinstance(found, list) else found
        if found != value:
            raise ConfigError(f"{source}: {key} is {found!r}, only {value!r} is supported")


def typed_fields(defaults: Any, config: Mapping, source: str) -> dict[str, Any]:
    """The value in `config` of each field of a dataclass, lists as tuples; where absent or null, that of `defaults`.

    Raises:
        ConfigError: a value's type is not that of the default, or a number is not positive, by key.
    """
    values = {}
    for field in dataclasses.fields(defaults):
        default, value = getattr(defaults, field.name), config.get(field.name)
        value = default if value is None else value
        values[field.name] = value = tuple(value) if isinstance(value, list) else value
        if not _is_like(default, value):
            raise ConfigError(f"{source}: {field.name} is {value!r}, only one like {default!r} is supported")
    return values


def _is_like(example: Any, value: Any) -> bool:
    if isinstance(example, tuple):  # of numbers, their sum is a float if one of them is; an index may be 0
        return isinstance(value, tuple) and all(v == 0 or _is_like(sum(example), v) for v in value)
    if isinstance(example, bool | str):
        return isinstance(value, type(example))
    kinds = int if isinstance(example, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0


_DOWN = {"CrossAttnDownBlock2D": True, "DownBlock2D": False}


def unet_config(config: Mapping, *, prediction_type: str = "epsilon", **ours) -> UNetConfig:
    """The `UNetConfig` of a UNet2DConditionModel's config.json (Stable Diffusion 1.x, sd-image-variations).

    Args:
        config: the JSON object.
        prediction_type: the scheduler's, for the U-Net's own configuration does not tell.
        ours: further fields of `UNetConfig`.

    Raises:
        ConfigError: a variant that we do not implement, by key.
    """
    down = config.get("down_block_types", ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"])
    if unknown := [name for name in down if name not in _DOWN]:
        raise ConfigError(f"UNet config: down_block_types has {unknown[0]!r}, only {list(_DOWN)} are supported")
    widths = tuple(config.get("block_out_channels", (320, 640, 1280, 1280)))
    groups = config.get("norm_num_groups", 32)
    attend = tuple(_DOWN[name] for name in down)
    require(
        config,
        "UNet config",
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
        mid_block_type="UNetMidBlock2DCrossAttn",
        in_channels=4,
        out_channels=4,
        act_fn="silu",
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
        mid_block_scale_factor=1,
        norm_eps=1e-5,
        only_cross_attention=False,
        dual_cross_attention=False,
        transformer_layers_per_block=1,
        class_embed_type=None,
        addition_embed_type=None,
        num_class_embeds=None,
        encoder_hid_dim=None,
        resnet_time_scale_shift="default",
        time_embedding_type="positional",
        conv_in_kernel=3,
        conv_out_kernel=3,
    )
    heads = config.get("num_attention_heads") or config.get("attention_head_dim", 8)  # head_dim there means heads
    layers = config.get("layers_per_block", 2)
    for key, value in (("attention_head_dim", heads), ("layers_per_block", layers)):
        if not isinstance(value, int):
            raise ConfigError(f"UNet config: {key} is {value!r}, only one number for all levels is supported")
    return UNetConfig(
        block_out_channels=widths,
        attention_levels=attend,
        layers_per_block=layers,
        num_attention_heads=heads,
        cross_attention_dim=config.get("cross_attention_dim", 1280),
        norm_num_groups=groups,
        prediction_type=prediction_type,
        **ours,
    )
