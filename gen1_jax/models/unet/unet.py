"""The denoiser: Stable Diffusion's U-Net, extended in time, with structure and content inputs.

    latents (b t h w 4) ───┐
    structure (b t h w 4)  ├─ concat ─► conv_in ─► down ─► middle ─► up ─► conv_out ─► v (b t h w 4)
    embedding of t_s (4) ──┘                         ▲ skips ──────────┘
    timesteps ─► sinusoid ─► MLP ─► every residual block        content (b n 768) ─► every cross-attention

Deep features change slowly from one step of a sampler to the next (DeepCache, https://arxiv.org/abs/2312.00858): with
those that entered the last block of the way up at a step before, the finest level alone is evaluated.

Architecture: arXiv 2302.03011, section 3; the image part is the U-Net of arXiv 2112.10752. An image is a video of one
frame: temporal layers are bypassed at T = 1 and every other layer is shared. Parameter names depend on level and
block index only.
"""

from functools import partial

import jax
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
        self,
        latents: Float[Array, "b t h w c"],
        timesteps: Int[Array, " b"],
        conditions: Conditions,
        cache: Float[Array, "b t h w d"] | None = None,
    ) -> tuple[Float[Array, "b t h w c"], Float[Array, "b t h w d"]]:
        """One evaluation of the network, down, middle and up; with a cache of its finest level alone.

        Args:
            latents: z_t. t = 1 is an image.
            timesteps: diffusion step of each clip, 0 to 999.
            conditions: content and structures of the kinds that the configuration names.
            cache: deep features that an evaluation before left, of as many clips of the same size, see
                `deep_features`; None to evaluate everything. With one, of a control, too, no more is evaluated than
                the skip connections of the finest level.

        Returns:
            The prediction, float32, and the deep features: those given, or else its own.

        Raises:
            ValueError: more frames than frame positions, or content or structure of other kinds than the model takes.
        """
        check_told(self.config, latents.shape[1], conditions)
        content = self._content(conditions)
        injection = self.inject(latents, timesteps, conditions, content, finest=cache is not None)
        time = guided_time(self.time_embedding, self.guidance_embedding, timesteps, conditions)
        given = BlockInputs(time=time, content=content, still=conditions.still)
        x = self.first(latents, injection)
        if cache is None:
            x, skips = self.down(x, injection, given)
            cache = self.up(self.middle(x, injection, given), skips, given)
        else:
            skips = _added(self.finest(x, given), injection)
        return self.last(cache, skips, given), cache

    def deep_features(self, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
        """Shape and type of the cache that an evaluation leaves.

        Args:
            shape: (B, T, h, w, C) of the latents.
        """
        return jax.ShapeDtypeStruct((*shape[:4], self.config.block_out_channels[1]), self.dtype)

    def hint(self, pictures: Float[Array, "b t H W 3"], *, kind: str) -> Float[Array, "b t h w c"]:
        """Features of pictures of a structure that a control follows, the maps of its `Signal`: once an edit.

        Args:
            pictures: in [0, 1], of the size of the frames.
            kind: of the structure.
        """
        return self.controls[kind].hint(pictures.astype(self.dtype))

    def inject(
        self,
        latents: Float[Array, "b t h w c"],
        timesteps: Int[Array, " b"],
        conditions: Conditions,
        content: Content,
        *,
        finest: bool = False,
    ) -> Injection:
        """What the structures add: channels, and the sum of the controls that have a signal.

        Controls have no layers between frames: of the null content, they give the image model what they give mu.
        With `finest` they are evaluated as far as the finest level needs.
        """
        injection = concatenated(self.config, conditions, latents, timesteps)
        for kind, control in self.controls.items():
            if kind in conditions.structure:
                told = latents, timesteps, conditions.structure[kind], content
                injection += conditions.once(partial(control, finest=finest), *told)
        return injection

    def first(self, latents: Float[Array, "b t h w c"], injection: Injection) -> Float[Array, "b t h w d"]:
        """Of latents and the injection's channels, what `conv_in` gives."""
        channels = [latents] if injection.first is None else [latents, injection.first.astype(latents.dtype)]
        x = jnp.concatenate(channels, axis=-1).astype(self.dtype)
        return self.conv_in(x, self.config.rows(injection.given))

    def down(
        self, x: Float[Array, "b t h w d"], injection: Injection, given: BlockInputs
    ) -> tuple[Float[Array, "b t i j e"], Skips]:
        """To the coarsest level, and the skip connections on the way, the injection's added."""
        x, skips = self.descend(x, given)
        return x, _added(skips, injection)

    def middle(
        self, x: Float[Array, "b t i j d"], injection: Injection, given: BlockInputs
    ) -> Float[Array, "b t i j d"]:
        """The coarsest level, the injection's term added."""
        x = self._run(self.mid_block, x, given)
        return x if injection.middle is None else x + injection.middle.astype(x.dtype)

    def up(self, x: Float[Array, "b t i j d"], skips: Skips, given: BlockInputs) -> Float[Array, "b t h w e"]:
        """From the coarsest level to what enters the finest block on the way up, the deep features."""
        skips = list(skips)
        for block in list(self.up_blocks)[:-1]:
            used = [skips.pop() for _ in range(len(block.resnets))]
            x = self._run(block, x, used, given)
            x = block.upsample(upsample_nearest(x, *skips[-1].shape[2:4]))
        return x

    def last(self, x: Float[Array, "b t h w d"], skips: Skips, given: BlockInputs) -> Float[Array, "b t h w c"]:
        """From deep features and the finest level's skip connections, the first ones, to the prediction, float32."""
        block = self.up_blocks[-1]
        x = self._run(block, x, skips[: len(block.resnets)][::-1], given)
        return self.conv_out(self.conv_norm_out(x.astype(jnp.float32)))

    def _content(self, conditions: Conditions) -> Content:
        """What cross-attention reads: the main kind, and a picture beside it if the model has an adapter for one."""
        tokens = conditions.content[self.config.content_kind].astype(self.dtype)
        image = conditions.content.get("image") if self.config.image_adapter else None
        if image is None:
            return Content(tokens=tokens)
        weight = conditions.strength.get("image", jnp.ones(len(image), jnp.float32))
        return Content(tokens=tokens, image=image.astype(self.dtype), weight=weight)


def _added(skips: Skips, injection: Injection) -> Skips:
    """Skip connections, with the injection's terms if it has some."""
    if not injection.skips:
        return skips
    return [skip + add.astype(skip.dtype) for skip, add in zip(skips, injection.skips, strict=True)]
