"""Stable Diffusion 1.x's U-Net and scheduler in diffusers' layout (UNet2DConditionModel, DDIMScheduler).

Models of rectified flow have FlowMatchEulerDiscreteScheduler.

A U-Net of 12 input channels is one of ours without its temporal layers: z_t, structure, and the embedding of t_s. One
of more has several inputs, which its configuration names (`UNetConfig.inputs`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gen1_jax.diffusion import PREDICTION_TYPES, NoiseSchedule
from gen1_jax.models.denoiser_config import LEVEL_PERIOD
from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import Signs

ATTENTION = (
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
        *ATTENTION,
    ),
    new=(r"\.temporal", r"\.temporal_conv\d"),
    zero_rows=((r"^conv_in\.kernel$", 4),),  # structure and t_s are new
    pointwise=(r"\.spatial\.proj_(in|out)\.kernel$",),
)

_UNET, _SCHEDULER = "UNet config", "scheduler config"
_DDPM = NoiseSchedule(beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
_TO_ONE = ("DDIMScheduler", "LCMScheduler", "TCDScheduler")  # that end at clean data where nothing else is said
_FLOW = "FlowMatchEulerDiscreteScheduler"
ATTENTION_TYPES = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
"""Levels on the way down, by whether they attend."""

_DOWN = {name: attends for attends, name in ATTENTION_TYPES.items()}
_IMAGE_CHANNELS = 4  # of z_t


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ours:
    """Keys that diffusers ignores: fields of `UNetConfig` that tell what the input channels are, with its defaults."""

    structure_level_period: float = UNetConfig.structure_level_period
    structure_kinds: tuple[str, ...] = UNetConfig.structure_kinds
    structure_optional: bool = UNetConfig.structure_optional
    known: bool = UNetConfig.known


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Theirs:
    """The keys that vary between U-Nets that we have, with diffusers' defaults."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    layers_per_block: int = 2
    attention_head_dim: int = 8  # the number of heads, in spite of its name
    cross_attention_dim: int = 1280
    norm_num_groups: int = 32


def unet_config(config: Mapping, *, prediction_type: str = "epsilon", **ours) -> UNetConfig:
    """The `UNetConfig` of a UNet2DConditionModel's config.json (Stable Diffusion 1.x, sd-image-variations, or ours).

    Args:
        config: the JSON object.
        prediction_type: the scheduler's, for the U-Net's own configuration does not tell.
        ours: further fields of `UNetConfig`.

    Raises:
        ConfigError: a variant that we do not implement, or a value of the wrong type, by key.
    """
    require(config, _UNET, _class_name="UNet2DConditionModel")
    in_channels = config.get("in_channels", _IMAGE_CHANNELS)
    heads = config.get("num_attention_heads") or config.get("attention_head_dim")
    theirs = _Theirs(**typed_fields(_Theirs(), {**config, "attention_head_dim": heads}, _UNET))
    # Rows of conv_in that are new may have the embedding that suits them; those that are there are used to theirs.
    defaults = _Ours(structure_level_period=LEVEL_PERIOD) if in_channels == _IMAGE_CHANNELS else _Ours()
    inputs = typed_fields(defaults, config, _UNET)
    if unknown := [name for name in theirs.down_block_types if name not in _DOWN]:
        raise ConfigError(f"{_UNET}: down_block_types has {unknown[0]!r}, only {list(_DOWN)} are supported")
    attend = tuple(_DOWN[name] for name in theirs.down_block_types)
    require(
        config,
        _UNET,
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
        mid_block_type="UNetMidBlock2DCrossAttn",
        out_channels=4,
        act_fn="silu",
        attention_type="default",
        center_input_sample=False,
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
        mid_block_scale_factor=1,
        norm_eps=1e-5,
        only_cross_attention=False,
        dual_cross_attention=False,
        cross_attention_norm=None,
        transformer_layers_per_block=1,
        class_embed_type=None,
        addition_embed_type=None,
        num_class_embeds=None,
        encoder_hid_dim=None,
        resnet_time_scale_shift="default",
        resnet_skip_time_act=False,
        resnet_out_scale_factor=1,
        time_embedding_type="positional",
        time_embedding_act_fn=None,
        timestep_post_act=None,
        conv_in_kernel=3,
        conv_out_kernel=3,
    )
    try:
        unet = UNetConfig(
            **inputs,
            block_out_channels=theirs.block_out_channels,
            attention_levels=attend,
            layers_per_block=theirs.layers_per_block,
            num_attention_heads=theirs.attention_head_dim,
            cross_attention_dim=theirs.cross_attention_dim,
            norm_num_groups=theirs.norm_num_groups,
            prediction_type=prediction_type,
            **ours,
        )
    except ValueError as error:
        raise ConfigError(f"{_UNET}: {error}") from None
    if in_channels != unet.in_channels:
        require(config, _UNET, in_channels=_IMAGE_CHANNELS)
    return unet


def unet_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a UNet2DConditionModel's config.json would say of tensors in diffusers' names.

    Heads and groups do not show: they are Stable Diffusion 1.x's, 8 and 32.
    """
    signs = Signs(tensors)
    levels = range((signs.largest(r"^down_blocks\.(\d+)\.") or 0) + 1)
    attend = [signs.has(rf"^down_blocks\.{i}\.attentions\.") for i in levels]
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": signs.size(r"^conv_in\.weight$", 1),
        "block_out_channels": [signs.size(rf"^down_blocks\.{i}\.resnets\.0\.conv1\.weight$", 0) for i in levels],
        "down_block_types": [ATTENTION_TYPES[attends] for attends in attend],
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attend)],
        "layers_per_block": (signs.largest(r"^down_blocks\.0\.resnets\.(\d+)\.") or 0) + 1,
        "cross_attention_dim": signs.size(r"\.attn2\.to_k\.weight$", 1),
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    }


def noise_schedule(config: Mapping) -> tuple[NoiseSchedule, str]:
    """The noise schedule of a scheduler_config.json, and the prediction type of the U-Net beside it.

    Absent keys have diffusers' defaults, which are not Stable Diffusion's.

    Raises:
        ConfigError: betas that we do not implement, or a value of the wrong type, by key.
    """
    if config.get("_class_name") == _FLOW:
        return _flow_schedule(config), "flow_prediction"
    require(config, _SCHEDULER, trained_betas=None)
    prediction_type = config.get("prediction_type") or "epsilon"
    if prediction_type not in PREDICTION_TYPES:
        raise ConfigError(f"{_SCHEDULER}: prediction_type is {prediction_type!r}, not one of {PREDICTION_TYPES}")
    rescale = config.get("rescale_betas_zero_snr")
    defaults = dataclasses.replace(_DDPM, set_alpha_to_one=config.get("_class_name") in _TO_ONE)
    fields = typed_fields(defaults, {**config, "rescale_zero_terminal_snr": rescale}, _SCHEDULER)
    try:
        return NoiseSchedule(**fields), prediction_type
    except ValueError as error:
        raise ConfigError(f"{_SCHEDULER}: {error}") from None


def _flow_schedule(config: Mapping) -> NoiseSchedule:
    """That of a FlowMatchEulerDiscreteScheduler, whose one number is its shift; it reads predictions as velocities."""
    others = ("use_dynamic_shifting", "invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    require(config, _SCHEDULER, **dict.fromkeys((*others, "stochastic_sampling"), False), shift_terminal=None)
    known = NoiseSchedule(use_flow_sigmas=True)
    told = {"num_train_timesteps": config.get("num_train_timesteps"), "flow_shift": config.get("shift")}
    try:
        return NoiseSchedule(**typed_fields(known, told, _SCHEDULER))
    except ValueError as error:
        raise ConfigError(f"{_SCHEDULER}: {error}") from None


def their_unet_config(config: UNetConfig, sample_size: tuple[int, int]) -> dict[str, Any]:
    """The config.json of the image model as a UNet2DConditionModel, the inverse of `unet_config`.

    Args:
        config: ours.
        sample_size: height and width of latents, in training.
    """
    attend = config.attention_levels
    inputs = {field.name: (getattr(config, field.name), field.default) for field in dataclasses.fields(_Ours)}
    ours = {name: value for name, (value, default) in inputs.items() if value != default}
    return ours | {
        "_class_name": "UNet2DConditionModel",
        "sample_size": list(sample_size),
        "in_channels": config.in_channels,
        "out_channels": config.latent_channels,
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": [ATTENTION_TYPES[a] for a in attend],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)],
        "layers_per_block": config.layers_per_block,
        "attention_head_dim": config.num_attention_heads,  # see `_Theirs`
        "cross_attention_dim": config.cross_attention_dim,
        "norm_num_groups": config.norm_num_groups,
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def their_scheduler_config(schedule: NoiseSchedule, prediction_type: str) -> dict[str, Any]:
    """The scheduler_config.json of what steps as our default sampler, a DDIMScheduler or a
    FlowMatchEulerDiscreteScheduler; the inverse of `noise_schedule`.

    Raises:
        ConfigError: a rectified flow that predicts no velocity.
    """
    if schedule.use_flow_sigmas:
        if prediction_type != "flow_prediction":
            raise ConfigError(f"{_FLOW} is of models that predict flow_prediction, but this one {prediction_type}")
        total = schedule.num_train_timesteps
        return {"_class_name": _FLOW, "num_train_timesteps": total, "shift": schedule.flow_shift}
    rescaled = schedule.rescale_zero_terminal_snr
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": schedule.num_train_timesteps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": schedule.beta_schedule,
        "prediction_type": prediction_type,
        "rescale_betas_zero_snr": rescaled,
        "timestep_spacing": "trailing" if rescaled else "leading",
        "steps_offset": 1,
        "clip_sample": False,
        "set_alpha_to_one": schedule.set_alpha_to_one,
    }
