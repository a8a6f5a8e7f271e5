"""The shape of a space-time U-Net."""

import dataclasses
from typing import Literal

from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import LATER, DenoiserConfig

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
class UNetConfig(DenoiserConfig):
    """Shape of a `SpaceTimeUNet`. The defaults are Stable Diffusion 1.x's.

    Attributes:
        image_adapter: whether cross-attention reads tokens of a picture as well, by keys and values of their own
            (IP-Adapter, https://arxiv.org/abs/2308.06721).
        temporal: layers between frames: Gen-1's own, AnimateDiff's motion modules, or none.
        motion_mid_block: whether the middle has a motion module, too (AnimateDiff's second version, AnimateLCM).
        controls: ControlNets, each of another kind of structure; an evaluation may use any of them.
        block_out_channels: width of each level, finest first; each level but the last halves H and W.
        attention_levels: which levels have spatial and temporal transformers.
        layers_per_block: residual blocks of a level on the way down (one more on the way up).
        num_attention_heads: heads of every attention.
        norm_num_groups: groups of every group normalisation.
        max_frames: number of learnable frame positions, too.
    """

    kind: Literal["unet"] = "unet"
    image_adapter: bool = dataclasses.field(default=False, metadata=LATER)
    temporal: Temporal = dataclasses.field(default="gen1", metadata=LATER)
    motion_mid_block: bool = dataclasses.field(default=False, metadata=LATER)
    controls: tuple[ControlConfig, ...] = dataclasses.field(default=(), metadata=LATER)
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    num_attention_heads: int = 8
    norm_num_groups: int = 32

    def __post_init__(self):
        if len(self.attention_levels) != len(self.block_out_channels):
            raise UserError("attention_levels needs one entry for each of block_out_channels")
        if any(width % self.norm_num_groups or width % self.num_attention_heads for width in self.block_out_channels):
            raise UserError(
                f"block_out_channels {self.block_out_channels} are not all multiples of norm_num_groups "
                f"{self.norm_num_groups} and of num_attention_heads {self.num_attention_heads}"
            )
        super().__post_init__()
        if self.guidance_embedded and self.controls:
            raise UserError("guidance_embedded is for a U-Net without controls, which are told no guidance")
        if self.image_adapter and not self.content.reads_text:
            said = f"content of kind {self.content_kind!r} is a picture already"
            raise UserError(f"image_adapter is for content_kind 'text': {said}")

    @property
    def downscale(self) -> int:
        """How far the coarsest level shrinks latents; multiples of it avoid odd sizes on the way."""
        return 2 ** (len(self.block_out_channels) - 1)

    @property
    def couples_frames(self) -> bool:
        """See `DenoiserConfig`."""
        return self.temporal != "none"

    @property
    def keeps_features(self) -> bool:
        """See `DenoiserConfig`; of one level nothing lies deeper than the finest."""
        return len(self.block_out_channels) > 1

    @property
    def timestep_features(self) -> int:
        """See `DenoiserConfig`."""
        return self.block_out_channels[0]

    @property
    def hint_features(self) -> int:
        """See `DenoiserConfig`."""
        return self.block_out_channels[0]
