"""`/edit`, `/structure` and `/upscale`, the page's endpoints for programs: README.md tells of their parameters."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from gen1_jax.app.fields import FRAMES, keyframes_of
from gen1_jax.app.session import EditSession
from gen1_jax.editing.contents import ContentUse
from gen1_jax.editing.masks import file_of, takes_model
from gen1_jax.editing.masks.sources import OF_CLIP
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.upscale_clip import NOISE_LEVEL
from gen1_jax.errors import UserError, counted


def offer_endpoints(session: EditSession) -> None:
    """Adds them to the page that is being drawn; their parameters are those of any model's edit."""
    with gr.Column(visible=False):
        _offer_edit(session)
        _offer_structure(session)
        if session.models.upscaler is not None:
            _offer_upscale(session)


def _offer_edit(session: EditSession) -> None:
    # Gradio takes names of parameters from here, and what they are when left out: None, or the value of the component.
    def edit(
        video,
        structure_blur,
        temporal_guidance_scale,
        strength,
        image_scale,
        mask_feather,
        keyframe_stride,
        blend,
        inverted_noise,
        enlarged,
        noise_level,
        match_colour,
        seed,
        start,
        frames,
        stride,
        prompt=None,
        negative_prompt=None,
        image=None,
        contents=None,
        content_images=None,
        structure=None,
        mask=None,
        mask_file=None,
        mask_frame=None,
        background=None,
        keyframes=None,
        keyframe_numbers=None,
        guidance_scale=None,
        source_guidance_scale=None,
        steps=None,
        sampler=None,
        propagate=None,
    ):
        settings = dict(
            structure=structure or None,
            structure_blur=structure_blur,
            guidance_scale=guidance_scale,
            temporal_guidance_scale=temporal_guidance_scale,
            source_guidance_scale=source_guidance_scale,
            num_inference_steps=steps,
            seed=seed,
            sampler=sampler or None,
            strength=strength,
            image_scale=image_scale,
            mask_feather=mask_feather,
            keyframe_stride=keyframe_stride,
            blend=blend,
            inverted_noise=inverted_noise,
            propagate=propagate or None,
        )

        def work() -> str:
            asked = session.request(
                video,
                prompt=prompt,
                negative_prompt=negative_prompt,
                image=image,
                contents=contents_of(contents, content_images),
                mask=_mask(mask, mask_file, mask_frame),
                background=background,
                keyframes=keyframes_of(keyframes, keyframe_numbers),
                settings=EditSettings(**settings),
                enlarged=enlarged,
                noise_level=noise_level,
                match_colour=match_colour,
                start=start,
                frames=frames,
                stride=stride,
            )
            return _file_of(session, asked)

        return _blaming(work)

    own, several = session.defaults, session.pipeline.config.unet.image_adapter
    inputs = [
        _clip(),
        _whole("Structure blur", own.structure_blur),
        _number("Temporal guidance scale", own.temporal_guidance_scale),
        _number("Strength", own.strength),
        _number("Image scale", own.image_scale),
        _number("Mask feather", own.mask_feather),
        _whole("Keyframe stride", own.keyframe_stride),
        gr.Textbox(own.blend, label="Blend"),
        gr.Checkbox(own.inverted_noise, label="Inverted noise"),
        gr.Checkbox(False, label="Enlarged"),
        *_enlarging(),
        _whole("Seed", own.seed),
        *_part(session),
        _text("Prompt"),
        _text("Negative prompt"),
        gr.File(label="Picture", file_count="multiple" if several else "single"),
        gr.JSON(value=None, label="Contents"),
        gr.File(label="Pictures of the contents", file_count="multiple"),
        _text("Structure"),
        _text("Mask"),
        gr.File(label="Mask"),
        _whole("Frame of the mask", None),
        _text("Background"),
        gr.File(label="Keyframes", file_count="multiple"),
        _text("Numbers of the keyframes"),
        _number("Guidance scale", None),
        _number("Source guidance scale", None),
        _whole("Steps", None),
        _text("Sampler"),
        _text("Steps that propagate"),
    ]
    _offer("edit", edit, inputs, "Edit a clip, and wait for it.")


def _offer_structure(session: EditSession) -> None:
    def structure(video, structure_blur, start, frames, stride, structure=None, mask=None):
        settings = dict(structure=structure or None, structure_blur=structure_blur)

        def work() -> str:
            where = _mask(mask, None, None)
            if where is not None and takes_model(where):
                raise UserError(f"mask {where}: words are for /edit, which looks for them with the whole model")
            part = dict(start=int(start), frames=int(frames), stride=int(stride))
            return str(session.structure_video(video, EditSettings(**settings), mask=where, **part))

        return _blaming(work)

    blur = _whole("Structure blur", session.defaults.structure_blur)
    inputs = [_clip(), blur, *_part(session), _text("Structure"), _text("Mask")]
    _offer("structure", structure, inputs, "What the model sees of a clip: its structures as a video.")


def _offer_upscale(session: EditSession) -> None:
    def upscale(
        video,
        temporal_guidance_scale,
        noise_level,
        match_colour,
        seed,
        start,
        frames,
        stride,
        prompt=None,
        negative_prompt=None,
        guidance_scale=None,
        steps=None,
        sampler=None,
        propagate=None,
    ):
        numbers = dict(
            temporal_guidance_scale=temporal_guidance_scale,
            guidance_scale=guidance_scale,
            num_inference_steps=steps,
            sampler=sampler or None,
            propagate=propagate or None,
            seed=seed,
        )
        told = dict(prompt=prompt or None, negative_prompt=negative_prompt or None)
        how = dict(noise_level=noise_level, match_colour=match_colour, start=start, frames=frames, stride=stride)
        return _blaming(lambda: _file_of(session, session.enlarging(video, **told, **how, **numbers)))

    own = session.defaults
    inputs = [
        _clip(),
        _number("Temporal guidance scale", own.temporal_guidance_scale),
        *_enlarging(),
        _whole("Seed", own.seed),
        *_part(session),
        _text("Prompt"),
        _text("Negative prompt"),
        _number("Guidance scale", None),
        _whole("Steps", None),
        _text("Sampler"),
        _text("Steps that propagate"),
    ]
    _offer("upscale", upscale, inputs, "Enlarge a clip, and wait for it.")


def _clip() -> gr.File:
    return gr.File(label="Clip")


def _text(label: str) -> gr.Textbox:
    return gr.Textbox(value=None, label=label)


def _number(label: str, value: float | int | None) -> gr.Number:
    return gr.Number(value, label=label)


def _whole(label: str, value: int | None) -> gr.Number:
    return gr.Number(value, label=label, precision=0)


def _part(session: EditSession) -> list[gr.Number]:
    return [_whole("Start", 0), _whole("Frames", min(FRAMES, session.options.max_frames)), _whole("Stride", 1)]


def _enlarging() -> list[Component]:
    return [_whole("Noise level", NOISE_LEVEL), gr.Checkbox(True, label="Match colour")]


def _offer(name: str, function: Callable, inputs: Sequence[Component], told: str) -> None:
    trigger, answer = gr.Button(), gr.File(label="The result")
    trigger.click(function, inputs, answer, api_name=name, api_description=told, concurrency_limit=None)


def _blaming(work: Callable[[], str]) -> str:
    """What it gives; what a caller did wrong is told in one line."""
    try:
        return work()
    except (ValueError, OSError) as fault:
        raise gr.Error(str(fault), print_exception=False) from None


def _file_of(session: EditSession, request) -> str:
    """The file of an edit; it waits for those that came before, and none of its caller's is cancelled for it."""
    *_, state = session.submit(request, object()).states()
    if state.files is None:
        raise UserError(state.message or state.stage)
    return str(state.files.edit)


def _mask(text: str | None, file: str | None, frame: int | None) -> str | None:
    """The mask in the notation of `gen1 edit --mask`. The text names no file, for that would be one of this machine.

    Raises:
        UserError: it does, or both are given.
    """
    if text and file:
        raise UserError("give either mask or mask_file")
    if frame is not None and not file:
        raise UserError("mask_frame is for mask_file: say click:X,Y@FRAME of a place")
    if text and (text.partition(":")[0] not in OF_CLIP or file_of(text) is not None):
        raise UserError(f"mask {text}: say near:D, far:D, click:X,Y, text:WORDS or changed; a file goes to mask_file")
    if file is None:
        return text or None
    return str(Path(file)) if frame is None else f"{file}@{frame}"


def contents_of(texts: Any, files: Sequence[str] | None) -> list[ContentUse]:
    """Contents in the notation of `gen1 edit --content`, in which image=N is the N-th of the pictures, from 0.

    Raises:
        UserError: it is no list of such, or there is no such picture; paths would be those of this machine.
    """
    files, texts = list(files or []), [] if texts is None else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError('contents is a list of texts, such as ["prompt=a clay world:1..0", "image=0:0..1"]')
    uses = [ContentUse.parse(text) for text in texts]
    shown = {use.image for use in uses if use.image is not None}
    if shown != {str(number) for number in range(len(files))}:
        named = ", ".join(f"image={number}" for number in sorted(shown)) or "no picture"
        raise UserError(
            f"contents name {named}, and content_images are {counted(len(files), 'picture')}: image=0 is the first"
        )
    return [use if use.image is None else dataclasses.replace(use, image=files[int(use.image)]) for use in uses]
