"""Folders as a hub has them: which of them holds a network, and what a pipeline's U-Net was trained on."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.tensors import FolderError, read_json

CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "depth": "DPTForDepthEstimation",
    "clip": "CLIPModel",
    "clip_text": "CLIPTextModelWithProjection",
    "clip_image": "CLIPVisionModelWithProjection",
    "prior": "PriorTransformer",
    "text": "CLIPTextModel",
    "motion": "MotionAdapter",
    "controlnet": "ControlNetModel",
    "image_encoder": "CLIPVisionModelWithProjection",
}
"""The class of diffusers or transformers that each part of an import is."""

_OR_ELSE = {"depth": ("DepthAnythingForDepthEstimation",)}
"""Other classes that a part may be instead."""

_DEPTH = 3  # a hub's cache: models--owner--name/snapshots/<revision>/unet
_SHOWN = 6
_CONFIG, _INDEX = "config.json", "model_index.json"


def network_folder(folder: Path, part: str) -> Path:
    """The folder with the configuration of a network: `folder` itself, or the only one in it of the network's class.

    So the root of a pipeline, or of a hub's cache, may be named in place of the folder in it.

    Args:
        folder: that a person named.
        part: one of `CLASSES`.

    Raises:
        FolderError, ConfigError: no folder, several that fit or none, or one of another network; names those that fit.
    """
    wanted = CLASSES[part]
    if folder.is_file():
        raise FolderError(f"{folder} is a file: name a folder of safetensors and the {_CONFIG} of {wanted}")
    if not folder.is_dir():
        near = ", ".join(_found(folder.parent, wanted, depth=1)) if folder.parent.is_dir() else ""
        raise FolderError(f"{folder} is not a folder" + (f"; {folder.parent} has {near}, which is one" if near else ""))
    if (folder / _CONFIG).is_file():
        found = _class_of(folder)
        if found not in ("", wanted, *_OR_ELSE.get(part, ())) and (fit := _found(folder.parent, wanted, depth=1)):
            raise ConfigError(f"{folder}/{_CONFIG} is of {found}, not of {wanted}: name {folder.parent / fit[0]}")
        return folder
    fit = [name for fits in (wanted, *_OR_ELSE.get(part, ())) for name in _found(folder, fits)]
    if named := [name for name in fit if Path(name).name == part]:
        fit = named if len(named) == 1 else fit
    if len(fit) == 1:
        return folder / fit[0]
    if fit:
        raise FolderError(f"{folder} has several of {wanted}: name one of {_listed(fit)} in it")
    if others := [f"{name} ({_class_of(folder / name) or 'of no class'})" for name in _configured(folder)]:
        raise FolderError(f"{folder} has no {wanted}, only {_listed(others)}")
    return folder


def trained_content(unet: Path, config: Mapping) -> Literal["unknown", "image", "text"]:
    """What the cross-attention of an image U-Net was trained on, as far as its folders tell.

    The pipeline around it tells best: its class, or which encoder lies beside the U-Net; then the names of the
    checkpoint. The same network is published for texts (Stable Diffusion) and for images (its image variations).

    Args:
        unet: the folder of the U-Net.
        config: its configuration.
    """
    root = unet.parent
    pipeline = _class_of(root, _INDEX)
    encoders = [kind for kind in ("text", "image") if (root / f"{kind}_encoder").is_dir()]
    if "ImageVariation" in pipeline:
        return "image"
    if pipeline.startswith("StableDiffusion"):
        return "text"
    if len(encoders) == 1:
        return encoders[0]
    names = [config.get("_name_or_path"), *(part.name for part in list(unet.resolve().parents)[:_DEPTH]), unet.name]
    said = " ".join(str(name).lower().replace("_", "-") for name in names)
    if "image-variation" in said:
        return "image"
    return "text" if "stable-diffusion" in said else "unknown"


def _class_of(folder: Path, name: str = _CONFIG) -> str:
    """The class that a configuration says it is of; empty if it says none or cannot be read."""
    try:
        config = read_json(folder / name)
    except FolderError:
        return ""
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else ""
    return str(config.get("_class_name") or named)


def _found(folder: Path, wanted: str, depth: int = _DEPTH) -> list[str]:
    return [name for name in _configured(folder, depth) if _class_of(folder / name) == wanted]


def _configured(folder: Path, depth: int = _DEPTH) -> list[str]:
    """Folders in it that have a configuration, by their paths from it."""
    return sorted(path.relative_to(folder).as_posix() for path in _walk(folder, depth))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            if (path / _CONFIG).is_file():
                yield path
            elif depth > 1:
                yield from _walk(path, depth - 1)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
