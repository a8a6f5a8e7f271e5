"""What is enlarged: the edit, or the clip itself, which is not edited then."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from gen1_jax.app.session import EditSession
from gen1_jax.editing.upscale_clip import NOISE_LEVEL
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL

NOTHING, THE_EDIT, THE_CLIP = "nothing", "the edit", "the clip itself"


class UpscaleFields:
    """Draws the fields, and reads them; there are none where nothing enlarges.

    Args:
        session: whose models they are.
        quick: of events that answer at once.

    Attributes:
        fields: by name.
    """

    def __init__(self, session: EditSession, quick: Mapping[str, Any]):
        self.fields: dict[str, Component] = {}
        if (scale := session.models.scale) is None:
            return
        with gr.Accordion("Larger", open=False, elem_id="larger"):
            what = gr.Radio(
                [NOTHING, THE_EDIT, THE_CLIP],
                value=NOTHING,
                label=f"{scale} times as large",
                info="The clip itself is only enlarged: content, structure and mask do not count then.",
                elem_id="enlarged",
            )
            level = gr.Slider(
                0,
                MAX_STRUCTURE_LEVEL,
                NOISE_LEVEL,
                step=1,
                label="Noise level",
                info="0 trusts every pixel; with more, artefacts are corrected, and more is made up.",
                visible=False,
                elem_id="noise-level",
            )
            match = gr.Checkbox(
                True,
                label="Keep what it is made from",
                info="Made small again, it is the same, as far as the noise level trusts that.",
                visible=False,
                elem_id="match-colour",
            )
            words = gr.Textbox(
                label="What the clip shows",
                info="In words; empty: what the model sees in it.",
                visible=False,
                elem_id="shown",
            )
            steps = gr.Slider(
                0, 100, 0, step=1, label="Steps of the enlarging", info="0: its model's own.", visible=False,
                elem_id="enlarging-steps",
            )  # fmt: skip
        self.fields |= dict(enlarged=what, noise_level=level, match_colour=match, shown=words, enlarging_steps=steps)
        which = lambda what: [gr.update(visible=what != NOTHING)] * 2 + [gr.update(visible=what == THE_CLIP)] * 2
        what.change(which, what, [level, match, words, steps], **quick)

    @property
    def looked_at(self) -> list[str]:
        """Names of those that change what is seen of the clip."""
        return [name for name in ("enlarged", "noise_level") if name in self.fields]

    def of_edit(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """How an edit is enlarged, as `EditSession.request` takes it."""
        return {"enlarged": True, **_how(said)} if said.get("enlarged") == THE_EDIT else {}

    def of_clip(self, said: Mapping[str, Any]) -> dict[str, Any] | None:
        """How the clip itself is, as `EditSession.enlarging` takes it; None where it is not."""
        if said.get("enlarged") != THE_CLIP:
            return None
        own = {"prompt": (said["shown"] or "").strip() or None}
        return {**_how(said), **own, "num_inference_steps": int(said["enlarging_steps"]) or None}


def _how(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"noise_level": int(said["noise_level"]), "match_colour": bool(said["match_colour"])}
