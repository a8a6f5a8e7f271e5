"""The denoiser: Stable Diffusion's U-Net, extended in time, with structure and content inputs.

    latents (b t h w 4) ┐
    structure (b t h w 4) ├─ concat ─► conv_in ─► down blocks ─► mid block ─► up blocks ─► conv_out ─► v (b t h w 4)
    level embedding (4) ┘                             ▲ skips ───────────────────┘
    timesteps ─► sinusoid ─► MLP ─► every residual block        content (b n 768) ─► every cross-attention

Architecture: arXiv 2302.03011, section 3; the image part is the U-Net of arXiv 2112.10752. An image is a video of one
frame: temporal layers are bypassed at T = 1 and every other layer is shared. Parameter names depend on level and
block index only.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.models.layers import Conv, GroupNorm, TimestepMLP, timestep_embedding, upsample_nearest
from gen1_jax.models.unet_blocks import DownBlock, MidBlock, UpBlock


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of a `SpaceTimeUNet`. The defaults are Stable Diffusion 1.x's.

    Attributes:
        latent_channels: channels of z_t and of the prediction.
        structure_channels: channels of the encoded structure; 0 builds a model without structure or t_s.
        structure_level_channels: channels of the sinusoidal embedding of t_s (arXiv 2302.03011).
        block_out_channels: width of each level, finest first; each level but the last halves H and W.
        attention_levels: which levels have spatial and temporal transformers.
        layers_per_block: residual blocks of a level on the way down (one more on the way up).
        num_attention_heads: heads of every attention.
        cross_attention_dim: width of a content token.
        norm_num_groups: groups of every group normalisation.
        max_frames: number of learnable frame positions, the longest clip of one evaluation.
        prediction_type: what the output means: "v_prediction", "epsilon" or "sample".
    """

    latent_channels: int = 4
    structure_channels: int = 4
    structure_level_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    num_attention_heads: int = 8
    cross_attention_dim: int = 768
    norm_num_groups: int = 32
    max_frames: int = 32
    prediction_type: str = "v_prediction"

    def __post_init__(self):
        if len(self.attention_levels) != len(self.block_out_channels):
            raise ValueError("attention_levels needs one entry for each of block_out_channels")
        if any(width % self.norm_num_groups or width % self.num_attention_heads for width in self.block_out_channels):
            raise ValueError(
                f"block_out_channels {self.block_out_channels} are not all multiples of norm_num_groups "
                f"{self.norm_num_groups} and of num_attention_heads {self.num_attention_heads}"
            )
        if self.prediction_type not in ("v_prediction", "epsilon", "sample"):
            raise ValueError(f"prediction_type is {self.prediction_type!r}, not v_prediction, epsilon or sample")

    @property
    def downscale(self) -> int:
        """How far the coarsest level shrinks latents; multiples of it avoid odd sizes on the way."""
        return 2 ** (len(self.block_out_channels) - 1)


class SpaceTimeUNet(nnx.Module):
    """Predicts v (or epsilon, or x0: `config.prediction_type`) for every frame of a noisy latent clip.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
        remat: recompute each block's activations in the backward pass instead of keeping them.
    """

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike = jnp.float32, remat: bool = False):
        self.config, self.dtype, self.remat = config, dtype, remat
        widths = config.block_out_channels
        first, time_features = widths[0], 4 * widths[0]
        self.conv_in = Conv(self.in_channels, first)
        self.time_embedding = TimestepMLP(first, time_features)

        down, skips, previous = [], [first], first
        for level, width in enumerate(widths):
            is_last = level == len(widths) - 1
            down.append(DownBlock(config, previous, width, config.attention_levels[level], downsample=not is_last))
            skips += [width] * (config.layers_per_block + (not is_last))
            previous = width
        self.down_blocks = nnx.List(down)

        self.mid_block = MidBlock(config, widths[-1])

        up = []
        for level, width in reversed(list(enumerate(widths))):
            block_skips = [skips.pop() for _ in range(config.layers_per_block + 1)]
            up.append(UpBlock(config, previous, width, block_skips, config.attention_levels[level], upsample=level > 0))
            previous = width
        self.up_blocks = nnx.List(up)

        self.conv_norm_out = GroupNorm(config.norm_num_groups, first, epsilon=1e-5)
        self.conv_out = Conv(first, config.latent_channels)

    @property
    def in_channels(self) -> int:
        """Channels of conv_in: z_t, then structure, then the level embedding."""
        c = self.config
        return c.latent_channels + (c.structure_channels + c.structure_level_channels if c.structure_channels else 0)

    def __call__(
        self,
        latents: Float[Array, "b t h w c"],
        timesteps: Int[Array, " b"],
        content: Float[Array, "b n d"],
        structure: Float[Array, "b t h w s"] | None = None,
        structure_level: Int[Array, " b"] | None = None,
    ) -> Float[Array, "b t h w c"]:
        """One evaluation of the network.

        Args:
            latents: z_t. t = 1 is an image.
            timesteps: diffusion step of each clip, 0 to 999.
            content: CLIP image embedding(s) as cross-attention tokens; zeros are the null content.
            structure: encoded blurred depth; None only if the configuration has no structure.
            structure_level: t_s, rounds of blur of each clip's structure.

        Returns:
            The prediction, float32.

        Raises:
            ValueError: more frames than frame positions, or structure where the model has none, or none where it has.
        """
        self._check(latents, structure)
        x = self._inputs(latents, structure, structure_level).astype(self.dtype)
        content = content.astype(self.dtype)
        time = self.time_embedding(timesteps)

        def run(block, *args):
            return (jax.checkpoint(lambda *a: block(*a)) if self.remat else block)(*args)

        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            x, outputs = run(block, x, time, content)
            skips += outputs
        x = run(self.mid_block, x, time, content)
        for block in self.up_blocks:
            used = [skips.pop() for _ in range(len(block.resnets))]
            x = run(block, x, used, time, content)
            if block.upsample is not None:
                x = block.upsample(upsample_nearest(x, *skips[-1].shape[2:4]))
        x = jax.nn.silu(self.conv_norm_out(x))
        return self.conv_out(x).astype(jnp.float32)

    def _inputs(self, latents, structure, structure_level):
        """Concatenate z_t, structure and the level's embedding on channels."""
        if not self.config.structure_channels:
            return latents
        level = timestep_embedding(structure_level, self.config.structure_level_channels)
        level = jnp.broadcast_to(level[:, None, None, None], (*latents.shape[:-1], level.shape[-1]))
        return jnp.concatenate([latents, structure.astype(latents.dtype), level.astype(latents.dtype)], axis=-1)

    def _check(self, latents, structure):
        frames, config = latents.shape[1], self.config
        if frames > config.max_frames:
            raise ValueError(f"{frames} frames, but the model has {config.max_frames} frame positions (max_frames)")
        if (structure is None) != (config.structure_channels == 0):
            raise ValueError("this model needs structure" if structure is None else "this model takes no structure")
