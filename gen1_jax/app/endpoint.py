"""`/edit`, the page's endpoint for programs: README.md tells of its parameters."""

from collections.abc import Sequence

import gradio as gr

from gen1_jax.app.fields import FRAMES
from gen1_jax.app.session import EditSession
from gen1_jax.editing.settings import EditSettings


def offer_endpoint(session: EditSession) -> None:
    """Adds it to the page that is being drawn; its parameters are those of any model's edit."""

    # Gradio takes names of parameters from here, and what they are when left out: None, or the value of the component.
    def edit(
        video,
        structure_blur,
        temporal_guidance_scale,
        strength,
        image_scale,
        seed,
        start,
        frames,
        stride,
        prompt=None,
        negative_prompt=None,
        image=None,
        structure=None,
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
        )
        part = dict(start=start, frames=frames, stride=stride)
        return _file_of(session, video, settings, prompt=prompt, negative_prompt=negative_prompt, image=image, **part)

    own, several = session.defaults, session.pipeline.config.unet.image_adapter
    whole = lambda label, value: gr.Number(value, label=label, precision=0)
    with gr.Column(visible=False):
        inputs = [
            gr.File(label="Clip"),
            whole("Structure blur", own.structure_blur),
            gr.Number(own.temporal_guidance_scale, label="Temporal guidance scale"),
            gr.Number(own.strength, label="Strength"),
            gr.Number(own.image_scale, label="Image scale"),
            whole("Seed", own.seed),
            whole("Start", 0),
            whole("Frames", min(FRAMES, session.options.max_frames)),
            whole("Stride", 1),
            gr.Textbox(value=None, label="Prompt"),
            gr.Textbox(value=None, label="Negative prompt"),
            gr.File(label="Picture", file_count="multiple" if several else "single"),
            gr.Textbox(value=None, label="Structure"),
            gr.Number(value=None, label="Guidance scale"),
            whole("Steps", None),
            gr.Textbox(value=None, label="Sampler"),
        ]
        trigger, answer = gr.Button(), gr.File(label="The edit")
    trigger.click(
        edit,
        inputs,
        answer,
        api_name="edit",
        api_description="Edit a clip, and wait for it.",
        concurrency_limit=None,
    )


def _file_of(
    session: EditSession, video: str | None, settings: dict, *, image: str | Sequence[str] | None, **request
) -> str:
    """The file of an edit; it waits for those that came before, and none of its caller's is cancelled for it."""
    try:
        asked = session.request(video, image=image, settings=EditSettings(**settings), **request)
        *_, state = session.submit(asked, object()).states()
    except ValueError as fault:
        raise gr.Error(str(fault), print_exception=False) from None
    if state.files is None:
        raise gr.Error(state.message or state.stage, print_exception=False)
    return str(state.files.edit)
