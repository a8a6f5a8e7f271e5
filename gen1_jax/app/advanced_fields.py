"""What steadies an edit, or holds it to the clip, and is seldom asked for."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from gen1_jax.app.session import EditSession
from gen1_jax.models.conditions import SOURCE


class AdvancedFields:
    """Draws the fields, and reads them.

    Args:
        session: whose model it is.

    Attributes:
        fields: by name.
    """

    def __init__(self, session: EditSession):
        unet = session.pipeline.config.unet
        self.fields: dict[str, Component] = {}
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            self.fields["inverted_noise"] = gr.Checkbox(
                False,
                label="Begin with the clip's own noise",
                info="Steadier and nearer to the clip, for one evaluation a step more; not with lcm and tcd.",
                elem_id="inverted",
            )
            self.fields["propagate"] = gr.Textbox(
                label="Propagate at steps",
                info="Frames are mixed along the clip's motion there: steadier, a little softer. Few and late ones, as"
                " 15, 18 of 20.",
                elem_id="propagate",
            )
            if SOURCE in unet.kinds and not unet.guidance_embedded:
                self.fields["source_guidance_scale"] = gr.Slider(
                    0,
                    5,
                    0,
                    step=0.1,
                    label="Source guidance scale w_src",
                    info="How closely the clip itself is followed; 0: as closely as other structures.",
                    elem_id="source-scale",
                )

    def settings(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """What they say, as `EditSettings` takes it."""
        return {
            "inverted_noise": bool(said["inverted_noise"]),
            "propagate": self.propagate(said),
            "source_guidance_scale": float(said.get("source_guidance_scale", 0)) or None,
        }

    def propagate(self, said: Mapping[str, Any]) -> str | None:
        """Its steps as `EditSettings` has them."""
        return (said["propagate"] or "").replace(" ", "") or None
