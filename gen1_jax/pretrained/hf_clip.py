"""CLIP in transformers' layout: CLIPModel in one folder, or its two towers in folders of their own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gen1_jax.models.clip import MEAN, STD, CLIPConfig, CLIPTextConfig, CLIPVisionConfig, TowerConfig
from gen1_jax.pretrained.hf_config import ConfigError, library_defaults, require, typed_fields, with_library_defaults
from gen1_jax.pretrained.layout import Layout, LayoutError

CLIP = Layout(
    renames=(
        (r"^(text|vision)\.", r"\1_model."),
        (r"_model\.(\w+_embedding)\b", r"_model.embeddings.\1"),
        (r"_model\.layers\.", "_model.encoder.layers."),
        (r"\.norm([12])\.", r".layer_norm\1."),
        (r"\.attention\.to_([qkv])\.", r".self_attn.\1_proj."),
        (r"\.attention\.to_out\.", ".self_attn.out_proj."),
        (r"\.(fc[12])\.", r".mlp.\1."),
        (r"\.final_norm\.", ".final_layer_norm."),
        (r"\.pre_norm\.", ".pre_layrnorm."),  # their spelling
        (r"\.post_norm\.", ".post_layernorm."),
    ),
    ignored=(r"\.embeddings\.position_ids$",),  # 0, 1, 2, …, stored by transformers before 4.31
)

CLIP_TOWERS = dataclasses.replace(CLIP, new=(r"^logit_scale$",))
"""What `merge_towers` returns: no tower has the temperature, which keeps its initial value, log(1 / 0.07)."""


def clip_config(config: Mapping) -> CLIPConfig:
    """The `CLIPConfig` of a CLIPModel's config.json; absent keys have transformers' defaults.

    Raises:
        ConfigError: a variant that we do not implement, or a value of the wrong type, by key.
    """
    require(config, "CLIP config", model_type="clip")
    text, vision = _section(config, "text_config"), _section(config, "vision_config")
    return _clip_config(text, vision, config.get("projection_dim", _default_width("CLIPConfig")))


def clip_text_config(config: Mapping) -> CLIPTextConfig:
    """The `CLIPTextConfig` of the config.json of a CLIPTextModel (with its projection or without), or of a CLIPModel.

    Raises:
        ConfigError: see `clip_config`.
    """
    text = _section(config, "text_config") if config.get("model_type") == "clip" else config
    require(text, "CLIP text config", model_type="clip_text_model")
    return _tower(CLIPTextConfig, text, "CLIP text config")


def clip_towers_config(text: Mapping, vision: Mapping) -> CLIPConfig:
    """The `CLIPConfig` of the config.json of a CLIPTextModelWithProjection and of a CLIPVisionModelWithProjection.

    Raises:
        ConfigError: see `clip_config`; also towers that project into spaces of different widths.
    """
    text = _section(text, "text_config") if text.get("model_type") == "clip" else text
    vision = vision_section(vision)
    width = text.get("projection_dim", _default_width("CLIPTextConfig"))
    vision = {"projection_dim": _default_width("CLIPVisionConfig")} | dict(vision)
    require(vision, "CLIP vision config", model_type="clip_vision_model", projection_dim=width)
    require(text, "CLIP text config", model_type="clip_text_model")
    return _clip_config(text, vision, width)


def vision_section(config: Mapping) -> Mapping:
    """What a config.json of a CLIPModel, or of an image tower of its own, says of the image tower."""
    return _section(config, "vision_config") if config.get("model_type") == "clip" else config


def vision_tower(vision: Mapping) -> tuple[CLIPVisionConfig, int]:
    """The `CLIPVisionConfig` of an image tower's own object, and the width of its projection.

    Raises:
        ConfigError: see `clip_config`.
    """
    width = _projection_dim(vision.get("projection_dim", _default_width("CLIPVisionConfig")))
    return _tower(CLIPVisionConfig, vision, "CLIP vision config"), width


def merge_towers(text: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a text and a vision folder under the one set of names that `CLIP_TOWERS` fills from.

    Raises:
        LayoutError: both folders hold a tensor of the same name, so one is not a tower.
    """
    if shared := sorted(text.keys() & vision.keys()):
        raise LayoutError(f"the CLIP text and vision folders both hold {shared[0]}")
    return {**text, **vision}


def _section(config: Mapping, key: str) -> Mapping:
    """A tower's own object. transformers lets text_config_dict, of its oldest files, replace text_config."""
    section = config.get(f"{key}_dict")
    section = config.get(key) if section is None else section
    if section is not None and not isinstance(section, Mapping):
        raise ConfigError(f"CLIP config: {key} is {section!r}, not an object")
    return section or {}


def _clip_config(text: Mapping, vision: Mapping, projection_dim: Any) -> CLIPConfig:
    require(vision, "CLIP vision config", num_channels=3)
    return CLIPConfig(
        text=_tower(CLIPTextConfig, text, "CLIP text config"),
        vision=_tower(CLIPVisionConfig, vision, "CLIP vision config"),
        projection_dim=_projection_dim(projection_dim),
    )


def _projection_dim(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ConfigError(f"CLIP config: projection_dim is {value!r}, not a positive whole number")
    return value


def _default_width(class_name: str) -> int:
    return library_defaults(class_name)["projection_dim"]


def _tower(tower: type, config: Mapping, source: str):
    """A tower's configuration, of transformers' class of the same name; absent keys are its."""
    values = typed_fields(with_library_defaults(tower(), tower.__name__), config, source)
    try:
        return tower(**values)
    except ValueError as error:  # the tower's own checks
        raise ConfigError(f"{source}: {error}") from None


def their_clip_config(config: CLIPConfig, bos_token_id: int) -> dict[str, Any]:
    """The config.json of a CLIPModel, the inverse of `clip_config`. Texts are padded by their last token."""
    text, vision = dataclasses.asdict(config.text), dataclasses.asdict(config.vision)
    shared = {"projection_dim": config.projection_dim}
    tokens = {"bos_token_id": bos_token_id, "pad_token_id": config.text.eos_token_id}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        **shared,
        "text_config": {"model_type": "clip_text_model", **text, **tokens, **shared},
        "vision_config": {"model_type": "clip_vision_model", **vision, **shared},
    }


def their_tower_config(config: TowerConfig, architecture: str, **keys: Any) -> dict[str, Any]:
    """The config.json of a tower in a folder of its own.

    Args:
        config: of a text or an image tower.
        architecture: transformers' class, such as "CLIPTextModel".
        keys: further ones, such as bos_token_id.
    """
    kind = "text" if isinstance(config, CLIPTextConfig) else "vision"
    return {
        "architectures": [architecture],
        "model_type": f"clip_{kind}_model",
        **dataclasses.asdict(config),
        **keys,
    }


def their_image_processor_config(config: CLIPVisionConfig) -> dict[str, Any]:
    """The preprocessor_config.json of the CLIPImageProcessor that does what `models.clip.preprocess` does."""
    size = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,  # PIL's bicubic
        "image_mean": list(MEAN),
        "image_std": list(STD),
    }
