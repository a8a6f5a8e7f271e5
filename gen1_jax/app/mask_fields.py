"""What of the clip may change: by depth, by a click on the first frame, by a brush on it, in words, or by the edit.

The first frame is shown no larger than `_SHOWN`; what is clicked and drawn on it is told in pixels of the source.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from jaxtyping import UInt8

from gen1_jax.app.session import EditSession
from gen1_jax.editing.masks import takes_model
from gen1_jax.editing.masks.sources import CHANGED
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.media import write_image

EVERYTHING, NEAR, FAR, CLICK, BRUSH, WORDS = "everything", "what is near", "what is far", "a click", "a brush", "words"
BY_EDIT = "what the prompt changes"

_SIDES = {NEAR: "near", FAR: "far"}
_SHOWN = 480  # pixels of the longer side
_BRUSH = "#ffffff"


class MaskFields:
    """Draws the fields, and reads them.

    Args:
        session: whose files they are.
        quick: of events that answer at once.

    Attributes:
        fields: by name.
        click_view: the first frame, to be clicked.
    """

    def __init__(self, session: EditSession, quick: Mapping[str, Any]):
        self._session = session
        self.fields: dict[str, Component] = {}
        with gr.Accordion("What may change", open=False, elem_id="mask"):
            kind = gr.Radio(
                [EVERYTHING, NEAR, FAR, CLICK, BRUSH, WORDS, BY_EDIT],
                value=EVERYTHING,
                label="Mask",
                info="Outside of it the edit is the clip, unchanged.",
                elem_id="mask-kind",
            )
            depth = gr.Slider(
                0, 1, 0.5, step=0.02, label="Depth", info="0 is the farthest, 1 the nearest.", visible=False,
                elem_id="mask-depth",
            )  # fmt: skip
            self.click_view = gr.Image(
                label="Click the thing that may change", interactive=False, visible=False, buttons=[],
                elem_id="mask-click",
            )  # fmt: skip
            point = gr.Textbox(label="Place, in pixels of the clip", visible=False, elem_id="mask-point")
            drawn = gr.ImageEditor(
                label="Paint over what may change",
                visible=False,
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=24, colors=[_BRUSH], color_mode="fixed"),
                buttons=[],
                elem_id="mask-brush",
            )
            words = gr.Textbox(label="What may change, in words", visible=False, elem_id="mask-words")
            background = gr.Textbox(
                label="Background prompt", info="What becomes of all else; of what is far, if there is no mask.",
                elem_id="background",
            )  # fmt: skip
            feather = gr.Slider(
                0, 32, EditSettings.mask_feather, step=1, label="Feather", info="Pixels over which the edit fades in.",
                elem_id="mask-feather",
            )  # fmt: skip
        self.fields |= dict(
            mask=kind, mask_depth=depth, mask_point=point, mask_drawn=drawn, mask_words=words,
            background=background, mask_feather=feather,
        )  # fmt: skip
        shown = [depth, self.click_view, point, drawn, words]
        which = lambda kind: [
            gr.update(visible=visible)
            for visible in (kind in _SIDES, kind == CLICK, kind == CLICK, kind == BRUSH, kind == WORDS)
        ]
        kind.change(which, kind, shown, **quick)
        self._shrunk_by = gr.State(1.0)
        place = lambda shrunk, event: "{:g},{:g}".format(*(round(i * shrunk) for i in event.index))
        place.__annotations__ = {"event": gr.SelectData}
        self.click_view.select(place, self._shrunk_by, point, **quick)

    @property
    def views(self) -> list[Component]:
        """What `first_frame` fills."""
        return [self.click_view, self.fields["mask_drawn"], self._shrunk_by]

    def first_frame(self, video: str | None, start: int | float | None) -> tuple:
        """The first frame of an edit, to be clicked and painted on; nothing where there is none."""
        try:
            frame = self._session.frame(video, int(start or 0))
        except (ValueError, OSError):
            return None, None, 1.0
        shrunk = max(1.0, max(frame.shape[:2]) / _SHOWN)
        import cv2

        size = (round(frame.shape[1] / shrunk), round(frame.shape[0] / shrunk))
        small = str(self._written("first", cv2.resize(frame, size, interpolation=cv2.INTER_AREA)))
        return small, {"background": small, "layers": [], "composite": None}, shrunk

    def mask(self, said: Mapping[str, Any]) -> str | None:
        """The mask in the notation of `gen1 edit --mask`.

        Raises:
            UserError: it is not said yet.
        """
        kind = said["mask"]
        if kind in _SIDES:
            return f"{_SIDES[kind]}:{said['mask_depth']:g}"
        if kind == CLICK:
            if not (said["mask_point"] or "").strip():
                raise UserError("click on the first frame what may change")
            return f"click:{said['mask_point'].strip()}"
        if kind == BRUSH:
            return f"{self._file_of(said['mask_drawn'])}@0"
        if kind == WORDS:
            if not (said["mask_words"] or "").strip():
                raise UserError("say in words what may change")
            return f"text:{said['mask_words'].strip()}"
        return CHANGED if kind == BY_EDIT else None

    def shown(self, said: Mapping[str, Any]) -> str | None:
        """The same before there is an edit, or None: where it is not said yet, or takes the whole model to be found.

        Raises:
            UserError: it is said wrongly.
        """
        mask = None
        with contextlib.suppress(UserError):
            mask = self.mask(said)
        return None if mask is None or takes_model(mask) else mask

    def _file_of(self, drawn: Mapping[str, Any] | None) -> Path:
        """A picture of what was painted, in the session's folder."""
        mask = painted(drawn)
        if mask is None:
            raise UserError("paint over what may change")
        return self._written("mask", np.repeat(mask[..., None], 3, axis=-1))

    def _written(self, name: str, picture: UInt8[np.ndarray, "h w 3"]) -> Path:
        """A file of a picture in the session's folder, written once.

        Gradio would write an array again for every visitor, and the brush's editor sends its picture back with every
        event, where it may be read while it is half-written.
        """
        path = self._session.folder / f"{name}_{hashlib.sha256(picture.tobytes()).hexdigest()[:8]}.png"
        if not path.exists():
            write_image(path, picture)
        return path


def painted(drawn: Mapping[str, Any] | None) -> UInt8[np.ndarray, "h w"] | None:
    """White where an editor's value was painted over, at all opaquely; None if nothing was."""
    layers = [] if drawn is None else [layer for layer in drawn["layers"] or [] if layer is not None]
    masks = [layer[..., 3] > 127 for layer in layers if layer.ndim == 3 and layer.shape[-1] == 4]
    mask = np.any(masks, axis=0) if masks else np.zeros((1, 1), bool)
    return np.where(mask, 255, 0).astype(np.uint8) if mask.any() else None
