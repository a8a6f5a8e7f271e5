"""CLIP: a picture and a text as vectors of one space (arXiv 2103.00020), in transformers' variant of it.

pixels (b s s 3) ─► patches ─► class token + positions ─► transformer ─► class token ─► projection ─► (b p)
token ids (b s) ─► embeddings + positions ─► causal transformer ─► token at the end of text ─► projection ─► (b p)
"""

import dataclasses
import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from gen1_jax.errors import UserError
from gen1_jax.models.layers import EMBEDDING, Conv, Embedding, Linear, parameter
from gen1_jax.models.norms import LayerNorm
from gen1_jax.models.transformer import ACTIVATIONS, TransformerLayer

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of CLIP's training pictures, per channel in [0, 1]."""


def _logit_scale(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    return np.full(shape, math.log(1 / 0.07), np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Shape of a tower's transformer.

    Attributes:
        hidden_size: width of a token.
        intermediate_size: width inside the feed-forward.
        num_hidden_layers: transformer blocks.
        num_attention_heads: heads of every attention.
        hidden_act: "quick_gelu" (OpenAI's models) or "gelu".
        layer_norm_eps: epsilon of every layer normalisation.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self):
        if self.hidden_act not in ACTIVATIONS:
            raise UserError(f"hidden_act is {self.hidden_act!r}, not one of {', '.join(ACTIVATIONS)}")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads, {self.num_attention_heads}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(TowerConfig):
    """The text tower. The defaults are ViT-L/14's.

    Attributes:
        vocab_size: number of token ids.
        max_position_embeddings: the longest text, in tokens.
        eos_token_id: the id whose first place is the text's summary; 2 stands for the largest id, whatever it is
            (transformers' rule: configurations of before July 2023 hold a 2 that was never right).
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(TowerConfig):
    """The image tower. The defaults are ViT-L/14's.

    Attributes:
        image_size: height and width of the pixels it takes.
        patch_size: height and width of a patch, one token each.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """Both towers and the width of the space that they share. The defaults are ViT-L/14's."""

    text: CLIPTextConfig = CLIPTextConfig()
    vision: CLIPVisionConfig = CLIPVisionConfig()
    projection_dim: int = 768


class CLIPModel(nnx.Module):
    """Embeds pictures and texts. Embeddings are projected but not normalised: a cosine needs their norms divided out.

    No method uses the parameter `logit_scale`, the logarithm of what CLIP's contrastive loss multiplies cosines by.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
    """

    def __init__(self, config: CLIPConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.text, self.vision = TextTower(config.text), VisionTower(config.vision)
        self.text_projection = Linear(config.text.hidden_size, config.projection_dim, bias=False)
        self.visual_projection = Linear(config.vision.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = parameter((), _logit_scale)

    def encode_image(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b p"]:
        """The embedding of each picture, float32.

        Args:
            pixels: what `preprocess` returns.

        Raises:
            ValueError: pixels of another size than `config.vision.image_size`.
        """
        size = self.config.vision.image_size
        if pixels.shape[1:3] != (size, size):
            raise UserError(f"pixels of {pixels.shape[1]}x{pixels.shape[2]}, but this model takes {size}x{size}")
        summary = self.vision(pixels.astype(self.dtype))
        return self.visual_projection(summary).astype(jnp.float32)

    def encode_text(self, token_ids: Int[Array, "b s"]) -> Float[Array, "b p"]:
        """The embedding of each text, float32; arguments and errors of `encode_text_tokens`."""
        return self.encode_text_tokens(token_ids)[0]

    def encode_text_tokens(self, token_ids: Int[Array, "b s"]) -> tuple[Float[Array, "b p"], Float[Array, "b s c"]]:
        """The embedding of each text, and every token's state after the last norm (what the prior reads).

        Args:
            token_ids: start, text, end of text, padding. Attention is causal, so what follows the end of text
                changes neither the embedding nor the states before it.

        Raises:
            ValueError: more tokens than `config.text.max_position_embeddings`.
        """
        config = self.config.text
        states = self.text(token_ids, self.dtype)
        if config.eos_token_id == 2:
            end = jnp.argmax(token_ids, axis=-1)
        else:
            end = jnp.argmax(token_ids == config.eos_token_id, axis=-1)
        summary = states[jnp.arange(states.shape[0]), end]
        return self.text_projection(summary).astype(jnp.float32), states.astype(jnp.float32)

    def preprocess(self, images: UInt8[Array, "b h w 3"] | Float[Array, "b h w 3"]) -> Float[Array, "b s s 3"]:
        """Pictures as the pixels that `encode_image` takes; see the function `preprocess`."""
        return preprocess(images, self.config.vision.image_size)


class TextTower(nnx.Module):
    """Token ids to states: a causal transformer.

    Called with `skipped`, it leaves out that many of its last layers.
    """

    def __init__(self, config: CLIPTextConfig):
        self.token_embedding = Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = _layers(config)
        self.final_norm = LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)

    def __call__(self, token_ids: Int[Array, "b s"], dtype: DTypeLike, skipped: int = 0) -> Float[Array, "b s c"]:
        tokens, longest = token_ids.shape[1], self.position_embedding.embedding.shape[0]
        if tokens > longest:
            raise UserError(f"{tokens} tokens, but this model has {longest} positions (max_position_embeddings)")
        positions = self.position_embedding(jnp.arange(tokens))
        x = (self.token_embedding(token_ids) + positions).astype(dtype)
        for layer in itertools.islice(self.layers, len(self.layers) - skipped):
            x = layer(x, is_causal=True)
        return self.final_norm(x)


class TextEncoder(TextTower):
    """A text tower by itself: what Stable Diffusion reads prompts with. Nothing is projected.

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
    """

    def __init__(self, config: CLIPTextConfig, *, dtype: DTypeLike = jnp.float32):
        super().__init__(config)
        self.config, self.dtype = config, jnp.dtype(dtype)

    def states(self, token_ids: Int[Array, "b s"], *, clip_skip: int = 1) -> Float[Array, "b s c"]:
        """The state of every token after the last norm, float32.

        Args:
            token_ids: start, text, end of text, padding by the end of text, which is read as well.
            clip_skip: 1 reads the last layer, 2 the one before, and so on, as Civitai and A1111 count (diffusers'
                `clip_skip` is one less). The last norm follows in any case.

        Raises:
            ValueError: more tokens than `config.max_position_embeddings`, or layers than there are.
        """
        if not 1 <= clip_skip <= self.config.num_hidden_layers:
            raise UserError(
                f"clip_skip is {clip_skip}, not in 1 ... {self.config.num_hidden_layers}, the text's layers"
            )
        return self(token_ids, self.dtype, clip_skip - 1).astype(jnp.float32)


class VisionTower(nnx.Module):
    """Pixels to the state of the class token: a vision transformer (arXiv 2010.11929)."""

    def __init__(self, config: CLIPVisionConfig):
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = parameter((width,), EMBEDDING)
        self.patch_embedding = Conv(3, width, patch, stride=patch, padding=0, bias=False)
        self.position_embedding = Embedding((config.image_size // patch) ** 2 + 1, width)
        self.pre_norm = LayerNorm(width, epsilon=config.layer_norm_eps)
        self.layers = _layers(config)
        self.post_norm = LayerNorm(width, epsilon=config.layer_norm_eps)

    def __call__(self, pixels: Float[Array, "b s s 3"]) -> Float[Array, "b c"]:
        return self.post_norm(self.states(pixels)[:, 0])

    def states(self, pixels: Float[Array, "b s s 3"], skipped: int = 0) -> Float[Array, "b n c"]:
        """Of the class token and then of every patch, before the last norm; without the last `skipped` layers."""
        patches = self.patch_embedding(pixels)
        batch, rows, columns, width = patches.shape
        first = jnp.broadcast_to(self.class_embedding[...].astype(pixels.dtype), (batch, 1, width))
        x = jnp.concatenate([first, patches.reshape(batch, rows * columns, width)], axis=1)
        x = self.pre_norm(x + self.position_embedding.embedding[...].astype(x.dtype))
        for layer in itertools.islice(self.layers, len(self.layers) - skipped):
            x = layer(x)
        return x


def _layers(config: TowerConfig) -> nnx.List:
    layer = partial(
        TransformerLayer,
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        epsilon=config.layer_norm_eps,
        activation=config.hidden_act,
    )
    return nnx.List([layer() for _ in range(config.num_hidden_layers)])


def preprocess(images: UInt8[Array, "b h w 3"] | Float[Array, "b h w 3"], image_size: int) -> Float[Array, "b s s 3"]:
    """Pictures of any size as CLIP's pixels, float32: the centre square at `image_size`, standardised.

    The shorter side is resized to `image_size` with PIL's antialiased bicubic filter, the longer one in proportion,
    then the centre is cut out: transformers' CLIPImageProcessor. As PIL does for all but very narrow pictures, the
    width goes first and each pass is rounded to 8 bits, so there is no gradient through this.

    Args:
        images: uint8, or floating point in [-1, 1].
        image_size: height and width of the result.
    """
    x = images.astype(jnp.float32)
    if images.dtype != jnp.uint8:
        x = _to_8_bits((x + 1) * 127.5)
    batch, height, width, channels = x.shape
    shorter = min(height, width)
    rows, columns = image_size * height // shorter, image_size * width // shorter
    x = _to_8_bits(jax.image.resize(x, (batch, height, columns, channels), "cubic"))
    x = _to_8_bits(jax.image.resize(x, (batch, rows, columns, channels), "cubic"))
    top, left = (rows - image_size) // 2, (columns - image_size) // 2
    x = x[:, top : top + image_size, left : left + image_size]
    return (x / 255 - jnp.array(MEAN)) / jnp.array(STD)


def _to_8_bits(x: Array) -> Array:
    return jnp.clip(jnp.round(x), 0, 255)
