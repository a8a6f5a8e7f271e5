"""What the page says and how it looks, as HTML and CSS; and the policy by which the browser asks no other server."""

from html import escape

from gen1_jax.app.jobs import EditState

_STAGES = {
    "depth": "estimating depth",
    "mask": "finding what may change",
    "content": "reading the content",
    "structure": "encoding the structure",
    "inverting": "finding the noise that leads to the clip",
    "low_resolution": "looking at what is to be enlarged",
    "compiling": "compiling, for sizes and settings that are new",
    "sampling": "sampling",
    "decoding": "decoding",
}
_ERROR_CLASS = "gen1-error"
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; form-action 'self'; object-src 'none'"
)
STYLE = """
.gradio-container { max-width: 1280px !important; margin: auto; }
.gradio-container { overflow: clip !important; } /* hidden, as it is, nothing could stick */
.gen1-line { min-height: 2.2em; padding: 0.2em 0.1em; }
.gen1-line progress { width: 100%; height: 0.5em; display: block; margin-top: 0.3em; accent-color: #d97706; }
.gen1-error { color: #b91c1c; font-weight: 600; }
.dark .gen1-error { color: #f87171; }
.gen1-warning { background: #fef3c7; color: #78350f; border-radius: 6px; padding: 0.5em 0.8em; }
.gen1-picture img { width: 100%; height: 100%; object-fit: contain; }
.gen1-outputs { position: sticky; top: 0; align-self: flex-start; }
.gen1-buttons { position: sticky; bottom: 0; z-index: 50; padding: 0.4em 0; background: var(--body-background-fill); }
.gen1-command { flex-grow: 0 !important; }
.gen1-panels { display: flex; text-align: center; font-size: 0.9em; opacity: 0.8; }
.gen1-panels span { flex: 1; }
"""


class OnlyThisServer:
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


def status(state: EditState) -> str:
    """How far an edit is, with a bar while it runs."""
    if state.stage == "failed":
        return error(state.message)
    if state.stage == "waiting":
        return f"waiting: {state.done} before you" if state.done else "waiting"
    if state.final:
        return state.stage
    bar = f'<progress max="{state.total}" value="{state.done}"></progress>'
    return f"{_STAGES.get(state.stage, state.stage)}, {state.done} of {state.total}{bar}"


def error(message: str) -> str:
    """What went wrong."""
    return f'<span class="{_ERROR_CLASS}">{escape(message)}</span>'


def is_error(line: str | None) -> bool:
    """Whether a line of the page says what went wrong."""
    return _ERROR_CLASS in (line or "")


def warning(message: str) -> str:
    """What every visitor should know."""
    return f'<div class="gen1-warning">{escape(message)}</div>'


def panels(*names: str) -> str:
    """Names over pictures that stand side by side."""
    return f'<div class="gen1-panels">{"".join(f"<span>{name}</span>" for name in names)}</div>'
