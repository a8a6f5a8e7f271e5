"""The page: its form, what is seen of the clip and of the edit, and what happens when.

Nothing leaves the machine: no telemetry, no fonts of others, and a policy by which the browser asks no one else.
"""

import os
from collections.abc import Iterator
from html import escape
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from gen1_jax.app.endpoint import offer_endpoints
from gen1_jax.app.fields import QUICK, EditForm, change_of
from gen1_jax.app.history import Past, named, with_edit
from gen1_jax.app.jobs import EditFiles, EditState
from gen1_jax.app.markup import STYLE, OnlyThisServer, error, is_error, panels, status, warning
from gen1_jax.app.session import EditSession
from gen1_jax.editing.request import EditRequest


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
        if self._session.models.warning:
            gr.HTML(warning(self._session.models.warning), padding=False)
        with gr.Row():
            with gr.Column(scale=2, min_width=360):
                self._draw_inputs()
            with gr.Column(scale=3, min_width=420, elem_classes="gen1-outputs"):
                self._draw_outputs()
        self._connect()

    def _draw_inputs(self) -> None:
        self.form = EditForm(self._session)
        with gr.Row(elem_classes="gen1-buttons"):
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
        self.unknown = gr.HTML(visible=False, padding=False, elem_id="unknown")
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
            self.panels = gr.HTML(padding=False)
            self.result = gr.Video(show_label=False, autoplay=True, loop=True, buttons=[], elem_id="result")
            self.download = gr.DownloadButton("Download the edit", elem_id="download")
            if self._session.signed:
                gr.HTML(escape(self._session.signed), padding=False, elem_classes="gen1-line", elem_id="signed")
            self.slider = gr.ImageSlider(
                label="Before | after", interactive=False, max_height=420, buttons=[], elem_id="slider"
            )
            self.number = gr.Slider(0, 1, 0, step=1, label="Frame", elem_id="number")
        self.done = gr.State()  # what the slider looks into: an edit and its files
        self.past = gr.State([])
        self.history = gr.Dropdown(
            [], value=None, label="Edits so far", info="Their settings go back into the fields.", visible=False,
            elem_id="history",
        )  # fmt: skip
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

    def _connect(self) -> None:
        form, settings = self.form, self.form.components
        look = dict(
            inputs=[self.clip_line, *settings],
            outputs=[self.structure, self.clip_line],
            show_progress="hidden",
            api_visibility="private",
            trigger_mode="always_last",
        )
        changes = [change_of(field) for field in form.looked_at]
        # Gradio looks whether a function is a generator and what it takes, which a type checker's wrapper would hide.
        gr.on([self.blocks.load, *changes], lambda *values: (yield from self._look(*values)), **look)
        changes = [change_of(setting) for setting in settings]
        gr.on([self.blocks.load, *changes], self._command, settings, self.command, trigger_mode="always_last", **QUICK)
        gr.on([self.blocks.load, *changes], self._unknown, settings, self.unknown, trigger_mode="always_last", **QUICK)
        first = [form.fields["video"], form.fields["start"]]
        changes = [self.blocks.load, *(field.change for field in first)]
        gr.on(changes, form.masks.first_frame, first, form.masks.views, trigger_mode="always_last", **QUICK)
        image = form.fields.get("image")
        others = [change_of(setting) for setting in settings if setting is not image]
        gr.on(others, lambda line: "" if is_error(line) else gr.skip(), self.status, self.status, **QUICK)
        if image is not None:
            image.change(self._look_at_picture, image, [form.picture_view, self.status], **QUICK)
        running = [
            *(self.status, self.running, self.result_group, self.result, self.download, self.edit, self.cancel),
            *(self.panels, self.slider, self.number, self.done),
        ]
        edit = lambda visitor, past, *settings: (yield from self._edit_again(visitor.session_hash, past, *settings))
        edit.__annotations__ = {"visitor": gr.Request}
        shown = dict(concurrency_limit=None, show_progress="hidden", api_visibility="private")
        self.edit.click(edit, [self.past, *settings], [*running, self.past, self.history], **shown)
        self.history.input(self._go_back, [self.past, self.history], [*running, *settings], **QUICK)
        self.number.input(
            self._compare, [self.done, self.number], [self.slider, self.status], trigger_mode="always_last", **QUICK
        )
        self.cancel.click(self._cancel, **QUICK)
        self.blocks.unload(self._cancel)
        offer_endpoints(self._session)

    def _look(self, line: str | None, *values) -> Iterator[tuple]:
        """What the structure of the clip is; an error of the one before goes at once."""
        video = self.form.said(values)["video"]
        if not video:
            yield None, "Choose a clip."
            return
        if is_error(line):
            yield gr.skip(), "looking at the clip …"
        try:
            picture, description = self.form.look(*values)
        except (ValueError, OSError) as fault:
            yield None, error(str(fault))
        else:
            yield picture, escape(f"{Path(video).name}: {description}")

    def _look_at_picture(self, images: str | list[str] | None):
        try:
            return self.form.picture(images), ""
        except (ValueError, OSError) as fault:
            return None, error(str(fault))

    def _command(self, *settings) -> str:
        try:
            return self._session.command(self.form.request(*settings))
        except ValueError as fault:
            return f"# {fault}"

    def _unknown(self, *settings) -> dict:
        """What there is to tell of words that the model has never seen."""
        try:
            line = self._session.models.unknown(self.form.request(*settings))
        except ValueError:  # which the command says
            line = None
        return gr.update(value=warning(line) if line else "", visible=line is not None)

    def _edit(self, visitor: str | None, *settings) -> Iterator[tuple]:
        """Shows the states of an edit, to its end; if the visitor leaves, it is cancelled."""
        job = None
        try:
            request = self.form.request(*settings)
            job = self._session.submit(request, visitor)
            for state in job.states():
                yield *_shown(state), *self._compared(request, state.files)
        except ValueError as fault:
            state = EditState(stage="failed", message=str(fault))
            yield *_shown(state), *self._compared(None, None)
        finally:
            if job is not None:
                job.cancel()  # nothing to do after its end

    def _edit_again(self, visitor: str | None, past: list[Past], *settings) -> Iterator[tuple]:
        """The same, and the edits so far, with this one when it is done."""
        for values in self._edit(visitor, *settings):
            history = (gr.skip(), gr.skip())
            if (done := values[-1]) is not None:
                past = with_edit(past, settings, *done)
                labels = [one.label for one in reversed(past)]
                history = past, gr.update(choices=labels, value=labels[0], visible=True)
            yield *values, *history

    def _go_back(self, past: list[Past], label: str | None) -> tuple:
        """Shows an edit of before, and what its fields were."""
        one = named(past, label)
        if one is None or not one.files.edit.exists():
            state = EditState(stage="failed", message="the files of that edit are gone; its settings are in the fields")
            values = [gr.skip() for _ in self.form.components] if one is None else one.values
            return *_shown(state), *self._compared(None, None), *values
        state = EditState(stage="done", files=one.files)
        return *_shown(state), *self._compared(one.request, one.files), *one.values

    def _compared(self, request: EditRequest | None, files: EditFiles | None) -> tuple:
        """Values of the panels' names, of the before/after slider, of its frame, and of what they look into."""
        if files is None:
            return gr.skip(), gr.skip(), gr.skip(), None
        middle, done = files.frames // 2, (request, files)
        slider, _ = self._compare(done, middle)
        last = max(1, files.frames - 1)
        kinds = self._session.structures(request)
        names = panels("input", *(kinds if len(kinds) > 1 else ["structure"]), "edit")
        return names, slider, gr.update(maximum=last, value=middle, visible=files.frames > 1), done

    def _compare(self, done: tuple[EditRequest, EditFiles] | None, number: int | float | None):
        """A frame before and after, and what went wrong."""
        try:
            return (self._session.before_and_after(*done, int(number or 0)) if done else None), gr.skip()
        except (ValueError, OSError) as fault:
            return None, error(str(fault))

    def _cancel(self, visitor: gr.Request) -> None:
        self._session.cancel(visitor.session_hash)


def _shown(state: EditState) -> tuple:
    """A state as values of status, running latents, result, player, download and both buttons."""
    buttons = gr.update(interactive=state.final), gr.update(interactive=not state.final)
    running = gr.update(value=state.picture, visible=not state.final and state.picture is not None)
    if state.files is None:
        return status(state), running, gr.update(visible=False), None, None, *buttons
    files = gr.update(visible=True), str(state.files.comparison), str(state.files.edit)
    return status(state), running, *files, *buttons
