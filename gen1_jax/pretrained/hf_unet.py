"""Stable Diffusion 1.x's U-Net and scheduler in diffusers' layout (UNet2DConditionModel)."""

from collections.abc import Mapping

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.hf_config import ConfigError, require
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


def noise_schedule(config: Mapping) -> tuple[NoiseSchedule, str]:
    """The noise schedule of a scheduler_config.json, and the prediction type of the U-Net beside it.

    Raises:
        ConfigError: betas that we do not implement, by key.
    """
    require(config, "scheduler config", trained_betas=None)
    fields = {name: config[name] for name in _SCHEDULE_FIELDS if name in config}
    fields["rescale_zero_terminal_snr"] = config.get("rescale_betas_zero_snr", False)
    try:
        return NoiseSchedule(**fields), config.get("prediction_type", "epsilon")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"scheduler config: {error}") from None


_SCHEDULE_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
