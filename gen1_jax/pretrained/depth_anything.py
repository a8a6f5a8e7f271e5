"""Depth Anything V2 and Video Depth Anything: configurations, and names of tensors.

    a folder of transformers (DepthAnythingForDepthEstimation) ─────────────┐
    depth_anything_v2_vits.pth, video_depth_anything_vits.pth, converted ──►┴─► Depth Anything's network of `DPTDepth`

The authors' files come without a configuration, which the shapes of their tensors tell, and are pickles: they have to
be converted once. The metric variants look the same and mean distances, not inverse depth: they are refused by name.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.models.depth import DPTConfig
from gen1_jax.pretrained.hf_config import ConfigError, library_defaults, require, typed_fields
from gen1_jax.pretrained.hf_unet import ATTENTION
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import Signs
from gen1_jax.pretrained.spellings import MOTION_NAMES, Tensors
from gen1_jax.pretrained.tensors import FolderError

MODEL_TYPE = "depth_anything"
_SOURCE = "Depth Anything config"
_HEAD_SIZE = 64  # of DINOv2
_OFFSET = 0.1  # in the authors' resampling of positions; transformers' has none
_TEMPORAL_FRAMES = 32
_STAGES = {12: (3, 6, 9, 12), 24: (5, 12, 18, 24)}  # whose output is read, of so many layers
_EPSILON = 1e-6

DEPTH_ANYTHING = Layout(
    renames=(
        (r"^embeddings\.projection\.", "backbone.embeddings.patch_embeddings.projection."),
        (r"^embeddings\.", "backbone.embeddings."),
        (r"^layers\.(\d+)\.attention\.to_q\.", r"layers.\1.attention.attention.query."),
        (r"^layers\.(\d+)\.attention\.to_k\.", r"layers.\1.attention.attention.key."),
        (r"^layers\.(\d+)\.attention\.to_v\.", r"layers.\1.attention.attention.value."),
        (r"^layers\.(\d+)\.attention\.to_out\.", r"layers.\1.attention.output.dense."),
        (r"^layers\.(\d+)\.(fc\d)\.", r"layers.\1.mlp.\2."),
        (r"^layers\.(\d+)\.(layer_scale\d)$", r"layers.\1.\2.lambda1"),
        (r"^layers\.", "backbone.encoder.layer."),
        (r"^norm\.", "backbone.layernorm."),
        (r"^reassemble\.(\d+)\.conv\.", r"neck.convs.\1."),
        (r"^reassemble\.(\d+)\.(up|down)sample\.", r"reassemble.\1.resize."),
        (r"^reassemble\.", "neck.reassemble_stage.layers."),
        (r"^fusion\.", "neck.fusion_stage.layers."),
        (r"^temporal\.(\d+)\.block\.", r"temporal.\1.transformer_blocks.0."),
        *ATTENTION,
    ),
    transposed=(r"^reassemble\.\d+\.upsample\.kernel$",),
    # A token for masked training, fusions without a coarser map, and positions, which are computed.
    ignored=(r"\.mask_token$", r"^neck\.fusion_stage\.layers\.0\.residual_layer1\.", r"\.pe$"),
)


def depth_anything_config(config: Mapping) -> DPTConfig:
    """The `DPTConfig` of a DepthAnythingForDepthEstimation's config.json, or of `depth_anything_shape`.

    Raises:
        ConfigError: a variant that we do not implement, by key.
    """
    defaults = library_defaults("DepthAnythingConfig")
    given = {key: value for key, value in config.items() if value is not None}
    stated = given.get("backbone_config")
    backbone = defaults["backbone_config"] if stated is None else library_defaults("Dinov2Config") | dict(stated)
    require(
        given,
        _SOURCE,
        depth_estimation_type="relative",  # the metric ones give distances
        head_in_index=-1,
        head_hidden_size=32,
        max_depth=1,
        backbone=None,
        patch_size=backbone["patch_size"],
        reassemble_hidden_size=backbone["hidden_size"],
    )
    require(
        backbone,
        f"{_SOURCE}: backbone_config",
        model_type="dinov2",
        hidden_act="gelu",
        use_swiglu_ffn=False,
        apply_layernorm=True,
        reshape_hidden_states=False,
        num_channels=3,
    )
    names = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "layer_norm_eps")
    values = {name: backbone[name] for name in (*names, "qkv_bias")}
    values |= {
        name: given.get(name, defaults[name])
        for name in ("reassemble_factors", "neck_hidden_sizes", "fusion_hidden_size")
    }
    values["intermediate_size"] = int(backbone["hidden_size"] * backbone["mlp_ratio"])
    named = (backbone if stated is None else stated).get("out_features")  # or else numbers; 0 is the embedding
    stages = [int(str(stage).removeprefix("stage")) for stage in named or ()] or backbone["out_indices"] or ()
    values["backbone_out_indices"] = [index - 1 for index in stages]
    ours = {name: given[name] for name in ("position_offset", "temporal_frames") if given.get(name)}
    try:
        return DPTConfig(**typed_fields(DPTConfig(), values | ours | {"kind": MODEL_TYPE}, _SOURCE))
    except ValueError as error:
        raise ConfigError(f"{_SOURCE}: {error}") from None


def depth_anything_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json would say of tensors in transformers' names that were the authors'.

    Raises:
        ConfigError: a backbone of a number of layers that is none of Depth Anything's.
    """
    signs = Signs(tensors)
    layers = (signs.largest(r"^backbone\.encoder\.layer\.(\d+)\.") or 0) + 1
    if layers not in _STAGES:
        raise ConfigError(
            f"a backbone of {layers} layers is none of {', '.join(map(str, _STAGES))}: not Depth Anything's"
        )
    width = signs.size(r"^backbone\.embeddings\.cls_token$", -1) or 0
    patch = signs.size(r"patch_embeddings\.projection\.weight$", -1) or 1
    positions = signs.size(r"position_embeddings$", 1) or 1
    maps = (signs.largest(r"^neck\.reassemble_stage\.layers\.(\d+)\.projection\.weight$") or 0) + 1
    sizes = [signs.size(rf"^neck\.reassemble_stage\.layers\.{i}\.projection\.weight$", 0) for i in range(maps)]
    return {
        "model_type": MODEL_TYPE,
        "backbone_config": {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // _HEAD_SIZE,
            "image_size": round((positions - 1) ** 0.5) * patch,
            "patch_size": patch,
            "layer_norm_eps": _EPSILON,
            "reshape_hidden_states": False,
            "out_features": [f"stage{number}" for number in _STAGES[layers]],
        },
        "neck_hidden_sizes": sizes,
        "fusion_hidden_size": signs.size(r"^neck\.convs\.0\.weight$", 0),
        "position_offset": _OFFSET,
        "temporal_frames": _TEMPORAL_FRAMES if signs.has(r"^temporal\.") else 0,
    }


_QKV = re.compile(r"^(backbone\.encoder\.layer\.\d+\.attention)\.qkv\.(weight|bias)$")
_NAMES = (
    *MOTION_NAMES,
    (r"^(depth_)?head\.motion_modules\.", "temporal."),
    (r"^pretrained\.cls_token$", "backbone.embeddings.cls_token"),
    (r"^pretrained\.pos_embed$", "backbone.embeddings.position_embeddings"),
    (r"^pretrained\.mask_token$", "backbone.embeddings.mask_token"),
    (r"^pretrained\.patch_embed\.proj\.", "backbone.embeddings.patch_embeddings.projection."),
    (r"^pretrained\.norm\.", "backbone.layernorm."),
    (r"^pretrained\.blocks\.(\d+)\.", r"backbone.encoder.layer.\1."),
    (r"(layer\.\d+)\.attn\.proj\.", r"\1.attention.output.dense."),
    (r"(layer\.\d+)\.attn\.", r"\1.attention."),
    (r"(layer\.\d+)\.ls([12])\.gamma$", r"\1.layer_scale\2.lambda1"),
    (r"^(depth_)?head\.projects\.(\d+)\.", r"neck.reassemble_stage.layers.\2.projection."),
    (r"^(depth_)?head\.resize_layers\.(\d+)\.", r"neck.reassemble_stage.layers.\2.resize."),
    (r"^(depth_)?head\.scratch\.output_conv1\.", "head.conv1."),
    (r"^(depth_)?head\.scratch\.output_conv2\.0\.", "head.conv2."),
    (r"^(depth_)?head\.scratch\.output_conv2\.2\.", "head.conv3."),
    (r"\.out_conv\.", ".projection."),
    (r"\.resConfUnit([12])\.conv([12])\.", r".residual_layer\1.convolution\2."),
    (r"^(depth_)?head\.scratch\.layer(\d)_rn\.", lambda found: f"neck.convs.{int(found[2]) - 1}."),
    # fusions are counted from the coarsest on by transformers, to it by the authors
    (r"^(depth_)?head\.scratch\.refinenet(\d)\.", lambda found: f"neck.fusion_stage.layers.{4 - int(found[2])}."),
)


def depth_original(tensors: Tensors) -> Tensors:
    """Tensors in the authors' names as transformers': fused queries, keys and values taken apart, none of them read."""
    renamed: dict[str, Any] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _NAMES:
            name = re.sub(pattern, replacement, name)
        if fused := _QKV.match(name):
            for index, part in enumerate(("query", "key", "value")):
                renamed[f"{fused[1]}.attention.{part}.{fused[2]}"] = _Third(tensor, index)
        else:
            renamed[name] = tensor
    return renamed


def is_original(tensors: Mapping[str, Any]) -> bool:
    """Whether tensors have the authors' names."""
    return any(name.startswith("pretrained.") for name in tensors)


def refuse_metric(path: Path) -> None:
    """Raises a FolderError for a file that its name says to be of a metric variant."""
    if "metric" in path.name.lower():
        raise FolderError(f"{path} is a metric variant by its name, which gives distances: take the one without metric")


class _Third:
    """One of three equal parts of a tensor's rows, read when it is asked for.

    Args:
        tensor: what has a shape and a dtype, and gives slices.
        index: of the part.
    """

    def __init__(self, tensor: Any, index: int):
        rows = tensor.shape[0] // 3
        self._tensor, self._rows = tensor, slice(index * rows, (index + 1) * rows)
        self.shape, self.dtype = (rows, *tensor.shape[1:]), tensor.dtype

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self._tensor[self._rows], dtype)
