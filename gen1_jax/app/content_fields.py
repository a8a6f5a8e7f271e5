"""Further contents beside the first one, in words or as pictures, and how much each counts along the clip."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from gen1_jax.app.session import EditSession
from gen1_jax.editing.contents import ContentUse, parse_weight
from gen1_jax.editing.settings import BLENDS, PREDICTIONS
from gen1_jax.errors import UserError

_FURTHER = ("second", "third")
_WEIGHT_OF_FIRST, _BLEND = "content_weight", "blend"


class ContentFields:
    """Draws the fields, and reads them.

    Args:
        session: whose model it is, and whose limits.

    Attributes:
        fields: by name.
    """

    def __init__(self, session: EditSession):
        config = session.pipeline.config
        pictures = not config.takes_prompts or "image" in config.unet.content_kinds
        self.fields: dict[str, Component] = {}
        with gr.Accordion("Further contents", open=False, elem_id="contents"):
            gr.Markdown(
                "Beside the content above; a weight is a number, `1..0` from the first frame to the last, or `sound`."
            )
            self.fields[_WEIGHT_OF_FIRST] = gr.Textbox("1", label="Weight of the content above", elem_id="weight-first")
            for name in _FURTHER:
                self._draw(name, words=config.takes_prompts, label=session.label("Or a picture") if pictures else None)
            self.fields[_BLEND] = gr.Radio(
                list(BLENDS),
                value=PREDICTIONS,
                label="Blended by",
                info="Predictions: any weights, and an evaluation a step for each. Embeddings: one mean for all of the"
                " clip, and no evaluation more.",
                elem_id="blend",
            )

    def _draw(self, name: str, *, words: bool, label: str | None) -> None:
        """One content; `label` is of its picture, None for a model that takes none."""
        fields, title = self.fields, f"{name} content".capitalize()
        with gr.Row():
            if words:
                fields[f"{name}_prompt"] = gr.Textbox(label=title, scale=3, min_width=160, elem_id=f"{name}-prompt")
            weight = gr.Textbox("1", label="Weight", scale=1, min_width=70, elem_id=f"{name}-weight")
        if label is not None:
            label = label if words else f"{title}: {label}"
            fields[f"{name}_image"] = gr.File(label=label, height=120, elem_id=f"{name}-image")
        fields[f"{name}_weight"] = weight

    def contents(self, said: Mapping[str, Any], prompt: str | None, images: Sequence[str]) -> tuple[ContentUse, ...]:
        """All contents of an edit, the first of which the form says elsewhere; none where that is the only one.

        Raises:
            UserError: one is said twice, or has a weight that is none.
        """
        further = [use for name in _FURTHER if (use := self._use(said, name)) is not None]
        if not further:
            return ()
        told = [{"prompt": prompt}] if prompt is not None else []
        told += [{"image": image} for image in images]
        if len(told) > 1:
            raise UserError(
                "beside further contents there is one prompt or one picture; let the others be contents, too"
            )
        return (*(ContentUse(**one, weight=_weight(said[_WEIGHT_OF_FIRST], "first")) for one in told), *further)

    def _use(self, said: Mapping[str, Any], name: str) -> ContentUse | None:
        prompt, image = (said.get(f"{name}_prompt") or "").strip(), said.get(f"{name}_image")
        if prompt and image:
            raise UserError(f"the {name} content is both words and a picture: leave one of them out")
        if not prompt and not image:
            return None
        return ContentUse(prompt=prompt or None, image=image or None, weight=_weight(said[f"{name}_weight"], name))


def _weight(text: str | None, name: str) -> tuple[float, ...] | str:
    return parse_weight((text or "").strip() or "1", f"weight of the {name} content")
