"""The page, drawn with Gradio: the only file that knows of it.

Nothing leaves the machine: no telemetry, no fonts of others, and a policy by which the browser asks no one else.
"""

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path

from gen1_jax.app.jobs import EditState
from gen1_jax.app.session import DEMO_CLIP, EditSession
from gen1_jax.editing.files import EditRequest
from gen1_jax.editing.pipeline import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported

import gradio as gr
from starlette.middleware import Middleware

_PROMPT = "an oil painting of a copper car in a snowy field at dusk"
_A_PROMPT, _A_PICTURE = "a prompt", "a picture"
_FRAMES = 16  # of an edit, unless the visitor wants more
_STAGES = {
    "depth": "estimating depth",
    "content": "reading the content",
    "structure": "encoding the structure",
    "compiling": "compiling, for sizes and settings that are new",
    "sampling": "sampling",
    "decoding": "decoding",
}
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; form-action 'self'; object-src 'none'"
)
_STYLE = """
.gradio-container { max-width: 1280px !important; margin: auto; }
.gen1-line { min-height: 2.2em; padding: 0.2em 0.1em; }
.gen1-line progress { width: 100%; height: 0.5em; display: block; margin-top: 0.3em; accent-color: #d97706; }
.gen1-error { color: #b91c1c; font-weight: 600; }
.dark .gen1-error { color: #f87171; }
.gen1-warning { background: #fef3c7; color: #78350f; border-radius: 6px; padding: 0.5em 0.8em; }
.gen1-picture img { width: 100%; height: 100%; object-fit: contain; }
.gen1-command { flex-grow: 0 !important; }
.gen1-panels { display: flex; text-align: center; font-size: 0.9em; opacity: 0.8; }
.gen1-panels span { flex: 1; }
"""


class _OnlyThisServer:
    """Adds the policy to every answer."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                extra = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer"}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
            await send(message)

        await self._app(scope, receive, send_with_policy)


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
            app_kwargs={"middleware": [Middleware(_OnlyThisServer)], "docs_url": None, "redoc_url": None},
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=gr.themes.Default(primary_hue="amber", **fonts),
            css=_STYLE,
        )
        return address

    def close(self) -> None:
        """Stop the server."""
        self.blocks.close(verbose=False)

    def _draw(self) -> None:
        gr.Markdown("## gen1 · keep a video's structure, give it another content")
        if self._session.warning:
            gr.HTML(f'<div class="gen1-warning">{escape(self._session.warning)}</div>', padding=False)
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
            self.steps = gr.Slider(
                1, 100, defaults.num_inference_steps, step=1, label="Steps", info="Of the sampler.", elem_id="steps"
            )
            self.frames = gr.Slider(
                1, most, min(_FRAMES, most), step=1, label="Frames", info="Of the clip, from its start."
            )
        with gr.Row():
            self.sampler = gr.Radio(
                ["ddim", "dpm++"], value=defaults.sampler, label="Sampler", info="dpm++ needs fewer steps."
            )
            self.seed = gr.Number(
                defaults.seed, precision=0, minimum=0, label="Seed", info="The same one gives the same edit."
            )
        with gr.Row():
            self.start = gr.Button("Edit", variant="primary", elem_id="edit")
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
            panels = "".join(f"<span>{name}</span>" for name in ("input", "structure", "edit"))
            gr.HTML(f'<div class="gen1-panels">{panels}</div>', padding=False)
            self.result = gr.Video(show_label=False, autoplay=True, loop=True, buttons=[], elem_id="result")
            self.download = gr.DownloadButton("Download the edit", elem_id="download")
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
        look = dict(
            inputs=[self.video, self.structure_blur, self.frames],
            outputs=[self.structure, self.clip_line],
            show_progress="hidden",
            api_visibility="private",
            trigger_mode="always_last",
        )
        changes = [self.video.change, self.structure_blur.change, self.frames.change]
        gr.on([self.blocks.load, *changes], self._look, **look)
        self.demo.click(lambda: str(DEMO_CLIP), outputs=self.video, **quick)
        self.kind.change(
            lambda kind: (gr.update(visible=kind == _A_PROMPT), gr.update(visible=kind == _A_PICTURE)),
            self.kind,
            [self.prompt, self.picture_group],
            **quick,
        )
        self.image.change(self._look_at_picture, self.image, [self.image_view, self.status], **quick)
        settings = [
            *(self.video, self.kind, self.prompt, self.image, self.structure_blur, self.guidance),
            *(self.temporal, self.steps, self.frames, self.sampler, self.seed),
        ]
        gr.on(
            [self.blocks.load, *(setting.change for setting in settings)],
            self._command,
            settings,
            self.command,
            trigger_mode="always_last",
            **quick,
        )
        running = [self.status, self.running, self.result_group, self.result, self.download, self.start, self.cancel]
        # Gradio looks whether a function is a generator and what it takes, which a type checker's wrapper would hide.
        edit = lambda visitor, *settings: (yield from self._edit(visitor.session_hash, *settings))
        edit.__annotations__ = {"visitor": gr.Request}
        self.start.click(
            edit, settings, running, concurrency_limit=None, show_progress="hidden", api_visibility="private"
        )
        self.cancel.click(self._cancel, **quick)
        self.blocks.unload(self._cancel)

    def _look(self, video: str | None, structure_blur: int | float, frames: int | float):
        if not video:
            return None, "Choose a clip."
        try:
            picture, description = self._session.structure(video, int(structure_blur), int(frames))
        except (ValueError, OSError) as error:
            return None, _error(str(error))
        return picture, escape(f"{Path(video).name}: {description}")

    def _look_at_picture(self, image: str | None):
        try:
            return (self._session.picture(image) if image else None), ""
        except (ValueError, OSError) as error:
            return None, _error(str(error))

    def _request(
        self, video, kind, prompt, image, structure_blur, guidance, temporal, steps, frames, sampler, seed
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
        return self._session.request(video, **content, frames=int(frames), settings=settings)

    def _command(self, *settings) -> str:
        try:
            return self._session.command(self._request(*settings))
        except ValueError as error:
            return f"# {error}"

    def _edit(self, visitor: str | None, *settings) -> Iterator[tuple]:
        """Shows the states of an edit, to its end; if the visitor leaves, it is cancelled."""
        job = None
        try:
            job = self._session.submit(self._request(*settings), visitor)
            for state in job.states():
                yield _shown(state)
        except ValueError as error:
            yield _shown(EditState(stage="failed", message=str(error)))
        finally:
            if job is not None:
                job.cancel()  # nothing to do after its end

    def _cancel(self, visitor: gr.Request) -> None:
        self._session.cancel(visitor.session_hash)


def _shown(state: EditState) -> tuple:
    """A state as values of status, running latents, result, player, download and both buttons."""
    buttons = gr.update(interactive=state.final), gr.update(interactive=not state.final)
    running = gr.update(value=state.picture, visible=not state.final and state.picture is not None)
    if state.files is None:
        return _status(state), running, gr.update(visible=False), None, None, *buttons
    files = gr.update(visible=True), str(state.files.comparison), str(state.files.edit)
    return _status(state), running, *files, *buttons


def _status(state: EditState) -> str:
    if state.stage == "failed":
        return _error(state.message)
    if state.stage == "waiting":
        return f"waiting: {state.done} before you" if state.done else "waiting"
    if state.final:
        return state.stage
    bar = f'<progress max="{state.total}" value="{state.done}"></progress>'
    return f"{_STAGES.get(state.stage, state.stage)}, {state.done} of {state.total}{bar}"


def _error(message: str) -> str:
    return f'<span class="gen1-error">{escape(message)}</span>'
