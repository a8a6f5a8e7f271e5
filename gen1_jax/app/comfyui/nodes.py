"""The nodes: a model, its structure of images, masks, keyframes, contents, the edit, and what enlarges.

https://docs.comfy.org/custom-nodes/backend/server_overview says what ComfyUI reads off such classes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gen1_jax.app.comfyui.reports import NodeReports
from gen1_jax.app.comfyui.tensors import frames_of, images_like, mask_like, mask_of
from gen1_jax.diffusion import FLOW_SAMPLERS, SAMPLERS
from gen1_jax.editing.contents import ContentUse, parse_weight
from gen1_jax.editing.enlarging import scale_of
from gen1_jax.editing.inputs import resize_frames
from gen1_jax.editing.maps import ClipGeometry
from gen1_jax.editing.masks import read_mask
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import BLENDS, EditSettings
from gen1_jax.editing.upscale_clip import NOISE_LEVEL
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL

_OWN = "the model's own"
_ZERO_IS_OWN = "0: the model's own."
Inputs = dict[str, dict[str, tuple]]


def _number(kind: str, default: float | int, least: float | int, most: float | int, step: float | int, told: str):
    return (kind, {"default": default, "min": least, "max": most, "step": step, "tooltip": told})


def _text(default: str, told: str, multiline: bool = False) -> tuple:
    return ("STRING", {"default": default, "multiline": multiline, "tooltip": told})


def _any(kind: str, told: str) -> tuple:
    return (kind, {"tooltip": told})


_MODEL = _any("GEN1_MODEL", "From Load Gen-1 Model.")
_IMAGES = _any("IMAGE", "The frames of the video, in order.")
_SAMPLER = ([_OWN, *SAMPLERS, *FLOW_SAMPLERS], {"tooltip": "euler, midpoint: of rectified flow."})
_SEED = ("INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True})
_STEPS = _number("INT", 0, 0, 1000, 1, f"Of the sampler. {_ZERO_IS_OWN}")
_PROPAGATE = _text("", "Steps at which frames are mixed along the video's motion: few and late ones, as 15,18 of 20.")
_BLUR = _number("INT", 0, 0, MAX_STRUCTURE_LEVEL, 1, "t_s: how much detail of the structure is given up.")


class Gen1Model:
    """A model, loaded once for all that uses it."""

    CATEGORY, FUNCTION = "Gen-1", "load"
    RETURN_TYPES, RETURN_NAMES = ("GEN1_MODEL",), ("model",)
    DESCRIPTION = "Loads a Gen-1 model: nano, which ships with gen1_jax, or a folder of gen1 train, import or export."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        dtypes = [_OWN, "bfloat16", "float16", "float32"]
        return {
            "required": {"model": _text("nano", "nano, or the path of a model folder or of a training's workdir.")},
            "optional": {
                "dtype": (dtypes, {"tooltip": "Of the computation."}),
                "low_memory": ("BOOLEAN", {"default": False, "tooltip": "Let each network go when it is done."}),
                "adapter": _text("", "The path of a LoRA, or of an adapter of gen1 customize."),
                "adapter_strength": _number("FLOAT", 1.0, -10.0, 10.0, 0.05, "How much it counts."),
            },
        }

    def load(
        self,
        model: str,
        dtype: str = _OWN,
        low_memory: bool = False,
        adapter: str = "",
        adapter_strength: float | int = 1.0,
    ) -> tuple[Gen1Pipeline]:
        """The pipeline."""
        loras = [(adapter.strip(), float(adapter_strength))] if adapter.strip() else []
        options = dict(dtype=None if dtype == _OWN else dtype, low_memory=low_memory, loras=loras)
        return (Gen1Pipeline.from_pretrained(model.strip(), **options),)


class Gen1Structure:
    """What the model sees of a video."""

    CATEGORY, FUNCTION = "Gen-1", "estimate"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("structure",)
    DESCRIPTION = "Estimates the structure of a video, such as its depth. Mended, it can be given to Edit Video."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        kind = _text("", "depth, canny, ...; empty: what the model follows first.")
        return {"required": {"model": _MODEL, "images": _IMAGES}, "optional": {"kind": kind, "structure_blur": _BLUR}}

    def estimate(self, model: Gen1Pipeline, images: Any, kind: str = "", structure_blur: int = 0) -> tuple[Any]:
        """The maps as pictures, of the size of the images."""
        frames, progress = frames_of(images), NodeReports(model).progress
        settings = EditSettings(structure=_or_none(kind), structure_blur=structure_blur).of(model.config)
        maps = model.read_structure(_seen(model, frames), settings, progress=progress)
        return (images_like(_like_frames(model.pictures_of(maps), frames), images),)


class Gen1Mask:
    """A mask that is found in a video."""

    CATEGORY, FUNCTION = "Gen-1", "find"
    RETURN_TYPES, RETURN_NAMES = ("MASK",), ("mask",)
    DESCRIPTION = (
        "Finds what may change: near:auto, far:0.4, click:X,Y, click:X,Y@FRAME, or text:WORDS; see gen1 edit --mask."
    )

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        where = _text("near:auto", "near:auto, far:0.4, click:120,80, text:the dog")
        return {"required": {"model": _MODEL, "images": _IMAGES, "where": where}}

    def find(self, model: Gen1Pipeline, images: Any, where: str) -> tuple[Any]:
        """1 where it is, in each frame."""
        frames, settings, progress = frames_of(images), EditSettings().of(model.config), NodeReports(model).progress
        seen, estimated = _seen(model, frames), {}
        maps = model.read_structure(seen, settings, None, progress, estimated)
        geometry = ClipGeometry(shape=frames.shape[1:3])
        mask = read_mask(model, where.strip(), None, seen, maps, settings, geometry, progress, estimated)
        return (mask_like(mask.at(frames.shape[1:3]), images),)


class Gen1Keyframe:
    """A frame as it was painted."""

    CATEGORY, FUNCTION = "Gen-1", "add"
    RETURN_TYPES, RETURN_NAMES = ("GEN1_KEYFRAMES",), ("keyframes",)
    DESCRIPTION = "Gives a frame of the edit, for models with an input for known frames; chain several."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        frame = _number("INT", 0, -4096, 4096, 1, "The number of the frame, from 0; -1 is the last.")
        others = _any("GEN1_KEYFRAMES", "Other keyframes.")
        picture = _any("IMAGE", "The frame as it is to be.")
        return {"required": {"picture": picture, "frame": frame}, "optional": {"others": others}}

    def add(self, picture: Any, frame: int, others: dict[int, np.ndarray] | None = None) -> tuple[dict]:
        """Pictures by the number of their frame."""
        return ({**(others or {}), frame: frames_of(picture)[0]},)


class Gen1Content:
    """One of several contents."""

    CATEGORY, FUNCTION = "Gen-1", "add"
    RETURN_TYPES, RETURN_NAMES = ("GEN1_CONTENTS",), ("contents",)
    DESCRIPTION = "A prompt or a picture among several, and how much it counts along the video; chain them."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        return {
            "required": {
                "prompt": _text("", "In words; empty with a picture.", multiline=True),
                "weight": _text("1", "A number, relative to the others, or 1..0 from the first frame to the last."),
            },
            "optional": {
                "picture": _any("IMAGE", "The content as a picture, instead of the prompt."),
                "others": _any("GEN1_CONTENTS", "Other contents."),
            },
        }

    def add(
        self, prompt: str, weight: str, picture: Any = None, others: tuple[ContentUse, ...] = ()
    ) -> tuple[tuple[ContentUse, ...]]:
        """The others, and this one."""
        image = None if picture is None else frames_of(picture)[0]
        points = parse_weight(weight.strip(), "weight")
        return ((*others, ContentUse(prompt=_or_none(prompt), image=image, weight=points)),)


class Gen1Edit:
    """The edit."""

    CATEGORY, FUNCTION = "Gen-1", "edit"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "IMAGE"), ("images", "structure")
    DESCRIPTION = "Keeps the structure of a video and gives it the content of a prompt or of a picture."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        own = EditSettings()
        scale = lambda default, told: _number("FLOAT", default, -100.0, 100.0, 0.1, told)
        return {
            "required": {
                "model": _MODEL,
                "images": _IMAGES,
                "prompt": _text("", "What the result should look like; empty with a picture.", multiline=True),
                "seed": _SEED,
                "steps": _STEPS,
                "guidance_scale": scale(0.0, f"How strictly the content is followed. {_ZERO_IS_OWN}"),
                "temporal_guidance_scale": scale(1.0, "Above 1 smoother in time, below 1 more hand-drawn."),
                "structure_blur": _BLUR,
            },
            "optional": {
                "sampler": _SAMPLER,
                "strength": _number("FLOAT", 1.0, 0.01, 1.0, 0.01, "Below 1 colours of the video are kept."),
                "negative_prompt": _text("", "What the result should not look like.", multiline=True),
                "picture": _any("IMAGE", "The content as a picture, instead of the prompt."),
                "mask": _any("MASK", "1 where the video may change; all else stays as it is."),
                "background": _text("", "What all outside of the mask becomes."),
                "mask_feather": _number("FLOAT", float(own.mask_feather), 0.0, 1000.0, 0.5, "Pixels."),
                "keyframes": _any("GEN1_KEYFRAMES", "Frames as they are to be."),
                "keyframe_stride": _number("INT", 1, 1, 64, 1, "Every how many-th frame is sampled first."),
                "structure": _text("", 'Kinds and weights, "depth=0.9,canny=0.4"; empty: the first of the model.'),
                "structure_maps": _any("IMAGE", "Maps in place of an estimate of the first structure."),
                "contents": _any("GEN1_CONTENTS", "Several contents, in the place of prompt and picture."),
                "blend": (list(BLENDS), {"tooltip": "Contents by a prediction of each, or by one of their mean."}),
                "inverted_noise": ("BOOLEAN", {"default": False, "tooltip": "Begin with the video's own noise."}),
                "propagate": _PROPAGATE,
                "source_guidance_scale": scale(
                    0.0, "How closely the video itself is followed. 0: as other structures."
                ),
            },
        }

    def edit(
        self,
        model: Gen1Pipeline,
        images: Any,
        prompt: str,
        *,
        seed: int = 0,
        steps: int = 0,
        guidance_scale: float | int = 0.0,
        sampler: str = _OWN,
        negative_prompt: str = "",
        picture: Any = None,
        mask: Any = None,
        background: str = "",
        keyframes: dict[int, np.ndarray] | None = None,
        structure: str = "",
        structure_maps: Any = None,
        contents: tuple[ContentUse, ...] | None = None,
        blend: str = EditSettings.blend,
        inverted_noise: bool = False,
        propagate: str = "",
        source_guidance_scale: float | int = 0.0,
        **numbers: float | int,
    ) -> tuple[Any, Any]:
        """The edited frames, and the structures that were seen, side by side."""
        frames, reports = frames_of(images), NodeReports(model)
        settings = EditSettings(structure=_or_none(structure)).of(model.config)
        first = next((use.kind for use in settings.structures), None)
        out = model.edit(
            frames,
            prompt=_or_none(prompt),
            negative_prompt=_or_none(negative_prompt),
            image=None if picture is None else frames_of(picture)[0],
            seed=seed,
            num_inference_steps=steps or None,
            guidance_scale=guidance_scale or None,
            sampler=None if sampler == _OWN else sampler,
            structure=_or_none(structure),
            structure_from=None if structure_maps is None else {first: frames_of(structure_maps)},
            mask=None if mask is None else mask_of(mask, frames),
            background=_or_none(background),
            known=keyframes,
            contents=contents,
            blend=blend,
            inverted_noise=inverted_noise,
            propagate=_or_none(propagate),
            source_guidance_scale=source_guidance_scale or None,
            progress=reports.progress,
            watch=reports.watch,
            **numbers,
        )
        return images_like(out.frames, images), images_like(_like_frames(out.structures, frames), images)


class Gen1Upscale:
    """What makes a video larger."""

    CATEGORY, FUNCTION = "Gen-1", "upscale"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE",), ("images",)
    DESCRIPTION = "Enlarges a video, an edit for example, by a model that was trained to: see gen1 upscale."

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """What the node takes."""
        level = "0 trusts every pixel; with more, artefacts are corrected, and more is made up."
        scale = lambda told: _number("FLOAT", 1.0, -100.0, 100.0, 0.1, told)
        return {
            "required": {
                "model": _any("GEN1_MODEL", "An upscaler, from another Load Gen-1 Model."),
                "images": _IMAGES,
                "seed": _SEED,
                "noise_level": _number("INT", NOISE_LEVEL, 0, MAX_STRUCTURE_LEVEL, 1, level),
            },
            "optional": {
                "steps": _STEPS,
                "sampler": _SAMPLER,
                "match_colour": ("BOOLEAN", {"default": True, "tooltip": "Made small again, it is what it came of."}),
                "prompt": _text("", "What the video shows; empty: what the model sees in it.", multiline=True),
                "negative_prompt": _text("", "What the result should not look like.", multiline=True),
                "guidance_scale": scale("Above 1 more of the prompt, at twice the cost."),
                "temporal_guidance_scale": scale("Above 1 smoother in time."),
                "propagate": _PROPAGATE,
            },
        }

    def upscale(
        self,
        model: Gen1Pipeline,
        images: Any,
        *,
        steps: int = 0,
        sampler: str = _OWN,
        prompt: str = "",
        negative_prompt: str = "",
        propagate: str = "",
        **numbers: float | int,
    ) -> tuple[Any]:
        """The frames, so many times as large as the model makes them."""
        reports = NodeReports(model)
        out = model.upscale(
            frames_of(images),
            prompt=_or_none(prompt),
            negative_prompt=_or_none(negative_prompt),
            scale=scale_of(model.config) or 2,
            num_inference_steps=steps or None,
            sampler=None if sampler == _OWN else sampler,
            propagate=_or_none(propagate),
            progress=reports.progress,
            watch=reports.watch,
            **numbers,
        )
        return (images_like(out.frames, images),)


def _seen(model: Gen1Pipeline, frames: np.ndarray) -> np.ndarray:
    """Frames at the size at which the model sees them."""
    return resize_frames(frames, model.config.working_size(*frames.shape[1:3]))


def _like_frames(pictures: Mapping[str, np.ndarray], frames: np.ndarray) -> np.ndarray:
    """Structures side by side, each of the size of the frames; black if there are none."""
    size = frames.shape[1:3]
    shown = [resize_frames(each, size) for each in pictures.values()]
    return np.concatenate(shown or [np.zeros_like(frames)], axis=2)


def _or_none(text: str) -> str | None:
    return text.strip() or None


_NAMES: dict[Callable, str] = {
    Gen1Model: "Load Gen-1 Model",
    Gen1Structure: "Gen-1 Structure of Video",
    Gen1Mask: "Gen-1 Find Mask in Video",
    Gen1Keyframe: "Gen-1 Keyframe",
    Gen1Content: "Gen-1 Content",
    Gen1Edit: "Gen-1 Edit Video",
    Gen1Upscale: "Gen-1 Upscale Video",
}
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NAMES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: name for node, name in _NAMES.items()}
