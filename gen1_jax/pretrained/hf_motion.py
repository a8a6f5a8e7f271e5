"""AnimateDiff's motion modules in diffusers' layout (MotionAdapter): the temporal layers of a U-Net.

v1's are refused by their number of frame positions; v3 has none in the middle, v2 and AnimateLCM have.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gen1_jax.models.unet import UNetConfig
from gen1_jax.models.unet.temporal import sinusoids
from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields
from gen1_jax.pretrained.hf_unet import ATTENTION
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import V1_POSITIONS, Signs

MOTION = Layout(
    renames=(
        (r"^mid_block\.attentions\.0\.temporal\.", "mid_block.motion_modules.0."),
        (r"\.motions\.", ".motion_modules."),
        (r"\.block\.", ".transformer_blocks.0."),
        *ATTENTION,
    ),
    ignored=(r"\.pe$",),  # positions: sines and cosines of the frame's number, which are computed
)

MOTION_PATHS = r"(\.motions\.|^mid_block\.attentions\.0\.temporal\.)"
"""Our parameters that motion modules fill, where the temporal layers are AnimateDiff's."""

MOTION_FROM_ZERO = (rf"{MOTION_PATHS}.*\.?proj_out\.kernel$",)

MAX_FRAMES = 32
"""Frame positions of v2, v3 and AnimateLCM, all trained on clips of 16."""

_SOURCE = "MotionAdapter config"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Theirs:
    """The keys that vary between adapters, with diffusers' defaults."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    motion_layers_per_block: int = 2
    motion_num_attention_heads: int = 8
    motion_norm_num_groups: int = 32
    motion_max_seq_length: int = MAX_FRAMES


def with_motion(config: Mapping[str, Any], *, base: UNetConfig, tensors: Mapping[str, Any]) -> UNetConfig:
    """A U-Net's configuration with an adapter's temporal layers.

    Args:
        config: the MotionAdapter's config.json, or `motion_shape` of a file without one.
        base: of the image model that the adapter goes into.
        tensors: of the adapter by diffusers' names. Whether it has a module in the middle is told by them: old
            configurations say so of adapters that have none.

    Raises:
        ConfigError: a variant that we do not implement, or an adapter for another U-Net, by key.
    """
    theirs = _Theirs(**typed_fields(_Theirs(), config, _SOURCE))
    if theirs.motion_max_seq_length == V1_POSITIONS:
        raise ConfigError(
            f"{_SOURCE}: motion_max_seq_length is {V1_POSITIONS}, of AnimateDiff v1, which was trained with the "
            "U-Net's norms over all frames of a clip, here they are over each: take v3 or v2"
        )
    require(
        config,
        _SOURCE,
        _class_name="MotionAdapter",
        block_out_channels=base.block_out_channels,
        motion_layers_per_block=base.layers_per_block,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=base.num_attention_heads,
        motion_norm_num_groups=base.norm_num_groups,
        conv_in_channels=None,  # 9 of PIA
    )
    for key in ("motion_transformer_layers_per_block", "motion_transformer_layers_per_mid_block"):
        layers = config.get(key)
        if layers not in (None, 1) and (not isinstance(layers, list) or set(layers) != {1}):
            raise ConfigError(f"{_SOURCE}: {key} is {layers!r}, only 1 is supported")
    return dataclasses.replace(
        base,
        temporal="animatediff",
        motion_mid_block=any(name.startswith("mid_block.") for name in tensors),
        max_frames=theirs.motion_max_seq_length,
    )


def motion_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a MotionAdapter's config.json would say of tensors in diffusers' names; heads and groups do not show."""
    signs = Signs(tensors)
    levels = range((signs.largest(r"^down_blocks\.(\d+)\.") or 0) + 1)
    widths = [signs.size(rf"^down_blocks\.{i}\.motion_modules\.0\.norm\.weight$", 0) for i in levels]
    layers = signs.largest(r"^down_blocks\.0\.motion_modules\.(\d+)\.") or 0
    length = signs.size(r"\.pe$", 1)  # None of AnimateLCM's own file
    return {"block_out_channels": widths, "motion_layers_per_block": layers + 1, "motion_max_seq_length": length}


def their_motion_config(config: UNetConfig) -> dict[str, Any]:
    """The config.json of a MotionAdapter, the inverse of `with_motion`."""
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": list(config.block_out_channels),
        "motion_layers_per_block": config.layers_per_block,
        "motion_mid_block_layers_per_block": 1,
        "motion_num_attention_heads": config.num_attention_heads,
        "motion_norm_num_groups": config.norm_num_groups,
        "motion_max_seq_length": config.max_frames,
        "use_motion_mid_block": config.motion_mid_block,
    }


def position_tensors(tensors: Mapping[str, Any], length: int) -> dict[str, np.ndarray]:
    """The buffers that a MotionAdapter has beside its parameters, in the order of its tensors in diffusers' names."""
    end = ".proj_in.weight"
    widths = {name.removesuffix(end): x.shape[0] for name, x in tensors.items() if name.endswith(end)}
    return {
        f"{module}.transformer_blocks.0.pos_embed.pe": np.asarray(sinusoids(length, width))[None]
        for module, width in widths.items()
    }
