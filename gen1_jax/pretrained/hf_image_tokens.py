"""IP-Adapters of Stable Diffusion 1.5 in their authors' names, and the folder of the image encoder that they need.

A file holds two networks: `image_proj.*`, the projection of a picture to tokens (`ImageTokens`), and `ip_adapter.*`,
the keys and values of each cross-attention for these tokens, numbered through the U-Net.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen1_jax.models.image_encoder import ImageEncoderConfig
from gen1_jax.models.image_tokens import ImageTokensConfig
from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.hf_clip import CLIP, vision_section, vision_tower
from gen1_jax.pretrained.hf_config import require
from gen1_jax.pretrained.layout import Layout, LayoutError
from gen1_jax.pretrained.tensors import checkpoint_files, stored_tensors

IMAGE_ENCODER = CLIP
"""Names of a CLIPVisionModelWithProjection."""

_PROJ = "image_proj."
_BASE = Layout(renames=((r"^projection\.", _PROJ),))
_FULL = Layout(
    renames=(
        (r"^projection\.fc1\.", "image_proj.proj.0."),
        (r"^projection\.fc2\.", "image_proj.proj.2."),
        (r"^projection\.norm\.", "image_proj.proj.3."),
    )
)
_PLUS = Layout(
    renames=(
        (r"^projection\.", _PROJ),
        (r"\.norm_states\.", ".0.norm1."),
        (r"\.norm_queries\.", ".0.norm2."),
        (r"\.to_(q|kv|out)\.", r".0.to_\1."),
        (r"\.ff_norm\.", ".1.0."),
        (r"\.fc1\.", ".1.1."),
        (r"\.fc2\.", ".1.3."),
    )
)
IMAGE_TOKENS: dict[str, Layout] = {"base": _BASE, "plus": _PLUS, "full": _FULL}
"""Of `image_proj.*`, by kind."""

IMAGE_ATTENTION = r"\.attn2\.to_[kv]_image\."
"""Our U-Net's parameters that an IP-Adapter fills."""

_FACES = (r"^image_proj\.perceiver_resampler\.", r"^ip_adapter\.\d+\..*lora")
_HEAD_SIZE = 64  # of every resampler; no tensor tells it
_ENCODERS = {1024: "OpenCLIP ViT-H/14, models/image_encoder", 1280: "OpenCLIP ViT-bigG/14, sdxl_models/image_encoder"}
_HIDDEN = {1280: _ENCODERS[1024], 1664: _ENCODERS[1280]}


def image_encoder_config(config: Mapping) -> ImageEncoderConfig:
    """The `ImageEncoderConfig` of a CLIPVisionModelWithProjection's config.json; for absent keys, transformers'.

    Raises:
        ConfigError: a variant that we do not implement, or a value of the wrong type, by key.
    """
    vision = vision_section(config)
    require(vision, "CLIP vision config", model_type="clip_vision_model", num_channels=3)
    tower, width = vision_tower(vision)
    return ImageEncoderConfig(**dataclasses.asdict(tower), projection_dim=width)


@dataclasses.dataclass(frozen=True)
class IPAdapter:
    """An IP-Adapter's file. No tensor is read.

    Attributes:
        tokens: configuration of its projection.
        projection: its tensors, for `IMAGE_TOKENS[tokens.kind]`.
        attention: keys and values, for `image_attention_layout`.
    """

    tokens: ImageTokensConfig
    projection: Mapping[str, Any]
    attention: Mapping[str, Any]


def read_ip_adapter(path: Path, encoder: ImageEncoderConfig, unet: UNetConfig) -> IPAdapter:
    """An IP-Adapter that reads what this encoder gives and fits this U-Net.

    Args:
        path: a safetensors file.
        encoder: of the image encoder that goes with it.
        unet: of the base.

    Raises:
        FolderError: no safetensors file.
        LayoutError: not an IP-Adapter, one of a kind that we do not have, or made for another encoder or base.
    """
    return ip_adapter(stored_tensors(checkpoint_files(path)), encoder, unet, str(path))


def ip_adapter(tensors: Mapping[str, Any], encoder: ImageEncoderConfig, unet: UNetConfig, source: str) -> IPAdapter:
    """See `read_ip_adapter`; `source` is what the tensors are called in an error."""
    faces = {_PROJ + "proj.0.weight", _PROJ + "norm.weight"} <= tensors.keys()
    if faces or any(re.search(pattern, name) for name in tensors for pattern in _FACES):
        raise LayoutError(f"{source} is an IP-Adapter FaceID, which reads faces: take ip-adapter-plus-face_sd15")
    tokens = _tokens_config(tensors, encoder, source)
    if tokens.cross_attention_dim != unet.cross_attention_dim:
        raise LayoutError(
            f"{source} makes tokens of {tokens.cross_attention_dim}, the U-Net reads {unet.cross_attention_dim}: "
            "take an IP-Adapter of Stable Diffusion 1.5 (h94/IP-Adapter, models/)"
        )
    _check_encoder(tokens, encoder, source)
    projection = {name: x for name, x in tensors.items() if name.startswith(_PROJ)}
    attention = {name: x for name, x in tensors.items() if name not in projection}
    return IPAdapter(tokens, projection, attention)


def _tokens_config(tensors: Mapping[str, Any], encoder: ImageEncoderConfig, source: str) -> ImageTokensConfig:
    shape = lambda name: tensors[_PROJ + name].shape
    try:
        if f"{_PROJ}latents" in tensors:
            _, count, width = shape("latents")
            numbers = [int(found[1]) for name in tensors if (found := re.match(r"image_proj\.layers\.(\d+)\.", name))]
            return ImageTokensConfig(
                kind="plus",
                tokens=count,
                embedding_dim=shape("proj_in.weight")[1],
                cross_attention_dim=shape("proj_out.weight")[0],
                width=width,
                depth=1 + max(numbers),
                heads=shape("layers.0.0.to_q.weight")[0] // _HEAD_SIZE,
                head_size=_HEAD_SIZE,
            )
        if f"{_PROJ}proj.0.weight" in tensors:
            width, read = shape("proj.2.weight")
            return ImageTokensConfig(kind="full", tokens=encoder.tokens, embedding_dim=read, cross_attention_dim=width)
        (width,), (rows, read) = shape("norm.weight"), shape("proj.weight")
        return ImageTokensConfig(kind="base", tokens=rows // width, embedding_dim=read, cross_attention_dim=width)
    except (KeyError, ValueError, IndexError):
        raise LayoutError(f"{source} is no IP-Adapter in its authors' names (image_proj.*, ip_adapter.*)") from None


def _check_encoder(tokens: ImageTokensConfig, encoder: ImageEncoderConfig, source: str) -> None:
    """Refuses the wrong image encoder, the most common mistake with IP-Adapters."""
    found, known = (encoder.projection_dim, _ENCODERS) if tokens.kind == "base" else (encoder.hidden_size, _HIDDEN)
    if found != tokens.embedding_dim:
        of = lambda width: f" ({known[width]})" if width in known else ""
        what = "embeddings" if tokens.kind == "base" else "states"
        raise LayoutError(
            f"{source} reads {what} of {tokens.embedding_dim}{of(tokens.embedding_dim)}, but the image encoder gives "
            f"{found}{of(found)}: take the encoder from the folder of h94/IP-Adapter that the file belongs to"
        )


def image_attention_layout(config: UNetConfig) -> Layout:
    """Names of the keys and values of an IP-Adapter (`IMAGE_ATTENTION`).

    Cross-attentions have the odd numbers, self-attentions the even ones, counted down, up and then through the middle.
    """
    return Layout(
        renames=tuple(
            (rf"^{re.escape(path)}\.attn2\.to_([kv])_image\.", rf"ip_adapter.{2 * index + 1}.to_\1_ip.")
            for index, path in enumerate(image_attention_blocks(config))
        )
    )


def image_attention_blocks(config: UNetConfig) -> tuple[str, ...]:
    """Our paths of the transformer blocks that see content, in the order of an IP-Adapter's numbers."""
    levels, layers = config.attention_levels, config.layers_per_block
    down = [f"down_blocks.{i}.attentions.{j}" for i, attend in enumerate(levels) if attend for j in range(layers)]
    levels_up = enumerate(reversed(levels))
    up = [f"up_blocks.{i}.attentions.{j}" for i, attend in levels_up if attend for j in range(layers + 1)]
    return tuple(f"{place}.spatial.block" for place in (*down, *up, "mid_block.attentions.0"))
