"""The form: what a visitor says of an edit, in fields for that alone which the model has use for.

model ──► fields ──values──► EditRequest
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from jaxtyping import UInt8

from gen1_jax.app.advanced_fields import AdvancedFields
from gen1_jax.app.content_fields import ContentFields
from gen1_jax.app.mask_fields import MaskFields
from gen1_jax.app.session import DEMO_CLIP, EditSession
from gen1_jax.app.upscale_fields import UpscaleFields
from gen1_jax.diffusion import samplers_of
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings, scale_ranges, structures_as_text
from gen1_jax.errors import UserError, counted
from gen1_jax.media import side_by_side
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL

QUICK: dict[str, Any] = dict(show_progress="hidden", api_visibility="private", queue=False)
"""Of what answers at once and is no business of programs."""

FRAMES = 16
"""Of an edit, unless the visitor wants more."""

_PROMPT = "an oil painting of a copper car in a snowy field at dusk"
_A_PROMPT, _A_PICTURE = "a prompt", "a picture"
_FIELD_OF_KIND = "structure {}".format


class EditForm:
    """Draws the fields, and reads them. To be made where Gradio is to put them.

    Args:
        session: whose model it is, and whose limits.

    Attributes:
        fields: by name, in the order in which `request` and `look` take their values.
        contents: those of further contents.
        masks: those that say what may change.
        upscaling: those that say what is enlarged.
        advanced: those that are seldom asked for.
        picture_view: what shows the pictures of `fields["image"]`; None for a model that takes none.
    """

    def __init__(self, session: EditSession):
        self._session, self._config = session, session.pipeline.config
        self.fields: dict[str, Component] = {}
        self.picture_view: gr.Image | None = None
        self._video()
        if self._config.unet.content.reads_text:
            self._text()
        else:
            self._prompt_or_picture()
        self.contents = ContentFields(session)
        self.masks = MaskFields(session, QUICK)
        self.fields |= self.contents.fields | self.masks.fields
        if self._config.unet.known:
            self._keyframes()
        self._structures()
        self._scales()
        self._part()
        self._sampling()
        self.upscaling, self.advanced = UpscaleFields(session, QUICK), AdvancedFields(session)
        self.fields |= self.upscaling.fields | self.advanced.fields

    @property
    def components(self) -> list[Component]:
        """The fields."""
        return list(self.fields.values())

    @property
    def looked_at(self) -> list[Component]:
        """Those that change what is seen of the clip before it is edited."""
        names = ["video", "structure_blur", "start", "frames", "stride", *map(_FIELD_OF_KIND, self._weighed)]
        names += ["mask", "mask_depth", "mask_point", "mask_drawn", *self.upscaling.looked_at]
        return [self.fields[name] for name in names]

    def look(self, *values: Any) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
        """What `EditSession.structure` says of the values of the fields.

        Raises:
            ValueError: see there.
        """
        said = self.said(values)
        structure, part = self._structure(said), _part_of(said)
        if (enlarging := self.upscaling.of_clip(said)) is not None:
            return self._session.small(said["video"], enlarging["noise_level"], **part)
        mask, level = self.masks.shown(said), int(said["structure_blur"])
        return self._session.structure(said["video"], level, structure=structure, mask=mask, **part)

    def request(self, *values: Any) -> EditRequest:
        """What the values of the fields ask for.

        Raises:
            ValueError: it cannot be done, or something is missing.
        """
        said = self.said(values)
        part = _part_of(said)
        if (enlarging := self.upscaling.of_clip(said)) is not None:
            numbers = dict(seed=_seed_of(said), propagate=self.advanced.propagate(said))
            return self._session.enlarging(said["video"], **enlarging, **numbers, **part)
        content = _content_of(said)
        contents = self.contents.contents(said, content["prompt"], content["image"])
        settings = EditSettings(
            structure=self._structure(said),
            structure_blur=int(said["structure_blur"]),
            guidance_scale=float(said["guidance_scale"]),
            temporal_guidance_scale=float(said["temporal_guidance_scale"]),
            guidance_interval=(float(said["guidance_start"]), float(said["guidance_end"])),
            num_inference_steps=int(said["steps"]),
            seed=_seed_of(said),
            sampler=said["sampler"],
            strength=float(said.get("strength", 1.0)),
            image_scale=1.0 if contents else float(said.get("image_scale", 1.0)),
            mask_feather=float(said["mask_feather"]),
            keyframe_stride=int(said.get("keyframe_stride", 1)),
            blend=said["blend"],
            **self.advanced.settings(said),
        )
        if contents:
            content |= {"prompt": None, "image": None, "contents": contents}
        content["keyframes"] = keyframes_of(said.get("keyframes"), said.get("keyframe_numbers"))
        content |= {"mask": self.masks.mask(said), "background": said["background"] or None}
        content |= self.upscaling.of_edit(said)
        return self._session.request(said["video"], **content, **part, settings=settings)

    def picture(self, images: str | Sequence[str] | None) -> UInt8[np.ndarray, "h w 3"] | None:
        """The pictures that give the content, in one row.

        Raises:
            MediaError: one cannot be read.
        """
        pictures = [self._session.picture(image) for image in _listed(images)]
        return side_by_side(pictures) if pictures else None

    def said(self, values: Sequence[Any]) -> dict[str, Any]:
        """Values by the names of their fields."""
        return dict(zip(self.fields, values, strict=True))

    @property
    def _weighed(self) -> tuple[str, ...]:
        """Kinds of structure that have a weight here: those that the model estimates, if there is a choice."""
        unet = self._config.unet
        return self._session.pipeline.structures.estimable if unet.controls or len(unet.structures) > 1 else ()

    def _structure(self, said: Mapping[str, Any]) -> str | None:
        """The structures as text; a control of weight 0 is left out, unless nothing else is there."""
        weights = {kind: float(said[_FIELD_OF_KIND(kind)]) for kind in self._weighed}
        kept = {kind: weight for kind, weight in weights.items() if weight or kind in self._config.unet.required}
        return structures_as_text(kept or dict(list(weights.items())[:1]) or None)

    def _video(self) -> None:
        fields = self.fields
        fields["video"] = gr.File(label=self._session.label("Clip"), value=str(DEMO_CLIP), height=90, elem_id="clip")
        demo = gr.Button("Take the demo clip", size="sm", elem_id="demo")
        demo.click(lambda: str(DEMO_CLIP), outputs=fields["video"], **QUICK)

    def _prompt_or_picture(self) -> None:
        reads = self._config.takes_prompts
        kinds = [_A_PROMPT, _A_PICTURE] if reads else [_A_PICTURE]
        kind = gr.Radio(kinds, value=kinds[0], label="Content from", elem_id="kind")
        self.fields["kind"] = kind
        self._prompt(visible=reads)
        with gr.Column(visible=not reads) as pictures:
            self._pictures("Picture", "single")
        kind.change(
            lambda kind: (gr.update(visible=kind == _A_PROMPT), gr.update(visible=kind == _A_PICTURE)),
            kind,
            [self.fields["prompt"], pictures],
            **QUICK,
        )

    def _text(self) -> None:
        self._prompt()
        self.fields["negative_prompt"] = gr.Textbox(
            label="Negative prompt",
            info="What it should not look like.",
            placeholder="worst quality, low quality, blurry",
            elem_id="negative",
        )
        if self._config.unet.image_adapter:
            self._pictures("Pictures beside the prompt", "multiple")
            self.fields["image_scale"] = gr.Slider(
                0, 1.5, 1, step=0.05, label="Image scale", info="How much the pictures count beside the prompt."
            )

    def _prompt(self, *, visible: bool = True) -> None:
        self.fields["prompt"] = gr.Textbox(
            value=_PROMPT,
            lines=2,
            label="Prompt",
            info="What the result should look like.",
            elem_id="prompt",
            visible=visible,
        )

    def _pictures(self, label: str, count: str) -> None:
        self.fields["image"] = gr.File(label=self._session.label(label), file_count=count, height=90, elem_id="picture")
        self.picture_view = gr.Image(show_label=False, interactive=False, height=140, buttons=[])

    def _keyframes(self) -> None:
        with gr.Accordion("Keyframes", open=False, elem_id="keyframes"):
            self.fields["keyframes"] = gr.File(
                label=self._session.label("Frames as you painted them"),
                file_count="multiple",
                height=90,
                elem_id="keyframe",
            )
            self.fields["keyframe_numbers"] = gr.Textbox(
                label="Their numbers", info="Of the edit's frames, from 0, as 0, 8; -1 is the last.", elem_id="numbers"
            )
            self.fields["keyframe_stride"] = gr.Slider(
                1,
                self._config.num_frames - 1,
                1,
                step=1,
                label="Keyframe stride",
                info="Every how many-th frame is sampled first; those between are cheap then.",
                elem_id="keyframe-stride",
            )

    def _structures(self) -> None:
        followed = {use.kind: use.weight for use in self._session.defaults.structures} if self._weighed else {}
        if self._weighed and not followed.keys() & set(self._weighed):
            followed = {self._weighed[0]: 1.0}
        for kind in self._weighed:
            self.fields[_FIELD_OF_KIND(kind)] = gr.Slider(
                0,
                2,
                followed.get(kind, 0),
                step=0.05,
                label=f"Structure: {kind}",
                info="How much of it is kept: 0 nothing, 1 as in training.",
                elem_id=f"weight-{kind}",
            )
        self.fields["structure_blur"] = gr.Slider(
            0,
            MAX_STRUCTURE_LEVEL,
            self._session.defaults.structure_blur,
            step=1,
            label="Structure blur t_s",
            info="How much detail of the structure is given up: 0 keeps all of it.",
            elem_id="blur",
        )

    def _scales(self) -> None:
        defaults, learned = self._session.defaults, scale_ranges(self._config)
        self.fields["guidance_scale"] = gr.Slider(
            *learned.get("guidance_scale", (0, 20)),
            defaults.guidance_scale,
            step=0.1,
            label="Guidance scale w",
            info="How strictly the content is followed.",
        )
        self.fields["temporal_guidance_scale"] = gr.Slider(
            *learned.get("temporal_guidance_scale", (0, 2)),
            defaults.temporal_guidance_scale,
            step=0.05,
            label="Temporal guidance scale w_t",
            info="Above 1 smoother in time, below 1 more hand-drawn.",
        )
        start, end = defaults.guidance_interval
        with gr.Row():
            part = dict(minimum=0, maximum=1, step=0.05, min_width=90)
            info = "Of the steps, 0 to 1; outside there is no guidance, which is faster."
            self.fields["guidance_start"] = gr.Number(start, label="Guidance from", info=info, **part)
            self.fields["guidance_end"] = gr.Number(end, label="Guidance until", info="0.5 is half way.", **part)
        if self._config.unet.content.reads_text:
            self.fields["strength"] = gr.Slider(
                0.05,
                1,
                defaults.strength,
                step=0.05,
                label="Strength",
                info="Below 1 the edit begins with the clip and keeps of its colours.",
            )

    def _part(self) -> None:
        most, whole = self._session.options.max_frames, dict(precision=0, min_width=90)
        with gr.Row():
            self.fields["start"] = gr.Number(
                0, minimum=0, label="Start", info="First frame, from 0.", elem_id="start", **whole
            )
            self.fields["frames"] = gr.Slider(
                1, most, min(FRAMES, most), step=1, label="Frames", info="How many at most.", scale=2, elem_id="frames"
            )
            self.fields["stride"] = gr.Number(
                1, minimum=1, label="Stride", info="Every how many-th frame.", elem_id="stride", **whole
            )

    def _sampling(self) -> None:
        defaults, is_flow = self._session.defaults, self._config.schedule.use_flow_sigmas
        steps = gr.Slider(
            1, 100, defaults.num_inference_steps, step=1, label="Steps", info="Of the sampler.", elem_id="steps"
        )
        with gr.Row():
            sampler = gr.Radio(
                list(samplers_of(self._config.schedule)),
                value=defaults.sampler,
                label="Sampler",
                info="midpoint is more exact for the same number of evaluations, if there are some."
                if is_flow
                else "dpm++ needs fewer steps; lcm and tcd are for models that were distilled for them.",
                elem_id="sampler",
            )
            seed = gr.Number(
                defaults.seed, precision=0, minimum=0, label="Seed", info="The same one gives the same edit."
            )
        self.fields |= {"steps": steps, "sampler": sampler, "seed": seed}
        sampler.input(self.follow_sampler, sampler, [steps, self.fields["guidance_scale"]], **QUICK)

    def follow_sampler(self, sampler: str) -> tuple[int, float]:
        """Steps and guidance scale of an edit that says no more than its sampler."""
        settings = EditSettings(sampler=sampler).of(self._config)
        return settings.num_inference_steps, settings.guidance_scale


def change_of(field: Component):
    """Its event of a new value; that of a brush's strokes is another than that of values from here."""
    return field.input if isinstance(field, gr.ImageEditor) else field.change


def _listed(images: str | Sequence[str] | None) -> list[str]:
    return [images] if isinstance(images, str) else list(images or [])


def _content_of(said: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt, negative prompt and pictures; which of the first and the last a radio button says where there is one."""
    prompt, images, kind = said["prompt"], _listed(said.get("image")), said.get("kind")
    if kind == _A_PICTURE and not images:
        raise UserError("choose a picture first")
    if kind == _A_PICTURE or (((kind is None and images) or said["background"]) and not prompt.strip()):
        prompt = None
    if kind == _A_PROMPT:
        images = []
    return {"prompt": prompt, "image": images, "negative_prompt": said.get("negative_prompt") or None}


def keyframes_of(files: str | Sequence[str] | None, numbers: str | None) -> list[tuple[int, str]]:
    """Keyframes of picture files and of the numbers of their frames, "0, 8"; one alone is of the first frame.

    Raises:
        UserError: there are not as many of both, or they are no numbers.
    """
    files = _listed(files)
    said = [number.strip() for number in (numbers or ("0" if len(files) == 1 else "")).split(",") if number.strip()]
    if len(said) != len(files):
        raise UserError(f"keyframes: {counted(len(files), 'picture')} and {counted(len(said), 'number')} of frames")
    if not all(re.fullmatch(r"-?\d{1,9}", number) for number in said):
        raise UserError(f"keyframes: {numbers!r} are no numbers of frames; say 0, 8")
    return list(zip(map(int, said), files, strict=True))


def _seed_of(said: Mapping[str, Any]) -> int:
    return int(said["seed"] or 0)


def _part_of(said: Mapping[str, Any]) -> dict[str, int]:
    """The part of a clip; an empty field is at its default."""
    return dict(start=int(said["start"] or 0), frames=int(said["frames"]), stride=int(said["stride"] or 1))
