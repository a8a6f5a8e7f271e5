"""`/edit` and `/structure`, the page's endpoints for programs: README.md tells of their parameters."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from gradio.components import Component

from gen1_jax.app.fields import FRAMES, keyframes_of
from gen1_jax.app.session import EditSession
from gen1_jax.editing.masks import file_of
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError


def offer_endpoints(session: EditSession) -> None:
    """Adds them to the page that is being drawn; their parameters are those of any model's edit."""

    # Gradio takes names of parameters from here, and what they are when left out: None, or the value of the component.
    def edit(
        video,
        structure_blur,
        temporal_guidance_scale,
        strength,
        image_scale,
        mask_feather,
        keyframe_stride,
        seed,
        start,
        frames,
        stride,
        prompt=None,
        negative_prompt=None,
        image=None,
        structure=None,
        mask=None,
        mask_file=None,
        mask_frame=None,
        background=None,
        keyframes=None,
        keyframe_numbers=None,
        guidance_scale=None,
        steps=None,
        sampler=None,
    ):
        settings = dict(
            structure=structure or None,
            structure_blur=structure_blur,
            guidance_scale=guidance_scale,
            temporal_guidance_scale=temporal_guidance_scale,
            num_inference_steps=steps,
            seed=seed,
            sampler=sampler or None,
            strength=strength,
            image_scale=image_scale,
            mask_feather=mask_feather,
            keyframe_stride=keyframe_stride,
        )

        def work() -> str:
            asked = session.request(
                video,
                prompt=prompt,
                negative_prompt=negative_prompt,
                image=image,
                mask=_mask(mask, mask_file, mask_frame),
                background=background,
                keyframes=keyframes_of(keyframes, keyframe_numbers),
                settings=EditSettings(**settings),
                start=start,
                frames=frames,
                stride=stride,
            )
            return _file_of(session, asked)

        return _blaming(work)

    def structure(video, structure_blur, start, frames, stride, structure=None, mask=None):
        settings = dict(structure=structure or None, structure_blur=structure_blur)

        def work() -> str:
            where = _mask(mask, None, None)
            if (where or "").startswith("text:"):
                raise UserError(f"mask {where}: words are for /edit, which looks for them with the whole model")
            part = dict(start=int(start), frames=int(frames), stride=int(stride))
            return str(session.structure_video(video, EditSettings(**settings), mask=where, **part))

        return _blaming(work)

    own, several = session.defaults, session.pipeline.config.unet.image_adapter
    whole = lambda label, value: gr.Number(value, label=label, precision=0)
    text = lambda label: gr.Textbox(value=None, label=label)
    clip, blur = lambda: gr.File(label="Clip"), lambda: whole("Structure blur", own.structure_blur)
    part = lambda: [
        whole("Start", 0), whole("Frames", min(FRAMES, session.options.max_frames)), whole("Stride", 1)
    ]  # fmt: skip
    with gr.Column(visible=False):
        of_edit = [
            clip(),
            blur(),
            gr.Number(own.temporal_guidance_scale, label="Temporal guidance scale"),
            gr.Number(own.strength, label="Strength"),
            gr.Number(own.image_scale, label="Image scale"),
            gr.Number(own.mask_feather, label="Mask feather"),
            whole("Keyframe stride", own.keyframe_stride),
            whole("Seed", own.seed),
            *part(),
            text("Prompt"),
            text("Negative prompt"),
            gr.File(label="Picture", file_count="multiple" if several else "single"),
            text("Structure"),
            text("Mask"),
            gr.File(label="Mask"),
            whole("Frame of the mask", None),
            text("Background"),
            gr.File(label="Keyframes", file_count="multiple"),
            text("Numbers of the keyframes"),
            gr.Number(value=None, label="Guidance scale"),
            whole("Steps", None),
            text("Sampler"),
        ]
        of_structure = [clip(), blur(), *part(), text("Structure"), text("Mask")]
        _offer("edit", edit, of_edit, "Edit a clip, and wait for it.")
        _offer("structure", structure, of_structure, "What the model sees of a clip: its structures as a video.")


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
    if text and (text.partition(":")[0] not in ("near", "far", "click", "text") or file_of(text) is not None):
        raise UserError(f"mask {text}: say near:D, far:D, click:X,Y or text:WORDS; a file goes to mask_file")
    if file is None:
        return text or None
    return str(Path(file)) if frame is None else f"{file}@{frame}"
