"""The `gen1 edit` command that does what an edit of the page does."""

import shlex
from pathlib import Path

from gen1_jax.editing.masks import without_folder
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings

_OPTIONS = {
    "structure_blur": "--structure-blur",
    "guidance_scale": "--guidance-scale",
    "temporal_guidance_scale": "--temporal-guidance-scale",
    "num_inference_steps": "--steps",
    "seed": "--seed",
    "sampler": "--sampler",
    "structure": "--structure",
    "strength": "--strength",
    "clip_skip": "--clip-skip",
    "mask_feather": "--mask-feather",
}


def command_text(request: EditRequest, defaults: EditSettings) -> str:
    """A line for a POSIX shell. What is at its default is left out; paths are those of the request."""
    words = ["gen1", "edit", _argument(request.video), "-o", _argument(request.output)]
    words += _option("--prompt", request.prompt) + _option("--negative-prompt", request.negative_prompt or None)
    for image in request.images:
        scale = request.settings.image_scale
        words += _option("--image", image if scale == 1 else f"{image}:{scale:g}")
    words += _option("--mask", without_folder(request.mask)) + _option("--background", request.background)
    for index, path in request.keyframes:
        words += _option("--keyframe", f"{index}={path}")
    for name, option in _OPTIONS.items():
        value = getattr(request.settings, name)
        words += _option(option, value if value != getattr(defaults, name) else None)
    interval = request.settings.guidance_interval
    if interval is not None and interval != defaults.guidance_interval:
        words += ["--guidance-interval", "{:g}:{:g}".format(*interval)]
    words += _option("--start", request.start or None) + _option("--frames", request.frames)
    words += _option("--stride", request.stride if request.stride > 1 else None)
    words += _option("--model", request.model if str(request.model) != "nano" else None)
    words += [] if request.provenance else ["--no-provenance"]
    return shlex.join(words)


def _argument(path: str | Path) -> str:
    """A path that no parser takes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _option(name: str, value: object | None) -> list[str]:
    if value is None:
        return []
    return [f"{name}={value}"] if str(value).startswith("-") else [name, str(value)]
