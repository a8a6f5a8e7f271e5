"""The command that does what an edit of the page does: `gen1 edit`, or `gen1 upscale` of a clip that is enlarged."""

import dataclasses
import shlex
from pathlib import Path

from gen1_jax.editing.masks import without_folder
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.upscale_clip import NOISE_LEVEL

_OF_BOTH = {
    "guidance_scale": "--guidance-scale",
    "temporal_guidance_scale": "--temporal-guidance-scale",
    "num_inference_steps": "--steps",
    "seed": "--seed",
    "sampler": "--sampler",
    "propagate": "--propagate",
}
_OF_UPSCALE = {"structure_blur": "--noise-level", **_OF_BOTH}
_OF_EDIT = {
    "structure_blur": "--structure-blur",
    **_OF_BOTH,
    "structure": "--structure",
    "strength": "--strength",
    "clip_skip": "--clip-skip",
    "mask_feather": "--mask-feather",
    "keyframe_stride": "--keyframe-stride",
    "source_guidance_scale": "--source-guidance-scale",
    "blend": "--blend",
}
_SWITCHES = {"inverted_noise": "--inverted-noise"}


def with_names(request: EditRequest, video: str | Path) -> EditRequest:
    """The same with the names of its files in the place of paths, but for its video and its mask.

    Args:
        request: of an edit.
        video: where that is to be found.
    """
    return dataclasses.replace(
        request,
        video=video,
        image=[Path(image).name for image in request.images],
        contents=tuple(use.without_folder() for use in request.contents),
        keyframes=tuple((index, Path(path).name) for index, path in request.keyframes),
    )


def command_text(request: EditRequest, defaults: EditSettings) -> str:
    """A line for a POSIX shell. What is at its default is left out; paths are those of the request."""
    does = "upscale" if request.enlarges else "edit"
    words = ["gen1", does, _argument(request.video), "-o", _argument(request.output)]
    words += _option("--prompt", request.prompt) + _option("--negative-prompt", request.negative_prompt or None)
    for image in request.images:
        scale = request.settings.image_scale
        words += _option("--image", image if scale == 1 else f"{image}:{scale:g}")
    for use in request.contents:
        words += _option("--content", use)
    words += _option("--mask", without_folder(request.mask)) + _option("--background", request.background)
    for index, path in request.keyframes:
        words += _option("--keyframe", f"{index}={path}")
    for name, option in (_OF_UPSCALE if request.enlarges else _OF_EDIT).items():
        value = getattr(request.settings, name)
        words += _option(option, value if value != getattr(defaults, name) else None)
    words += [option for name, option in _SWITCHES.items() if getattr(request.settings, name)]
    words += [] if request.settings.shift_windows else ["--no-shift-windows"]
    interval = request.settings.guidance_interval
    if interval is not None and interval != defaults.guidance_interval:
        words += ["--guidance-interval", "{:g}:{:g}".format(*interval)]
    words += _option("--start", request.start or None) + _option("--frames", request.frames)
    words += _option("--stride", request.stride if request.stride > 1 else None)
    if request.upscaler is not None:
        words += [*_option("--upscale", request.upscale), *_option("--upscaler", request.upscaler)]
        words += _option("--noise-level", request.noise_level if request.noise_level != NOISE_LEVEL else None)
    words += [] if request.match_colour or request.upscale == 1 else ["--no-match-colour"]
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
