"""The shape of a space-time transformer."""

import dataclasses
from typing import Literal

from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import LATER, DenoiserConfig

AttentionForm = Literal["factorised", "full"]
"""Which positions see each other: those of a frame and, in layers in turn, the frames at a position; or all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig(DenoiserConfig):
    """Shape of a `SpaceTimeDiT`. The defaults are the full size, 1.3 B parameters.

    Attributes:
        patch_size: rows and columns of latents that are one token; a token is of one frame.
        width: of a token.
        num_layers: blocks that read the content; with factorised attention as many again between frames.
        num_attention_heads: heads of every attention.
        feed_forward_dim: width inside a feed-forward layer.
        attention: which positions see each other, "factorised" or "full".
        shared_modulation: whether blocks have their scales, shifts and gates from one projection of the timestep, to
            which each adds constants of its own (adaLN-single, https://arxiv.org/abs/2310.00426), instead of from a
            projection each: at full size 14 M parameters instead of 400 M.
    """

    kind: Literal["dit"] = "dit"
    patch_size: int = 2
    width: int = 1536
    num_layers: int = 28
    num_attention_heads: int = 12
    feed_forward_dim: int = 6144
    attention: AttentionForm = "full"
    shared_modulation: bool = dataclasses.field(default=True, metadata=LATER)

    def __post_init__(self):
        super().__post_init__()
        if self.width % (8 * self.num_attention_heads):
            raise UserError(
                f"width {self.width} is not a multiple of 8 times num_attention_heads {self.num_attention_heads}"
            )

    @property
    def head_size(self) -> int:
        """Features of a head."""
        return self.width // self.num_attention_heads

    @property
    def downscale(self) -> int:
        """See `DenoiserConfig`."""
        return self.patch_size

    @property
    def couples_frames(self) -> bool:
        """See `DenoiserConfig`."""
        return True

    @property
    def timestep_features(self) -> int:
        """See `DenoiserConfig`."""
        return 256
