"""The small model of the kind of public weights, before its U-Net is trained (`configs/nano_public.py`).

nano's autoencoder, depth, CLIP ──────────────────────────┐
its CLIP's text tower ─► "text", the states of a prompt ──┼─► as Stable Diffusion with motion modules and a ControlNet
a fresh U-Net ────────────────────────────────────────────┘
"""

import dataclasses
from collections.abc import Set
from typing import TYPE_CHECKING

import jax
import numpy as np

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.models.module import Params, initial_values
from gen1_jax.models.unet import ControlConfig
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer

if TYPE_CHECKING:
    from gen1_jax.pretrained.folder import ModelSource

NANO_PUBLIC = "nano-public"
"""Its name."""


def public_config(nano: Gen1Config) -> Gen1Config:
    """nano's family with a U-Net whose content is text, with motion modules and a ControlNet of depth."""
    halvings = len(nano.vae.block_out_channels) - 1
    unet = dataclasses.replace(
        nano.unet,
        content_kind="text",
        cross_attention_dim=nano.clip.text.hidden_size,
        prediction_type="epsilon",
        structure_channels=0,
        temporal="animatediff",
        controls=(ControlConfig(kind="depth", hint_channels=(16, 32, 64, 96)[: halvings + 1]),),
    )
    return dataclasses.replace(
        nano,
        unet=unet,
        text=nano.clip.text,
        prior=None,
        schedule=NoiseSchedule(beta_schedule="linear", set_alpha_to_one=True),
        guidance_scale=3.0,
        guidance_interval=(0.0, 1.0),
    )


class NanoPublic:
    """See `ModelSource`. The text tower is there twice: in "clip", too, by which edits are measured.

    Args:
        nano: whose networks are taken.

    Attributes:
        drawn: networks that have learned nothing.
    """

    name, drawn = NANO_PUBLIC, ("unet",)
    warning = "nano-public has no trained U-Net yet (gen1 train --config configs/nano_public.py): edits are noise"

    def __init__(self, nano: "ModelSource"):
        self._nano = nano
        self.config = public_config(nano.config)

    @property
    def words(self) -> Set[str] | None:
        """That its captions had, see `pretrained.words`."""
        return getattr(self._nano, "words", None)

    def parameters(self, component: str) -> Params:
        """The weights of one network."""
        return jax.tree.map(np.asarray, self.stored(component))

    def stored(self, component: str) -> Params:
        """The same, read where they are sliced."""
        if component == "unet":
            return initial_values(self.config.build(component, np.float32), 0)
        return self._nano.stored("clip")["text"] if component == "text" else self._nano.stored(component)

    def tokenizer(self) -> CLIPTokenizer:
        """nano's."""
        return self._nano.tokenizer()
