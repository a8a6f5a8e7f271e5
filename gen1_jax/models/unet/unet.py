"""The denoiser: Stable Diffusion's U-Net, extended in time, with structure and content inputs.

    latents (b t h w 4) ───┐
    structure (b t h w 4)  ├─ concat ─► conv_in ─► down ─► middle ─► up ─► conv_out ─► v (b t h w 4)
    embedding of t_s (4) ──┘                         ▲ skips ──────────┘
    timesteps ─► sinusoid ─► MLP ─► every residual block        content (b n 768) ─► every cross-attention

Architecture: arXiv 2302.03011, section 3; the image part is the U-Net of arXiv 2112.10752. An image is a video of one
frame: temporal layers are bypassed at T = 1 and every other layer is shared. Parameter names depend on level and
block index only.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_inputs import CalledWithOneStructure, check_told
from gen1_jax.models.guidance_embedding import GuidanceEmbedding, guided_time
from gen1_jax.models.layers import Conv, upsample_nearest
from gen1_jax.models.norms import GroupNorm
from gen1_jax.models.unet.blocks import BlockInputs, UpBlock
from gen1_jax.models.unet.config import UNetConfig
from gen1_jax.models.unet.control import Injection, concatenated
from gen1_jax.models.unet.controlnet import ControlNet
from gen1_jax.models.unet.down_path import DownPath, Skips
from gen1_jax.models.unet.spatial import Content


class SpaceTimeUNet(CalledWithOneStructure, DownPath):
    """Predicts v (or epsilon, or x0: `config.prediction_type`) for every frame of a noisy latent clip.

    A `models.denoiser.Denoiser`.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own. Norms and softmax, the timestep's embedding and
            the last convolution use float32: guidance magnifies what half precision would lose there.
        remat: recompute each block's activations in the backward pass instead of keeping them.
    """

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike = jnp.float32, remat: bool = False):
        super().__init__(config, dtype=dtype, remat=remat)
        widths, skips, previous = config.block_out_channels, list(self.skip_widths), config.block_out_channels[-1]
        up = []
        for level, width in reversed(list(enumerate(widths))):
            block_skips = [skips.pop() for _ in range(config.layers_per_block + 1)]
            up.append(UpBlock(config, previous, width, block_skips, config.attention_levels[level], upsample=level > 0))
            previous = width
        self.up_blocks = nnx.List(up)

        self.conv_norm_out = GroupNorm(config.norm_num_groups, widths[0], epsilon=1e-5, silu=True)
        self.conv_out = Conv(widths[0], config.latent_channels)
        self.guidance_embedding = GuidanceEmbedding(config.timestep_features) if config.guidance_embedded else None
        self.controls = nnx.Dict({c.kind: ControlNet(config, c, dtype=dtype, remat=remat) for c in config.controls})

    def denoise(
        self, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"], conditions: Conditions, cache: Any = None
    ) -> tuple[Float[Array, "b t h w c"], Any]:
        """One evaluation of the network, down, middle and up.

        Args:
            latents: z_t. t = 1 is an image.
            timesteps: diffusion step of each clip, 0 to 999.
            conditions: content and structures of the kinds that the configuration names.
            cache: what an evaluation before left; the U-Net has no use for one and gives it back.

        Returns:
            The prediction, float32, and the cache.

        Raises:
            ValueError: more frames than frame positions, or content or structure of other kinds than the model takes.
        """
        check_told(self.config, latents.shape[1], conditions)
        content = self._content(conditions)
        injection = self.inject(latents, timesteps, conditions, content)
        time = guided_time(self.time_embedding, self.guidance_embedding, timesteps, conditions)
        given = BlockInputs(time=time, content=content, still=conditions.still)
        x, skips = self.down(latents, injection, given)
        x = self.middle(x, injection, given)
        return self.up(x, skips, given), cache

    def hint(self, pictures: Float[Array, "b t H W 3"], *, kind: str) -> Float[Array, "b t h w c"]:
        """Features of pictures of a structure that a control follows, the maps of its `Signal`: once an edit.

        Args:
            pictures: in [0, 1], of the size of the frames.
            kind: of the structure.
        """
        return self.controls[kind].hint(pictures.astype(self.dtype))

    def inject(
        self, latents: Float[Array, "b t h w c"], timesteps: Int[Array, " b"], conditions: Conditions, content: Content
    ) -> Injection:
        """What the structures add: channels, and the sum of the controls that have a signal.

        Controls have no layers between frames: of the null content, they give the image model what they give mu.
        """
        injection = concatenated(self.config, conditions, latents, timesteps)
        for kind, control in self.controls.items():
            if kind in conditions.structure:
                told = latents, timesteps, conditions.structure[kind], content
                injection += conditions.once(control, *told)
        return injection

    def down(
        self, latents: Float[Array, "b t h w c"], injection: Injection, given: BlockInputs
    ) -> tuple[Float[Array, "b t i j d"], Skips]:
        """From latents to the coarsest level, and the skip connections on the way, the injection's added."""
        channels = [latents] if injection.first is None else [latents, injection.first.astype(latents.dtype)]
        x = jnp.concatenate(channels, axis=-1).astype(self.dtype)
        x, skips = self.descend(self.conv_in(x, self.config.rows(injection.given)), given)
        if injection.skips:
            skips = [skip + add.astype(skip.dtype) for skip, add in zip(skips, injection.skips, strict=True)]
        return x, skips

    def middle(
        self, x: Float[Array, "b t i j d"], injection: Injection, given: BlockInputs
    ) -> Float[Array, "b t i j d"]:
        """The coarsest level, the injection's term added."""
        x = self._run(self.mid_block, x, given)
        return x if injection.middle is None else x + injection.middle.astype(x.dtype)

    def up(self, x: Float[Array, "b t i j d"], skips: Skips, given: BlockInputs) -> Float[Array, "b t h w c"]:
        """From the coarsest level to the prediction, float32."""
        skips = list(skips)
        for block in self.up_blocks:
            used = [skips.pop() for _ in range(len(block.resnets))]
            x = self._run(block, x, used, given)
            if block.upsample is not None:
                x = block.upsample(upsample_nearest(x, *skips[-1].shape[2:4]))
        return self.conv_out(self.conv_norm_out(x.astype(jnp.float32)))

    def _content(self, conditions: Conditions) -> Content:
        """What cross-attention reads: the main kind, and a picture beside it if the model has an adapter for one."""
        tokens = conditions.content[self.config.content_kind].astype(self.dtype)
        image = conditions.content.get("image") if self.config.image_adapter else None
        if image is None:
            return Content(tokens=tokens)
        weight = conditions.strength.get("image", jnp.ones(len(image), jnp.float32))
        return Content(tokens=tokens, image=image.astype(self.dtype), weight=weight)
