"""What of a U-Net's parameters is published by itself: the image model, motion modules, each ControlNet, an adapter."""

import re
from collections.abc import Callable
from typing import NamedTuple

from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.hf_control import control_layout, control_paths
from gen1_jax.pretrained.hf_image_tokens import IMAGE_ATTENTION, image_attention_layout
from gen1_jax.pretrained.hf_motion import MOTION, MOTION_PATHS
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.layout import Layout

BASE, MOTION_ADAPTER, IP_ADAPTER = "unet", "motion_adapter", "ip_adapter"


class UNetPart(NamedTuple):
    """A part with a checkpoint of its own.

    Attributes:
        layout: our names and theirs.
        fills: whether one of our paths belongs to it.
    """

    layout: Layout
    fills: Callable[[str], bool]


def control_name(kind: str) -> str:
    """What the part of a control is called."""
    return f"controlnet_{kind}"


def unet_parts(config: UNetConfig) -> dict[str, UNetPart]:
    """The parts of a U-Net by name, its image model first; Gen-1's own temporal layers belong to that."""
    added = {}
    if config.temporal == "animatediff":
        added[MOTION_ADAPTER] = UNetPart(MOTION, _has(MOTION_PATHS))
    for control in config.controls:
        added[control_name(control.kind)] = UNetPart(control_layout(control.kind), _has(control_paths(control.kind)))
    if config.image_adapter:
        added[IP_ADAPTER] = UNetPart(image_attention_layout(config), _has(IMAGE_ATTENTION))
    base = UNetPart(UNET, lambda path: not any(part.fills(path) for part in added.values()))
    return {BASE: base, **added}


def _has(pattern: str) -> Callable[[str], bool]:
    return lambda path: re.search(pattern, path) is not None
