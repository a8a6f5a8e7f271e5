"""DPT: inverse depth of single images, from a plain vision transformer (DPT-Large, the network of MiDaS 3).

    pixels ─► patches + class token ─► layers ┬──────┬──────┬──────┐   (tokens after `backbone_out_indices`)
                                         reassemble at 4, 2, 1, 1/2 times the patch grid
                                              ▼      ▼      ▼      ▼
           inverse depth ◄─ head ◄─ fusion ◄─ fusion ◄─ fusion ◄─ fusion

Source: https://arxiv.org/abs/2103.13413; parameters and arithmetic as in transformers' DPTForDepthEstimation.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.errors import UserError
from gen1_jax.models.chunks import in_chunks
from gen1_jax.models.depth_layers import DepthHead, Fusion, PatchTokens, Reassemble
from gen1_jax.models.transformer import TransformerLayer


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPTConfig:
    """Shape of a `DPTDepth`. The defaults are Intel/dpt-large's; names are transformers'.

    Attributes:
        image_size: side in pixels of the square images that the position embeddings are for.
        patch_size: side of a patch in pixels.
        hidden_size: width of the backbone's tokens.
        num_hidden_layers: layers of the backbone.
        num_attention_heads: heads of each layer.
        intermediate_size: width inside each layer's MLP.
        layer_norm_eps: of the backbone's norms.
        qkv_bias: biases on query, key and value.
        backbone_out_indices: layers whose output is reassembled, ascending.
        reassemble_factors: resolution of each map relative to the patch grid, halving from patch_size / 4 on.
        neck_hidden_sizes: width of each map.
        fusion_hidden_size: width of the fusion.
    """

    image_size: int = 384
    patch_size: int = 16
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    backbone_out_indices: tuple[int, ...] = (5, 11, 17, 23)
    reassemble_factors: tuple[int | float, ...] = (4, 2, 1, 0.5)
    neck_hidden_sizes: tuple[int, ...] = (256, 512, 1024, 1024)
    fusion_hidden_size: int = 256

    def __post_init__(self):
        if self.image_size % self.patch_size:
            raise UserError(f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )
        maps = len(self.backbone_out_indices)
        if not maps == len(self.reassemble_factors) == len(self.neck_hidden_sizes):
            raise UserError("backbone_out_indices, reassemble_factors, neck_hidden_sizes differ in length")
        steps = itertools.pairwise((-1, *self.backbone_out_indices, self.num_hidden_layers))
        if any(low >= high for low, high in steps):
            raise UserError(
                f"backbone_out_indices {self.backbone_out_indices} do not ascend within {self.num_hidden_layers} layers"
            )
        halving = tuple(self.patch_size / 2 ** (2 + i) for i in range(maps))
        if self.reassemble_factors != halving:  # else the output would not have the image's resolution
            raise UserError(
                f"reassemble_factors are {self.reassemble_factors}, not {halving} (for patch_size {self.patch_size})"
            )
        if any(factor > 1 and factor != int(factor) for factor in self.reassemble_factors):
            raise UserError(f"reassemble_factors {self.reassemble_factors}: those above 1 must be whole")

    @property
    def size_multiple(self) -> int:
        """Height and width of an image are multiples of this, so that the maps of all resolutions meet."""
        return round(self.patch_size / min(1, self.reassemble_factors[-1]))

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which an image of any size is looked at: one side near `image_size`, the aspect ratio kept.

        Of the two sides, the one that then changes least is brought to `image_size`; both are rounded to
        `size_multiple`. The rule of https://github.com/isl-org/MiDaS ("minimal").
        """
        scale = min(self.image_size / height, self.image_size / width, key=lambda s: abs(1 - s))
        multiple = self.size_multiple
        height, width = (max(1, round(scale * side / multiple)) * multiple for side in (height, width))
        return height, width


class DPTDepth(nnx.Module):
    """Inverse depth up to an unknown scale and shift per image; near is large (MiDaS polarity).

    Args:
        config: the shape of the network.
        dtype: dtype of the computation; parameters keep their own, norms and softmax use float32.
    """

    def __init__(self, config: DPTConfig, *, dtype: DTypeLike = jnp.float32):
        self.config, self.dtype = config, jnp.dtype(dtype)
        self.embeddings = PatchTokens(config)
        self.layers = nnx.List(
            [
                TransformerLayer(
                    config.hidden_size,
                    config.num_attention_heads,
                    config.intermediate_size,
                    epsilon=config.layer_norm_eps,
                    qkv_bias=config.qkv_bias,
                )
                for _ in range(config.num_hidden_layers)
            ]
        )
        maps = zip(config.neck_hidden_sizes, config.reassemble_factors, strict=True)
        self.reassemble = nnx.List([Reassemble(config, channels, factor) for channels, factor in maps])
        self.fusion = nnx.List(  # coarsest first
            [Fusion(config.fusion_hidden_size, coarsest=i == 0) for i in range(len(self.reassemble))]
        )
        self.head = DepthHead(config.fusion_hidden_size)

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b h w"]:
        """Inverse depth of images at the network's own resolution.

        Args:
            pixels: RGB in [-1, 1]; h and w multiples of `config.size_multiple`, best near `config.image_size`.

        Returns:
            Inverse depth, at least 0, float32.

        Raises:
            ValueError: h or w is not such a multiple.
        """
        _, height, width, _ = pixels.shape
        multiple, patch = self.config.size_multiple, self.config.patch_size
        if height % multiple or width % multiple:
            raise UserError(f"images of {height}x{width}: both must be multiples of {multiple} (or use estimate)")
        tokens, maps = self.embeddings(pixels.astype(self.dtype)), []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index in self.config.backbone_out_indices:
                reassemble = self.reassemble[len(maps)]
                maps.append(reassemble(tokens, (height // patch, width // patch)))
        x = None
        for fuse, features in zip(self.fusion, reversed(maps), strict=True):
            x = fuse(features, x)
        return self.head(x)

    def estimate(self, images: Float[Array, "b h w 3"], *, frames_per_chunk: int = 4) -> Float[Array, "b h w"]:
        """Inverse depth of images of any size, such as the frames of a video.

        Images are resampled to `config.working_size` (antialiased bicubic, as MiDaS) and the result back
        (bilinear, which adds no ringing at the edges of objects).

        Args:
            images: RGB in [-1, 1].
            frames_per_chunk: images evaluated together; beside the result, memory grows with this, not with b.

        Returns:
            Inverse depth, at least 0, float32.

        Raises:
            ValueError: frames_per_chunk is less than 1.
        """
        _, height, width, _ = images.shape
        size = self.config.working_size(height, width)

        def estimate_chunk(x):
            x = jnp.clip(jax.image.resize(x, (len(x), *size, 3), "cubic"), -1, 1)
            return jax.image.resize(self(x), (len(x), height, width), "linear")

        return in_chunks(estimate_chunk, images, frames_per_chunk)
