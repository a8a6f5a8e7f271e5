"""transformers' DPTForDepthEstimation (Intel/dpt-large): its configuration and the names of its tensors.

`depth_checkpoint` opens whatever `gen1 import --depth` takes: that, or one of `depth_anything`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import LATER
from gen1_jax.models.depth import DPTConfig
from gen1_jax.pretrained import depth_anything
from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields, with_library_defaults
from gen1_jax.pretrained.hf_folders import Checkpoint, named, opened
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import check_is
from gen1_jax.pretrained.tensors import checkpoint_files, stored_tensors

_SOURCE = "DPT config"
DEPTH = Layout(
    renames=(
        (r"^embeddings\.projection\.", "dpt.embeddings.patch_embeddings.projection."),
        (r"^embeddings\.", "dpt.embeddings."),
        (r"^layers\.", "dpt.encoder.layer."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attention\.to_q\.", ".attention.attention.query."),
        (r"\.attention\.to_k\.", ".attention.attention.key."),
        (r"\.attention\.to_v\.", ".attention.attention.value."),
        (r"\.attention\.to_out\.", ".attention.output.dense."),
        (r"\.fc1\.", ".intermediate.dense."),
        (r"\.fc2\.", ".output.dense."),
        (r"^reassemble\.(\d+)\.readout\.", r"neck.reassemble_stage.readout_projects.\1.0."),
        (r"^reassemble\.(\d+)\.conv\.", r"neck.convs.\1."),
        (r"^reassemble\.(\d+)\.(up|down)sample\.", r"reassemble.\1.resize."),
        (r"^reassemble\.", "neck.reassemble_stage.layers."),
        (r"^fusion\.", "neck.fusion_stage.layers."),
        (r"^head\.conv1\.", "head.head.0."),
        (r"^head\.conv2\.", "head.head.2."),
        (r"^head\.conv3\.", "head.head.4."),
    ),
    transposed=(r"^reassemble\.\d+\.upsample\.kernel$",),
    new=(r"^temporal\.",),
    # Tensors that depth never reads: transformers makes them for every layer or task.
    ignored=(
        r"^dpt\.layernorm\.",
        r"^dpt\.pooler\.",
        r"^neck\.fusion_stage\.layers\.0\.residual_layer1\.",
    ),
)


def depth_checkpoint(path: Path) -> tuple[Checkpoint, DPTConfig, Layout]:
    """A depth network's folder or file, with its configuration and the names of its tensors.

    Raises:
        FolderError, ConfigError: it is not there, damaged, a pickle, or another network.
    """
    bare = path.is_file() or (path.is_dir() and not any(path.rglob("config.json")))
    if bare:  # the authors' files of Depth Anything, which have no configuration
        depth_anything.refuse_metric(path)
        tensors = stored_tensors(checkpoint_files(path))
        check_is("depth", path, tensors)
        if depth_anything.is_original(tensors):
            tensors = depth_anything.depth_original(tensors)
            checkpoint = Checkpoint(str(path), depth_anything.depth_anything_shape(tensors), tensors)
            return checkpoint, checkpoint.read(depth_config), depth_anything.DEPTH_ANYTHING
    checkpoint = opened(path, "depth", "depth")
    config = named(Path(checkpoint.name) / "config.json", depth_config, checkpoint.config)
    return checkpoint, config, DEPTH if config.kind == "dpt" else depth_anything.DEPTH_ANYTHING


def depth_config(config: Mapping) -> DPTConfig:
    """The `DPTConfig` of a config.json of DPTForDepthEstimation or DepthAnythingForDepthEstimation.

    Raises:
        ConfigError: a variant that we do not implement, by key.
    """
    if config.get("model_type") == depth_anything.MODEL_TYPE:
        return depth_anything.depth_anything_config(config)
    later = {f.name for f in dataclasses.fields(DPTConfig) if f.metadata == LATER}  # which are ours alone
    config = {key: value for key, value in config.items() if value is not None and key not in later}
    require(
        config,
        _SOURCE,
        model_type="dpt",
        is_hybrid=False,
        backbone_config=None,
        backbone=None,
        readout_type="project",
        hidden_act="gelu",
        num_channels=3,
        head_in_index=-1,
        add_projection=False,
        use_batch_norm_in_fusion_residual=False,
        use_bias_in_fusion_residual=True,
    )
    squares = {key: _side(config[key]) for key in ("image_size", "patch_size") if key in config}
    values = typed_fields(with_library_defaults(DPTConfig(), "DPTConfig"), {**config, **squares}, _SOURCE)
    try:
        return DPTConfig(**values)
    except ValueError as error:
        raise ConfigError(f"{_SOURCE}: {error}") from None


def _side(size: Any) -> Any:
    """The one side of a square given as a pair; anything else as it is."""
    return size[0] if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1] else size


def their_depth_config(config: DPTConfig) -> dict[str, Any]:
    """The config.json of a DPTForDepthEstimation, the inverse of `depth_config`; layers between frames are left out.

    Raises:
        UserError: it is Depth Anything.
    """
    if config.kind != "dpt":
        raise UserError("the depth network is Depth Anything, which is not written: take the folder it is from")
    fields = [f.name for f in dataclasses.fields(config) if f.metadata != LATER]
    values = {name: list(v) if isinstance(v := getattr(config, name), tuple) else v for name in fields}
    return {
        "architectures": ["DPTForDepthEstimation"],
        "model_type": "dpt",
        **values,
        "readout_type": "project",
        "hidden_act": "gelu",
        "is_hybrid": False,
        "use_batch_norm_in_fusion_residual": False,
        "use_bias_in_fusion_residual": True,
    }


def unread_tensors(config: DPTConfig) -> dict[str, np.ndarray]:
    """Zeros for tensors that DPTForDepthEstimation has and never reads, so that none is missing when it loads."""
    width, features = config.hidden_size, config.fusion_hidden_size
    unit = "neck.fusion_stage.layers.0.residual_layer1.convolution"
    shapes = {"dpt.layernorm.weight": (width,), "dpt.layernorm.bias": (width,)}
    for i in (1, 2):
        shapes |= {f"{unit}{i}.weight": (features, features, 3, 3), f"{unit}{i}.bias": (features,)}
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
