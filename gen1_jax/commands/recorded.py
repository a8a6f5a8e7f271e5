"""Edits that are made again with the settings of one before (`gen1 edit --settings-from`)."""

import warnings
from collections.abc import Mapping
from typing import Any

_FILES = {
    "structure_from": ("structure_from", "maps"),
    "loras": ("lora", "LoRA"),
    "mask_file": ("mask", "mask"),
    "keyframes": ("keyframe", "keyframe"),
    "image": ("image", "picture"),
}
"""Files that an edit was made from, by their name in its record: the option that names them, and what they are."""


def compare_with(recorded: Mapping[str, Any], args, model: str) -> None:
    """Says what of an edit cannot be the same again.

    Raises:
        UserError: files that it was made from are needed.
    """
    from gen1_jax.checkpoints.identity import model_hash
    from gen1_jax.checkpoints.trained import open_trained
    from gen1_jax.editing.record import file_hash
    from gen1_jax.errors import UserError
    from gen1_jax.pretrained.lora import with_loras

    images = [path for path, _ in args.image or []]
    needed = {name: getattr(args, option) for name, (option, _) in _FILES.items() if name != "image"}
    needed |= {"image": images} if args.prompt is None or recorded.get("prompt") is not None else {}
    for name, given in needed.items():
        if (files := _listed(recorded.get(name))) and not given:
            option, what = _FILES[name]
            raise UserError(
                f"the edit was made from the {what} {', '.join(files)}: name it with --{option.replace('_', '-')}"
            )
    shown = [text for text in recorded.get("contents") or [] if not text.startswith("prompt=")]
    if shown and not (args.content or args.prompt or images):
        raise UserError(f"the edit was made from {', '.join(shown)}: name all its contents with --content")
    before = dict(zip(_listed(recorded["image_hash"]), _listed(recorded["image"]), strict=False))
    for path in images:
        if before and path.is_file() and file_hash(path) not in before:
            warnings.warn(
                f"{path} is not the picture {', '.join(before.values())} that the edit was made from", stacklevel=2
            )
    if model_hash(with_loras(open_trained(model), args.lora or [])) != recorded["model_hash"]:
        warnings.warn(
            f"{model} is not the model {recorded['model']} ({recorded['model_hash']}) that made the edit, so another "
            "edit comes of it; name the model with --model",
            stacklevel=2,
        )


def _listed(value: str | list | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(map(str, value))
