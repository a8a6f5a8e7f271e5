"""CLIP's image tower by itself, as IP-Adapters look at pictures with it: OpenCLIP's ViT-H/14."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from gen1_jax.errors import UserError
from gen1_jax.models.clip import CLIPVisionConfig, VisionTower, preprocess
from gen1_jax.models.layers import Linear


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig(CLIPVisionConfig):
    """Shape of an `ImageEncoder`. The defaults are ViT-H/14's.

    Attributes:
        projection_dim: width of the embedding of a picture.
    """

    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 32
    num_attention_heads: int = 16
    hidden_act: str = "gelu"
    projection_dim: int = 1024

    @property
    def tokens(self) -> int:
        """The class token and one for each patch."""
        return 1 + (self.image_size // self.patch_size) ** 2


class ImageEncoder(nnx.Module):
    """Pixels to an embedding of the picture, or to the states of its patches (CLIPVisionModelWithProjection).

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
    """

    def __init__(self, config: ImageEncoderConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.vision = VisionTower(config)
        self.visual_projection = Linear(config.hidden_size, config.projection_dim, bias=False)

    def embed(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b p"]:
        """The projected state of the class token of each picture, float32, not normalised.

        Args:
            pixels: what `preprocess` returns.

        Raises:
            ValueError: pixels of another size than `config.image_size`.
        """
        return self.visual_projection(self.vision(self._checked(pixels))).astype(jnp.float32)

    def states(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b n c"]:
        """The states of all tokens before the last layer, float32: transformers' hidden_states[-2], not normed.

        Arguments and errors of `embed`.
        """
        return self.vision.states(self._checked(pixels), skipped=1).astype(jnp.float32)

    def preprocess(self, images: UInt8[Array, "b h w 3"] | Float[Array, "b h w 3"]) -> Float[Array, "b s s 3"]:
        """Pictures as the pixels that `embed` and `states` take: see `models.clip.preprocess`."""
        return preprocess(images, self.config.image_size)

    def _checked(self, pixels: Array) -> Array:
        size = self.config.image_size
        if pixels.shape[1:3] != (size, size):
            raise UserError(f"pixels of {pixels.shape[1]}x{pixels.shape[2]}, but this model takes {size}x{size}")
        return pixels.astype(self.dtype)
