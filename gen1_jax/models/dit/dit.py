"""A denoiser of transformer blocks over patches of space and time, in the place of the U-Net.

    latents (b t h w 4) ───┐
    structure (b t h w 4)  ├─ concat ─► conv_in, patches ─► blocks ─► norm · scale + shift ─► linear ─► v (b t h w 4)
    embedding of t_s (4) ──┘                                  ▲
    timesteps ─► sinusoid ─► MLP ─► shifts, scales, gates ────┤
    content (b n d) ─► cross-attention ───────────────────────┘

A diffusion transformer (https://arxiv.org/abs/2212.09748) with factorised (https://arxiv.org/abs/2401.03048) or full
attention over time. An image is a video of one frame: with factorised attention the blocks between frames are bypassed
at T = 1, with full attention each frame sees itself alone; in this way the image model of the paper's equation 10
(arXiv 2302.03011) is defined.
"""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.errors import UserError
from gen1_jax.models.alike import Alike
from gen1_jax.models.attended import attending
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_inputs import CalledWithOneStructure, check_told, input_channels
from gen1_jax.models.dit.attention import NormalisedAttention, between_frames, everywhere, within_frames
from gen1_jax.models.dit.blocks import Attend, Block, Modulation, Stack, modulated
from gen1_jax.models.dit.config import DiTConfig
from gen1_jax.models.dit.rotary import pairs_of_all_axes
from gen1_jax.models.guidance_embedding import GuidanceEmbedding, guided_time
from gen1_jax.models.layers import ZEROS, Conv, Linear, TimestepMLP
from gen1_jax.models.over_time import Video, over_time


class SpaceTimeDiT(CalledWithOneStructure, nnx.Module):
    """Predicts v (or epsilon, or x0: `config.prediction_type`) for every frame of a noisy latent clip; at first zeros.

    A `models.denoiser.Denoiser`.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own. Norms and softmax, the timestep's embedding with
            what it scales, shifts and gates, and the last layer use float32.
        remat: recompute each block's activations in the backward pass instead of keeping them.
    """

    def __init__(self, config: DiTConfig, *, dtype: DTypeLike = jnp.float32, remat: bool = False):
        self.config, self.dtype, self.remat = config, dtype, remat
        width, patch = config.width, config.patch_size
        self.conv_in = Conv(config.in_channels, width, patch, stride=patch, padding=0)
        self.time_embedding = TimestepMLP(config.timestep_features, width)
        self.guidance_embedding = GuidanceEmbedding(config.timestep_features) if config.guidance_embedded else None
        self.layers = Stack(config, reads_content=True)
        self.temporal = Stack(config, reads_content=False) if config.attention == "factorised" else None
        self.modulation_out = Modulation(width, 2)
        self.linear_out = Linear(width, patch * patch * config.latent_channels, init=ZEROS)

    def denoise(
        self, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"], conditions: Conditions, cache=None
    ) -> tuple[Float[Array, "b t h w c"], None]:
        """One evaluation of the network.

        Args:
            latents: z_t. t = 1 is an image.
            timesteps: diffusion step of each clip, 0 to 999.
            conditions: content and structures of the kinds that the configuration names.
            cache: what an evaluation before left; there is no use for one, and it is given back.

        Returns:
            The prediction, float32, and the cache.

        Raises:
            ValueError: more frames than `max_frames`, a size that patches do not divide, or content or structure of
                other kinds than the model takes.
        """
        self._check(latents, conditions)
        channels, given = input_channels(self.config, conditions, latents, timesteps)
        x = latents if channels is None else jnp.concatenate([latents, channels], axis=-1)
        x = self.conv_in(x.astype(self.dtype), self.config.rows(given))
        time = guided_time(self.time_embedding, self.guidance_embedding, timesteps, conditions)
        tokens = conditions.content[self.config.content_kind].astype(self.dtype)
        x = self._blocks(x, time, tokens, conditions.still)
        shift, scale = jnp.unstack(self.modulation_out(time), axis=1)
        y = self.linear_out(modulated(x.astype(jnp.float32), shift, scale))
        side = self.config.patch_size
        return rearrange(y, "b t h w (p q c) -> b t (h p) (w q) c", p=side, q=side), cache

    def _blocks(
        self, x: Video, time: Float[Array, "b e"], tokens: Float[Array, "b n d"], still: tuple[bool, ...]
    ) -> Video:
        """Those within frames and those between them in turn, or all of one sort."""
        head, alike = self.config.head_size, Alike()
        if self.temporal is None:
            pairs = pairs_of_all_axes(head)
            attend = partial(_everywhere_in_videos, pairs=pairs, still=still)
        else:
            attend = partial(within_frames, pairs=(0, head // 4, head // 4))
        told = (time, tokens, self.layers.shared(time))
        between = () if self.temporal is None else self.temporal.blocks
        told_between = None if self.temporal is None else (time, tokens, self.temporal.shared(time))
        attend_between = partial(between_frames, pairs=(head // 2, 0, 0))
        for index, block in enumerate(self.layers.blocks):
            x = self._run(alike, block, attend)(x, *told)
            if between:
                x = over_time(self._run(alike, between[index], attend_between), x, still, *told_between)
        return x

    def _run(self, alike: Alike, block: Block, attend: Attend):
        run = partial(alike, block, attend=attend)
        return jax.checkpoint(run) if self.remat else run

    def _check(self, latents: Array, conditions: Conditions) -> None:
        check_told(self.config, latents.shape[1], conditions)
        height, width, side = *latents.shape[2:4], self.config.patch_size
        if height % side or width % side:
            raise UserError(f"latents of {width}x{height} are not whole patches of {side}x{side} (patch_size)")
        if attending() is not None:
            raise UserError("attention of a U-Net alone can be directed to other frames, and this model is a dit")


def _everywhere_in_videos(layer: NormalisedAttention, x: Video, *, pairs, still) -> Video:
    """Positions of all frames see each other in videos, those of a frame in pictures."""
    pictures = partial(within_frames, layer, pairs=pairs)
    return over_time(partial(everywhere, layer, pairs=pairs), x, still, pictures=pictures)
