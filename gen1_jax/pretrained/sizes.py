"""The sizes of model that have a name, and what is alike in all models of public weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.errors import UserError
from gen1_jax.models.clip import CLIPTextConfig
from gen1_jax.models.denoiser_config import LEVEL_PERIOD
from gen1_jax.models.depth import DPTConfig
from gen1_jax.models.dit import DiTConfig
from gen1_jax.models.unet import ControlConfig, UNetConfig
from gen1_jax.models.vae import VAEConfig
from gen1_jax.pretrained.family import FULL, NANO, TINY, Gen1Config

MOTION_SCHEDULE = NoiseSchedule(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, set_alpha_to_one=True)
"""Of AnimateDiff's training, whatever the base's own is."""

TEXT_UNET = dict(content_kind="text", structure_channels=0)
"""What every U-Net of public weights has: it reads a text's states, and follows structure by controls alone."""

_CLIP_FRAMES, _OVERLAP = 16, 6  # of motion modules' training, and of neighbouring windows of longer edits


def public_family(parts: Mapping[str, Any], schedule: NoiseSchedule, sampler: str = "ddim") -> Gen1Config:
    """The family of a model of public weights whose content is text (`stable_diffusion.text_model`).

    Args:
        parts: configurations of its networks by name.
        schedule: of the motion modules, or of the base where there are none.
        sampler: that it was trained for.

    Raises:
        ValueError: parts that do not fit each other.
    """
    frames = min(_CLIP_FRAMES, parts["unet"].max_frames)
    return Gen1Config(
        parts=parts,
        schedule=schedule,
        sampler=sampler,
        height=512,
        width=512,
        num_frames=frames,
        window_overlap=min(_OVERLAP, frames - 1),
        num_inference_steps=25,
        learned_content="text",
    )


PUBLIC = public_family(
    {
        "unet": UNetConfig(
            **TEXT_UNET,
            structure_level_period=LEVEL_PERIOD,
            temporal="animatediff",
            controls=(ControlConfig(kind="depth"),),
            prediction_type="epsilon",
        ),
        "vae": VAEConfig(),
        "text": CLIPTextConfig(),
        "depth": DPTConfig(),
    },
    MOTION_SCHEDULE,
)
"""Stable Diffusion 1.5 with AnimateDiff v3 and a ControlNet of depth, at 512x512."""

DIT = dataclasses.replace(FULL, unet=DiTConfig(structure_level_period=LEVEL_PERIOD))
"""The full size with a transformer of 1.3 B parameters and full attention for its denoiser."""

NANO_DIT = dataclasses.replace(
    NANO,
    unet=DiTConfig(
        width=192,
        num_layers=5,
        num_attention_heads=6,
        feed_forward_dim=512,
        attention="factorised",
        shared_modulation=False,
        max_frames=NANO.unet.max_frames,
    ),
)
"""nano with a transformer about as large, and as dear, as its U-Net."""

TINY_DIT = dataclasses.replace(
    TINY,
    unet=DiTConfig(
        width=16,
        num_layers=1,
        num_attention_heads=2,
        feed_forward_dim=16,
        attention="factorised",
        cross_attention_dim=TINY.unet.cross_attention_dim,
        max_frames=TINY.unet.max_frames,
    ),
)
"""Every part at its smallest, with a transformer."""

SIZES = {
    **{"tiny": TINY, "nano": NANO, "full": FULL, "public": PUBLIC},
    **{"tiny-dit": TINY_DIT, "nano-dit": NANO_DIT, "dit": DIT},
}


def size_named(size: str) -> Gen1Config:
    """The model of a size.

    Raises:
        UserError: there is none of that name.
    """
    if size not in SIZES:
        raise UserError(f"size is {size!r}, not one of {', '.join(SIZES)}")
    return SIZES[size]
