"""The shape of a space-time U-Net."""

import dataclasses
from collections.abc import Collection
from typing import Literal

import numpy as np

from gen1_jax.errors import UserError

LEVEL_PERIOD = 16.0
"""`structure_level_period` of new models, in which levels 0 to 7 lie apart; the default is that of old ones."""


LATER = {"later": True}
"""Marks a field that configurations of before lack: it is not written where it has its default."""

KNOWN = "known"
"""Name of the input that has latents where they are given, in `Conditions.structure` and in recipes."""

Temporal = Literal["gen1", "animatediff", "none"]
"""Which layers between frames a U-Net has, see `models.unet.temporal`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Shape of a `ControlNet`, as far as it is not that of the U-Net that it controls.

    Attributes:
        kind: the structure that it follows, a name in lower case.
        hint_channels: widths of the convolutions over the picture of the structure, at full, half, quarter and eighth
            size.
        pooled: whether what it adds is averaged over the picture ("shuffle" is; diffusers: global_pool_conditions).
    """

    kind: str
    hint_channels: tuple[int, ...] = (16, 32, 96, 256)
    pooled: bool = False

    def __post_init__(self):
        if not self.kind.isidentifier():
            raise UserError(f"a control's kind is {self.kind!r}, not a name")

    @property
    def downscale(self) -> int:
        """How far the picture of its structure is shrunk: to the size of latents."""
        return 2 ** (len(self.hint_channels) - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a `SpaceTimeUNet`. The defaults are Stable Diffusion 1.x's.

    Attributes:
        kind: of the denoiser, see `models.denoiser`.
        latent_channels: channels of z_t and of the prediction.
        structure_channels: channels of each encoded structure; 0 builds a model without structure or t_s.
        structure_level_channels: channels of the sinusoidal embedding of t_s (arXiv 2302.03011).
        structure_level_period: longest period of that embedding, in rounds of blur, over 2π. 10,000 is that of
            timesteps, under which half of the channels hardly tell 0 from 7; about 16 suits levels.
        structure_kinds: the structures that the model sees, in the order of their channels.
        structure_optional: whether any subset of them may be given, as the model was trained; it needs all otherwise.
        known: whether it can be given latents of some frames or regions, which it is to keep and to go on from: as
            many further channels, zero elsewhere, and a mask that is 1 where they are given.
        content_kind: what content tokens are: "image" (CLIP image embeddings) or "text" (its text states).
        image_adapter: whether cross-attention reads tokens of a picture as well, by keys and values of their own
            (IP-Adapter, https://arxiv.org/abs/2308.06721).
        temporal: layers between frames: Gen-1's own, AnimateDiff's motion modules, or none.
        motion_mid_block: whether the middle has a motion module, too (AnimateDiff's second version, AnimateLCM).
        controls: ControlNets, each of another kind of structure; an evaluation may use any of them.
        block_out_channels: width of each level, finest first; each level but the last halves H and W.
        attention_levels: which levels have spatial and temporal transformers.
        layers_per_block: residual blocks of a level on the way down (one more on the way up).
        num_attention_heads: heads of every attention.
        cross_attention_dim: width of a content token.
        norm_num_groups: groups of every group normalisation.
        max_frames: number of learnable frame positions, the longest clip of one evaluation.
        guidance_embedded: whether it is told the scales w and w_t of guidance beside the timestep, as one that was
            distilled from guided predictions: one evaluation is then all of equation 10 (arXiv 2210.03142; 2310.04378).
        prediction_type: what the output means: "v_prediction", "epsilon", "sample" or "flow_prediction".
    """

    kind: Literal["unet"] = "unet"
    latent_channels: int = 4
    structure_channels: int = 4
    structure_level_channels: int = 4
    structure_level_period: float = 10_000.0
    structure_kinds: tuple[str, ...] = ("depth",)
    structure_optional: bool = dataclasses.field(default=False, metadata=LATER)
    known: bool = dataclasses.field(default=False, metadata=LATER)
    content_kind: Literal["image", "text"] = "image"
    image_adapter: bool = dataclasses.field(default=False, metadata=LATER)
    temporal: Temporal = dataclasses.field(default="gen1", metadata=LATER)
    motion_mid_block: bool = dataclasses.field(default=False, metadata=LATER)
    controls: tuple[ControlConfig, ...] = dataclasses.field(default=(), metadata=LATER)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    num_attention_heads: int = 8
    cross_attention_dim: int = 768
    norm_num_groups: int = 32
    max_frames: int = 32
    guidance_embedded: bool = dataclasses.field(default=False, metadata=LATER)
    prediction_type: str = "v_prediction"

    def __post_init__(self):
        if len(self.attention_levels) != len(self.block_out_channels):
            raise UserError("attention_levels needs one entry for each of block_out_channels")
        if any(width % self.norm_num_groups or width % self.num_attention_heads for width in self.block_out_channels):
            raise UserError(
                f"block_out_channels {self.block_out_channels} are not all multiples of norm_num_groups "
                f"{self.norm_num_groups} and of num_attention_heads {self.num_attention_heads}"
            )
        if self.prediction_type not in (known := ("v_prediction", "epsilon", "sample", "flow_prediction")):
            raise UserError(f"prediction_type is {self.prediction_type!r}, not one of {', '.join(known)}")
        if len(set(self.structure_kinds)) < len(self.structure_kinds) or not self.structure_kinds:
            raise UserError(f"structure_kinds are {self.structure_kinds}: name each once, and at least one")
        if self.guidance_embedded and self.controls:
            raise UserError("guidance_embedded is for a U-Net without controls, which are told no guidance")
        if KNOWN in self.structure_kinds:
            raise UserError(f"structure_kinds names {KNOWN!r}, which is no structure: it is a field of its own")
        if self.image_adapter and self.content_kind == "image":
            raise UserError("image_adapter is for content_kind 'text': content of kind 'image' is a picture already")
        if twice := sorted({kind for kind in self.kinds if self.kinds.count(kind) > 1}):
            raise UserError(f"there are two inputs for the structure {twice[0]!r}")

    @property
    def structures(self) -> tuple[str, ...]:
        """The kinds of structure that are channels beside the latents."""
        return self.structure_kinds if self.structure_channels else ()

    @property
    def required(self) -> tuple[str, ...]:
        """Those of `structures` that it cannot do without."""
        return () if self.structure_optional else self.structures

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of structure that the model can follow: `structures`, then those of its controls."""
        return (*self.structures, *(control.kind for control in self.controls))

    @property
    def default_kinds(self) -> tuple[str, ...]:
        """The kinds of structure that an edit follows where nothing else is said: those it needs, else the first."""
        return self.required or self.kinds[:1]

    @property
    def content_kinds(self) -> tuple[str, ...]:
        """The kinds of content that it reads, the first of which it needs."""
        return (self.content_kind, "image") if self.image_adapter else (self.content_kind,)

    @property
    def inputs(self) -> dict[str, int]:
        """Channels of each input beside z_t, in their order: a structure's maps and the embedding of its t_s, or what
        is known and its mask."""
        inputs = dict.fromkeys(self.structures, self.structure_channels + self.structure_level_channels)
        return inputs | ({KNOWN: self.latent_channels + 1} if self.known else {})

    def rows(self, given: Collection[str] | None) -> np.ndarray | None:
        """Channels of conv_in that z_t and some of `inputs` have; None for all of them."""
        if given is None or all(name in given for name in self.inputs):
            return None
        has = [True] * self.latent_channels
        for name, count in self.inputs.items():
            has += [name in given] * count
        return np.flatnonzero(has)

    @property
    def in_channels(self) -> int:
        """Channels of conv_in: z_t, then those of `inputs`."""
        return self.latent_channels + sum(self.inputs.values())

    @property
    def downscale(self) -> int:
        """How far the coarsest level shrinks latents; multiples of it avoid odd sizes on the way."""
        return 2 ** (len(self.block_out_channels) - 1)
