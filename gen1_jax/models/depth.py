"""DPT: inverse depth of single images, from a plain vision transformer (DPT-Large, the network of MiDaS 3).

    pixels ─► patches + class token ─► layers ┬──────┬──────┬──────┐   (tokens after `backbone_out_indices`)
                                         reassemble at 4, 2, 1, 1/2 times the patch grid
                                              │      │   (time) (time)
                                              ▼      ▼      ▼      ▼
           inverse depth ◄─ head ◄─ fusion ◄─ fusion ◄─ fusion ◄─ fusion
                                            (time)   (time)

Of the kind "depth_anything" it is Depth Anything V2, and with layers between frames at the four places marked it is
Video Depth Anything. Pictures, and clips whose frames are seen alone, pass those layers by.

Sources: https://arxiv.org/abs/2103.13413, parameters and arithmetic as in transformers' DPTForDepthEstimation;
https://arxiv.org/abs/2406.09414, as DepthAnythingForDepthEstimation; https://arxiv.org/abs/2501.12375.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from gen1_jax.errors import UserError
from gen1_jax.models.chunks import in_chunks
from gen1_jax.models.denoiser_config import LATER
from gen1_jax.models.depth_layers import DepthHead, Fusion, PatchTokens, Reassemble
from gen1_jax.models.norms import LayerNorm
from gen1_jax.models.transformer import TransformerLayer
from gen1_jax.models.unet.temporal import MotionModule

Maps = tuple[Array, ...]
"""Feature maps (b, i, j, c) of several resolutions, finest first."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, which DINOv2 was trained on
_WIDEST = 1.78  # longer pictures are looked at smaller, as Video Depth Anything does for want of memory
_SQUARE = 1.777


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
        kind: "dpt", or "depth_anything", whose backbone is DINOv2: its layers have scales, one norm reads out all of
            them, maps do without the class token, positions are resampled by bicubic, pixels normalised as ImageNet's,
            and pictures are looked at so large that their shorter side is `image_size`.
        position_offset: of "depth_anything", see `bicubic_matrix`.
        temporal_frames: frames that layers between frames see at once, the window of longer clips; 0: no such layers.
        temporal_heads: heads of their attentions.
        temporal_norm_groups: of their group normalisations.
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
    kind: Literal["dpt", "depth_anything"] = dataclasses.field(default="dpt", metadata=LATER)
    position_offset: float = dataclasses.field(default=0.0, metadata=LATER)
    temporal_frames: int = dataclasses.field(default=0, metadata=LATER)
    temporal_heads: int = dataclasses.field(default=8, metadata=LATER)
    temporal_norm_groups: int = dataclasses.field(default=32, metadata=LATER)

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
        # Else the maps would not meet, and of "dpt" the output would not have the image's resolution.
        first = self.patch_size / 4 if self.kind == "dpt" else self.reassemble_factors[0]
        halving = tuple(first / 2**i for i in range(maps))
        if self.reassemble_factors != halving:
            raise UserError(
                f"reassemble_factors are {self.reassemble_factors}, not {halving} (for patch_size {self.patch_size})"
            )
        if any(factor > 1 and factor != int(factor) for factor in self.reassemble_factors):
            raise UserError(f"reassemble_factors {self.reassemble_factors}: those above 1 must be whole")
        if self.temporal_frames:
            self._check_temporal()

    def _check_temporal(self) -> None:
        if len(self.neck_hidden_sizes) < 2 or self.temporal_frames < 4:
            raise UserError("layers between frames need two maps at least, and temporal_frames of 4")
        for channels in self.temporal_channels:
            for name in ("temporal_heads", "temporal_norm_groups"):
                if channels % getattr(self, name):
                    raise UserError(f"{name} is {getattr(self, name)}, no divisor of {channels}, a width of the maps")

    @property
    def temporal_channels(self) -> tuple[int, ...]:
        """Widths where layers between frames stand: the two coarsest maps, finer one first, and two fusions."""
        return (*self.neck_hidden_sizes[-2:], self.fusion_hidden_size, self.fusion_hidden_size)

    @property
    def size_multiple(self) -> int:
        """Height and width of an image are multiples of this, so that the maps of all resolutions meet."""
        if self.kind == "depth_anything":  # fusions bring maps to each other's sizes
            return self.patch_size
        return round(self.patch_size / min(1, self.reassemble_factors[-1]))

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which an image of any size is looked at: one side near `image_size`, the aspect ratio kept.

        Of the two sides, the one that then changes least is brought to `image_size`; both are rounded to
        `size_multiple`. The rule of https://github.com/isl-org/MiDaS ("minimal"). Of "depth_anything" the shorter
        side is brought there, as in https://github.com/DepthAnything/Video-Depth-Anything ("lower_bound").
        """
        multiple = self.size_multiple
        if self.kind == "depth_anything":
            ratio, side = max(height, width) / min(height, width), self.image_size
            if ratio > _WIDEST:
                side = max(1, round(int(side * _SQUARE / ratio) / multiple)) * multiple
            scale = side / min(height, width)
            near = lambda size: max(round(scale * size / multiple) * multiple, -(-side // multiple) * multiple)
            return near(height), near(width)
        scale = min(self.image_size / height, self.image_size / width, key=lambda s: abs(1 - s))
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
                    layer_scale=config.kind == "depth_anything",
                )
                for _ in range(config.num_hidden_layers)
            ]
        )
        self.norm = (
            LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps) if config.kind == "depth_anything" else None
        )
        maps = zip(config.neck_hidden_sizes, config.reassemble_factors, strict=True)
        self.reassemble = nnx.List([Reassemble(config, channels, factor) for channels, factor in maps])
        self.fusion = nnx.List(  # coarsest first
            [Fusion(config.fusion_hidden_size, coarsest=i == 0) for i in range(len(self.reassemble))]
        )
        self.head = DepthHead(config.fusion_hidden_size)
        layer = lambda channels: MotionModule(channels, config.temporal_heads, config.temporal_norm_groups)
        self.temporal = nnx.List(map(layer, config.temporal_channels)) if config.temporal_frames else None

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b h w"]:
        """Inverse depth of images at the network's own resolution, each by itself.

        Args:
            pixels: RGB in [-1, 1]; h and w multiples of `config.size_multiple`, best near `config.image_size`.

        Returns:
            Inverse depth, at least 0, float32.

        Raises:
            ValueError: h or w is not such a multiple.
        """
        maps = self._maps(pixels)
        return self._fine((self._coarse(maps), *maps[:-2]), pixels.shape[1:3])

    def clips(
        self, pixels: Float[Array, "b t h w 3"], *, frames_per_chunk: int | None = None
    ) -> Float[Array, "b t h w"]:
        """The same of clips, whose frames see each other where the network has layers between frames.

        Args:
            pixels: of at most `config.temporal_frames` frames.
            frames_per_chunk: what looks at frames alone takes so many at once; None for all.
        """
        batch, frames, height, width, _ = pixels.shape
        if self.temporal is None or frames > self.config.temporal_frames:
            raise UserError(f"a clip of {frames} frames: this network sees {self.config.temporal_frames} at once")
        chunk = frames_per_chunk or batch * frames
        alone = in_chunks if chunk < batch * frames else lambda function, x, _: function(x)

        def over_time(layer: MotionModule, x: Float[Array, "n i j c"]) -> Float[Array, "n i j c"]:
            return rearrange(layer(rearrange(x, "(b t) ... -> b t ...", b=batch)), "b t ... -> (b t) ...")

        maps = alone(self._maps, rearrange(pixels, "b t ... -> (b t) ..."), chunk)
        x = self._coarse(maps, over_time)
        depth = alone(lambda maps: self._fine(maps, (height, width)), (x, *maps[:-2]), chunk)
        return rearrange(depth, "(b t) ... -> b t ...", b=batch)

    def _maps(self, pixels: Float[Array, "b h w 3"]) -> Maps:
        """Reassembled tokens."""
        _, height, width, _ = pixels.shape
        multiple, patch = self.config.size_multiple, self.config.patch_size
        if height % multiple or width % multiple:
            raise UserError(f"images of {height}x{width}: both must be multiples of {multiple} (or use estimate)")
        if self.config.kind == "depth_anything":
            pixels = ((pixels + 1) / 2 - jnp.array(_MEAN)) / jnp.array(_STD)
        tokens, maps = self.embeddings(pixels.astype(self.dtype)), []
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens)
            if index in self.config.backbone_out_indices:
                read = tokens if self.norm is None else self.norm(tokens)
                maps.append(self.reassemble[len(maps)](read, (height // patch, width // patch)))
        return tuple(maps)

    def _coarse(
        self,
        maps: Maps,
        over_time: Callable[[MotionModule, Array], Array] = lambda _, x: x,
    ) -> Float[Array, "b i j c"]:
        """Fusion of the two coarsest maps; `over_time` is given the layers between frames and what they look at."""
        x = None
        layers = (None,) * 4 if self.temporal is None else self.temporal
        for index in range(min(2, len(maps))):
            x = self._fuse(index, over_time(layers[1 - index], maps[-1 - index]), x, maps[: -1 - index])
            x = over_time(layers[2 + index], x)
        return x

    def _fine(self, maps: Maps, size: tuple[int, int]) -> Float[Array, "b h w"]:
        """Depth from what `_coarse` gives and the finer maps."""
        x, *finer = maps
        for index in range(2, len(self.fusion)):
            x = self._fuse(index, finer.pop(), x, finer)
        return self.head(x, size)

    def _fuse(
        self, index: int, features: Array, coarser: Array | None, finer: Sequence[Array]
    ) -> Float[Array, "b i j c"]:
        """A fusion, the coarsest being 0; it gives the size of the next finer map."""
        height, width = features.shape[1:3]
        size = finer[-1].shape[1:3] if finer else (2 * height, 2 * width)
        features = self.reassemble[len(self.fusion) - 1 - index].conv(features)
        return self.fusion[index](features, coarser, size)

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

    def estimate_clips(
        self, images: Float[Array, "b t h w 3"], *, frames_per_chunk: int = 4
    ) -> Float[Array, "b t h w"]:
        """`estimate` by `clips`, for clips of at most `config.temporal_frames` frames."""
        batch, frames, height, width, _ = images.shape
        size = self.config.working_size(height, width)
        resize = lambda x: jnp.clip(jax.image.resize(x, (len(x), *size, 3), "cubic"), -1, 1)
        small = in_chunks(resize, rearrange(images, "b t ... -> (b t) ..."), frames_per_chunk)
        small = rearrange(small, "(b t) ... -> b t ...", t=frames)
        depth = rearrange(self.clips(small, frames_per_chunk=frames_per_chunk), "b t ... -> (b t) ...")
        back = lambda x: jax.image.resize(x, (len(x), height, width), "linear")
        return rearrange(in_chunks(back, depth, frames_per_chunk), "(b t) ... -> b t ...", b=batch)
