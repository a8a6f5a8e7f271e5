"""Training of the autoencoder: pictures, and pictures of structure, come back from their latents.

pixels ──► a frame ─┐
depth ──► normalise ├─► picture ──► posterior ──► sample ──► reconstruction ──► L1, L2, gradients, KL
          ──► blur ─┘
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, Params
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, normalise_depth, structure_images
from gen1_jax.models.vae import AutoencoderKL
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.examples import pick_frames, random_index, require, split_keys
from gen1_jax.training.learned import Learned, WholeNetwork
from gen1_jax.training.losses import gradient_loss, kl_divergence
from gen1_jax.training.objective import ALONE, BatchArrays, Context

_AT_ONCE = 2**31  # chunks save memory where nothing is kept for a gradient; here they would only be slow


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """How the autoencoder is trained.

    Attributes:
        squared_weight: of the mean squared error, which is what PSNR measures.
        gradient_weight: of gradient matching between picture and reconstruction, which keeps edges sharp without a
            perceptual network; the mean absolute error has weight 1.
        gradient_scales: at how many resolutions gradients are matched.
        kl_weight: of the mean KL divergence of a latent's element from the unit Gaussian.
        structure_probability: how often an example with depth is a picture of its structure instead.
        decoder_only: leave the encoder as it is, so that latents, and every U-Net trained on them, stay valid
            (as https://huggingface.co/stabilityai/sd-vae-ft-mse was trained). Wants weight_decay 0.
    """

    squared_weight: float = 0.0
    gradient_weight: float = 0.5
    gradient_scales: int = 3
    kl_weight: float = 1e-3
    structure_probability: float = 0.5
    decoder_only: bool = False

    def __post_init__(self):
        if min(self.squared_weight, self.gradient_weight, self.kl_weight) < 0 or self.gradient_scales < 1:
            raise UserError(f"a weight or gradient_scales is out of range: {self}")
        if not 0 <= self.structure_probability <= 1:
            raise UserError(f"structure_probability is {self.structure_probability}, not in 0 ... 1")


class AutoencoderObjective:
    """Reconstruct one frame of each clip, drawn by the example's key.

    The frames of a clip are nearly one picture: more clips teach more than more frames, at the same memory.

    Args:
        config: of the family.
        settings: of the loss.
        dtype: of the computation.
    """

    component = "vae"
    learned: Learned = WholeNetwork()
    coupled = False
    frozen: tuple[str, ...] = ()

    def __init__(
        self, config: Gen1Config, settings: AutoencoderConfig = AutoencoderConfig(), *, dtype: DTypeLike = jnp.float32
    ):
        self.settings, self.quantiles = settings, config.depth_quantiles
        self.module = AutoencoderKL(config.vae, dtype=dtype, frames_per_chunk=_AT_ONCE)

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Pixels, and depth where the batch has it.

        Raises:
            ValueError: no pixels.
        """
        require(batch, "pixels")
        return {"pixels": batch.pixels} | ({} if batch.depth is None else {"depth": batch.depth})

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """The loss of each example, and:

        l1, gradient, kl: its parts, without weights.
        psnr: of the reconstruction of a picture in dB, the range of pictures being 2; NaN for structure.
        l1_structure: l1 of pictures of structure only.
        latent_std: standard deviation of the unscaled posterior mean of a picture, NaN for structure. After training,
            `VAEConfig.scaling_factor` is 1 over its average. Not with `decoder_only`, where the scale stays, too.
        """
        of_picture, of_noise = split_keys(keys, 2)
        pictures, is_structure = self._pictures(inputs, of_picture)
        network = Bound(self.module, weights)
        posterior = network.apply(weights, pictures, method="encode")
        if self.settings.decoder_only:
            posterior = jax.lax.stop_gradient(posterior)
        latents = jax.vmap(type(posterior).sample)(posterior, of_noise)
        residual = network.apply(weights, latents, method="decode") - pictures

        l1, squared = (error.mean((1, 2, 3)) for error in (jnp.abs(residual), jnp.square(residual)))
        gradient = gradient_loss(residual, self.settings.gradient_scales)
        kl = kl_divergence(*posterior)
        metrics = {
            "l1": l1,
            "gradient": gradient,
            "kl": kl,
            "psnr": jnp.where(is_structure, jnp.nan, -10 * jnp.log10(squared / 4 + 1e-10)),
            "l1_structure": jnp.where(is_structure, l1, jnp.nan),
        }
        if not self.settings.decoder_only:
            metrics["latent_std"] = jnp.where(is_structure, jnp.nan, posterior.mean.std((1, 2, 3)))
        weights = self.settings
        loss = l1 + weights.squared_weight * squared + weights.gradient_weight * gradient + weights.kl_weight * kl
        return loss, metrics

    def _pictures(self, inputs: BatchArrays, keys: Key[Array, " b"]) -> tuple[Array, Array]:
        """What is to be reconstructed, in [-1, 1] (B H W 3), and which of it is structure (B)."""
        of_frame, of_choice, of_level = split_keys(keys, 3)
        pixels = inputs["pixels"]
        index = random_index(of_frame, pixels.shape[1])
        pictures = pixels_to_images(pick_frames(pixels, index))
        is_structure = jnp.zeros(len(keys), bool)
        if "depth" in inputs:
            depth = pick_frames(normalise_depth(inputs["depth"], self.quantiles), index)
            levels = random_index(of_level, MAX_STRUCTURE_LEVEL + 1)
            chance = jax.vmap(jax.random.uniform)(of_choice)
            is_structure = chance < self.settings.structure_probability
            structure = structure_images(depth[:, None], levels)[:, 0]
            pictures = jnp.where(is_structure[:, None, None, None], structure, pictures)
        multiple = self.module.config.downscale  # the rest would not come back
        height, width = (side // multiple * multiple for side in pictures.shape[1:3])
        return pictures[:, :height, :width], is_structure
