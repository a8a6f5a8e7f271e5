"""The page, drawn with Gradio: the only file that knows of it.

Nothing leaves the machine: no telemetry, no fonts of others, and a policy by which the browser asks no one else.
"""

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path

from gen1_jax.app.jobs import EditFiles, EditState
from gen1_jax.app.markup import STYLE, OnlyThisServer, error, is_error, panels, status, warning
from gen1_jax.app.session import DEMO_CLIP, EditSession
from gen1_jax.editing.files import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported

import gradio as gr
from starlette.middleware import Middleware

_PROMPT = "an oil painting of a copper car in a snowy field at dusk"
_A_PROMPT, _A_PICTURE = "a prompt", "a picture"
_FRAMES = 16  # of an edit, unless the visitor wants more


class Page:
    """The page of a session, and its server.

    Args:
        session: does the work.
    """

    def __init__(self, session: EditSession):
        self._session = session
        # Uploads, and what is shown, go the way of the session's other files.
        os.environ["GRADIO_TEMP_DIR"] = str(session.folder / "page")
        with gr.Blocks(title="gen1", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as self.blocks:
            self._draw()

    def serve(self, host: str, port: int | None) -> str:
        """Start, and return the address. `port` None is the first free one from 7860.

        Raises:
            OSError: the port is taken.
        """
        fonts = dict(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        self.blocks.queue(default_concurrency_limit=None, max_size=256)
        _, address, _ = self.blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            inbrowser=False,
            max_file_size=self._session.limits.max_bytes,
            app_kwargs={"middleware": [Middleware(OnlyThisServer)], "docs_url": None, "redoc_url": None},
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=gr.themes.Default(primary_hue="amber", **fonts),
            css=STYLE,
        )
        return address

    def close(self) -> None:
        """Stop the server."""
        self.blocks.close(verbose=False)

    def _draw(self) -> None:
        gr.Markdown("## gen1 · keep a video's structure, give it another content")
        if self._session.warning:
            gr.HTML(warning(self._session.warning), padding=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=360):
                self._draw_inputs()
            with gr.Column(scale=3, min_width=420):
                self._draw_outputs()
        self._connect()

    def _draw_inputs(self) -> None:
        defaults = self._session.defaults
        self.video = gr.File(label=self._label("Clip"), value=str(DEMO_CLIP), height=90, elem_id="clip")
        self.demo = gr.Button("Take the demo clip", size="sm", elem_id="demo")
        self.kind = gr.Radio([_A_PROMPT, _A_PICTURE], value=_A_PROMPT, label="Content from", elem_id="kind")
        self.prompt = gr.Textbox(
            value=_PROMPT, lines=2, label="Prompt", info="What the result should look like.", elem_id="prompt"
        )
        with gr.Column(visible=False) as self.picture_group:
            self.image = gr.File(label=self._label("Picture"), height=90, elem_id="picture")
            self.image_view = gr.Image(show_label=False, interactive=False, height=140, buttons=[])
        self.structure_blur = gr.Slider(
            0,
            MAX_STRUCTURE_LEVEL,
            defaults.structure_blur,
            step=1,
            label="Structure blur t_s",
            info="How much detail of the structure is given up: 0 keeps all of it.",
            elem_id="blur",
        )
        self.guidance = gr.Slider(
            0,
            20,
            defaults.guidance_scale,
            step=0.1,
            label="Guidance scale w",
            info="How strictly the content is followed.",
        )
        self.temporal = gr.Slider(
            0,
            2,
            defaults.temporal_guidance_scale,
            step=0.05,
            label="Temporal guidance scale w_t",
            info="Above 1 smoother in time, below 1 more hand-drawn.",
        )
        with gr.Row():
            most = self._session.options.max_frames
            whole = dict(precision=0, min_width=90)
            self.start = gr.Number(0, minimum=0, label="Start", info="First frame, from 0.", elem_id="start", **whole)
            self.frames = gr.Slider(
                1, most, min(_FRAMES, most), step=1, label="Frames", info="How many at most.", elem_id="frames"
            )
            self.stride = gr.Number(
                1, minimum=1, label="Stride", info="Every how many-th frame.", elem_id="stride", **whole
            )
        self.steps = gr.Slider(
            1, 100, defaults.num_inference_steps, step=1, label="Steps", info="Of the sampler.", elem_id="steps"
        )
        with gr.Row():
            self.sampler = gr.Radio(
                ["ddim", "dpm++"], value=defaults.sampler, label="Sampler", info="dpm++ needs fewer steps."
            )
            self.seed = gr.Number(
                defaults.seed, precision=0, minimum=0, label="Seed", info="The same one gives the same edit."
            )
        with gr.Row():
            self.edit = gr.Button("Edit", variant="primary", elem_id="edit")
            self.cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")

    def _draw_outputs(self) -> None:
        self.clip_line = gr.HTML("looking at the clip …", padding=False, elem_classes="gen1-line", elem_id="clip-line")
        self.structure = gr.Image(
            label="Input | structure at t_s",
            interactive=False,
            height=280,
            buttons=[],
            elem_id="structure",
            elem_classes="gen1-picture",
        )
        self.status = gr.HTML(padding=False, elem_classes="gen1-line", elem_id="status")
        self.running = gr.Image(
            label="Running latents, middle frame",
            interactive=False,
            height=220,
            visible=False,
            buttons=[],
            elem_id="running",
            elem_classes="gen1-picture",
        )
        with gr.Column(visible=False) as self.result_group:
            gr.HTML(panels("input", "structure", "edit"), padding=False)
            self.result = gr.Video(show_label=False, autoplay=True, loop=True, buttons=[], elem_id="result")
            self.download = gr.DownloadButton("Download the edit", elem_id="download")
            self.slider = gr.ImageSlider(
                label="Before | after", interactive=False, max_height=420, buttons=[], elem_id="slider"
            )
            self.number = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="number")
        self.done = gr.State()  # what the slider looks into: the last edit and its files
        self.command = gr.Code(
            label="The same on the command line",
            language="shell",
            interactive=False,
            wrap_lines=True,
            show_line_numbers=False,
            lines=2,
            elem_id="command",
            elem_classes="gen1-command",
        )

    def _label(self, what: str) -> str:
        return f"{what}, at most {self._session.options.max_upload_mb} MB"

    def _connect(self) -> None:
        quick = dict(show_progress="hidden", api_visibility="private", queue=False)
        part = [self.start, self.frames, self.stride]
        look = dict(
            inputs=[self.video, self.structure_blur, *part, self.clip_line],
            outputs=[self.structure, self.clip_line],
            show_progress="hidden",
            api_visibility="private",
            trigger_mode="always_last",
        )
        changes = [value.change for value in (self.video, self.structure_blur, *part)]
        # Gradio looks whether a function is a generator and what it takes, which a type checker's wrapper would hide.
        gr.on([self.blocks.load, *changes], lambda *values: (yield from self._look(*values)), **look)
        self.demo.click(lambda: str(DEMO_CLIP), outputs=self.video, **quick)
        self.kind.change(
            lambda kind: (gr.update(visible=kind == _A_PROMPT), gr.update(visible=kind == _A_PICTURE)),
            self.kind,
            [self.prompt, self.picture_group],
            **quick,
        )
        settings = [
            *(self.video, self.kind, self.prompt, self.image, self.structure_blur, self.guidance),
            *(self.temporal, self.steps, *part, self.sampler, self.seed),
        ]
        changes = [setting.change for setting in settings]
        gr.on([self.blocks.load, *changes], self._command, settings, self.command, trigger_mode="always_last", **quick)
        others = [setting.change for setting in settings if setting is not self.image]
        gr.on(others, lambda line: "" if is_error(line) else gr.skip(), self.status, self.status, **quick)
        self.image.change(self._look_at_picture, self.image, [self.image_view, self.status], **quick)
        running = [
            *(self.status, self.running, self.result_group, self.result, self.download, self.edit, self.cancel),
            *(self.slider, self.number, self.done),
        ]
        edit = lambda visitor, *settings: (yield from self._edit(visitor.session_hash, *settings))
        edit.__annotations__ = {"visitor": gr.Request}
        self.edit.click(
            edit, settings, running, concurrency_limit=None, show_progress="hidden", api_visibility="private"
        )
        self.number.input(
            self._compare, [self.done, self.number], [self.slider, self.status], trigger_mode="always_last", **quick
        )
        self.cancel.click(self._cancel, **quick)
        self.blocks.unload(self._cancel)
        self._offer_endpoint(settings[4:])

    def _offer_endpoint(self, numbers: list) -> None:
        """`/edit` for programs, see README.md: the settings by name, those of the page for numbers left out."""
        with gr.Column(visible=False):
            content = gr.File(label="Clip"), gr.Textbox(label="Prompt"), gr.File(label="Picture")
            trigger, answer = gr.Button(), gr.File(label="The edit")
        video, prompt, image = content
        trigger.click(
            self._edit_for_program,
            [video, *numbers, prompt, image],
            answer,
            api_name="edit",
            api_description="Edit a clip, and wait for it.",
            concurrency_limit=None,
        )

    def _look(self, video, structure_blur, start, frames, stride, line) -> Iterator[tuple]:
        """What the structure of the clip is; an error of the one before goes at once."""
        if not video:
            yield None, "Choose a clip."
            return
        if is_error(line):
            yield gr.skip(), "looking at the clip …"
        try:
            part = _part(start, frames, stride)
            picture, description = self._session.structure(video, int(structure_blur), **part)
        except (ValueError, OSError) as fault:
            yield None, error(str(fault))
        else:
            yield picture, escape(f"{Path(video).name}: {description}")

    def _look_at_picture(self, image: str | None):
        try:
            return (self._session.picture(image) if image else None), ""
        except (ValueError, OSError) as fault:
            return None, error(str(fault))

    def _request(
        self,
        video,
        kind,
        prompt,
        image,
        structure_blur,
        guidance,
        temporal,
        steps,
        start,
        frames,
        stride,
        sampler,
        seed,
    ) -> EditRequest:
        settings = EditSettings(
            structure_blur=int(structure_blur),
            guidance_scale=float(guidance),
            temporal_guidance_scale=float(temporal),
            num_inference_steps=int(steps),
            seed=int(seed or 0),
            sampler=sampler,
        )
        if kind == _A_PICTURE and not image:
            raise UserError("choose a picture first")
        content = dict(prompt=prompt, image=None) if kind == _A_PROMPT else dict(prompt=None, image=image)
        return self._session.request(video, **content, **_part(start, frames, stride), settings=settings)

    def _command(self, *settings) -> str:
        try:
            return self._session.command(self._request(*settings))
        except ValueError as fault:
            return f"# {fault}"

    def _edit(self, visitor: str | None, *settings) -> Iterator[tuple]:
        """Shows the states of an edit, to its end; if the visitor leaves, it is cancelled."""
        job = None
        try:
            request = self._request(*settings)
            job = self._session.submit(request, visitor)
            for state in job.states():
                yield *_shown(state), *self._compared(request, state.files)
        except ValueError as fault:
            state = EditState(stage="failed", message=str(fault))
            yield *_shown(state), *self._compared(None, None)
        finally:
            if job is not None:
                job.cancel()  # nothing to do after its end

    def _compared(self, request: EditRequest | None, files: EditFiles | None) -> tuple:
        """Values of the before/after slider, of its frame, and of what they look into, when an edit is done."""
        if files is None:
            return gr.skip(), gr.skip(), None
        middle, done = files.frames // 2, (request, files)
        slider, _ = self._compare(done, middle)
        last = max(1, files.frames - 1)
        return slider, gr.update(maximum=last, value=middle, visible=files.frames > 1), done

    def _compare(self, done: tuple[EditRequest, EditFiles] | None, number: int | float | None):
        """A frame before and after, and what went wrong."""
        try:
            return (self._session.before_and_after(*done, int(number or 0)) if done else None), gr.skip()
        except (ValueError, OSError) as fault:
            return None, error(str(fault))

    def _edit_for_program(
        self,
        video,
        structure_blur,
        guidance_scale,
        temporal_guidance_scale,
        steps,
        start,
        frames,
        stride,
        sampler,
        seed,
        prompt=None,
        image=None,
    ):
        """The file of an edit; it waits for those that came before, and none of its caller's is cancelled for it."""
        numbers = (structure_blur, guidance_scale, temporal_guidance_scale, steps, start, frames, stride, sampler, seed)
        try:
            if prompt is not None and image is not None:
                raise UserError("give either a prompt or an image, not both")
            request = self._request(video, _A_PROMPT if image is None else _A_PICTURE, prompt, image, *numbers)
            *_, state = self._session.submit(request, object()).states()
        except ValueError as fault:
            raise gr.Error(str(fault), print_exception=False) from None
        if state.files is None:
            raise gr.Error(state.message or state.stage, print_exception=False)
        return str(state.files.edit)

    def _cancel(self, visitor: gr.Request) -> None:
        self._session.cancel(visitor.session_hash)


def _part(start: int | float | None, frames: int | float, stride: int | float | None) -> dict[str, int]:
    """The part of a clip that fields say; an empty one is at its default."""
    return dict(start=int(start or 0), frames=int(frames), stride=int(stride or 1))


def _shown(state: EditState) -> tuple:
    """A state as values of status, running latents, result, player, download and both buttons."""
    buttons = gr.update(interactive=state.final), gr.update(interactive=not state.final)
    running = gr.update(value=state.picture, visible=not state.final and state.picture is not None)
    if state.files is None:
        return status(state), running, gr.update(visible=False), None, None, *buttons
    files = gr.update(visible=True), str(state.files.comparison), str(state.files.edit)
    return status(state), running, *files, *buttons
