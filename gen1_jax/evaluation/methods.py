"""What the benchmark compares: the paper's method over its settings, and other editors with the same weights."""

import dataclasses
from collections.abc import Callable

from gen1_jax.editing.pipeline import EditSettings
from gen1_jax.evaluation.editor import Editor, Way
from gen1_jax.evaluation.optical_flow import estimate_backward_flow
from gen1_jax.evaluation.propagation import propagate_first, propagate_stepwise
from gen1_jax.evaluation.worlds import EditClips

SWEEPS: dict[str, tuple] = {
    "temporal_guidance_scale": (0.0, 0.5, 1.0, 1.5, 2.0),
    "structure_blur": tuple(range(8)),
    "guidance_scale": (1.0, 2.0, 4.0, 7.5, 12.0),
    "num_inference_steps": (5, 10, 20, 50),
    "sampler": ("ddim", "dpm++"),
}
"""Settings of an edit that are varied, one at a time."""

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of SDEdit (https://arxiv.org/abs/2108.01073): the share of the sampler's steps that are run on the noised input."""

EDIT, INPUT, ANSWER = "edit", "input", "answer"
FIRST_FRAME = "first frame, true flow"


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to make the edits.

    Attributes:
        group: of methods that differ in a number.
        value: the number in which the methods of the group differ; of a sweep, the value of the setting.
        make: the edits of all worlds.
    """

    group: str
    value: int | float | str | None
    make: Callable[[Editor], EditClips]

    @property
    def name(self) -> str:
        """Unique: the group, and the value where there is one, as "SDEdit, whole clip=0.6"."""
        return self.group if self.value is None else f"{self.group}={self.value}"


def methods(settings: EditSettings) -> list[Method]:
    """All that are compared, the edit with `settings` first."""
    return [
        Method(EDIT, None, lambda editor: editor.edit(Way(settings=settings))),
        Method(INPUT, None, lambda editor: editor.worlds.clips.source),
        Method(ANSWER, None, lambda editor: editor.worlds.clips.answer),
        Method("autoencoded answer", None, lambda editor: editor.through_autoencoder(editor.worlds.clips.answer)),
        *_baselines(settings),
        *_sweeps(settings),
    ]


def _sweeps(settings: EditSettings) -> list[Method]:
    swept = []
    for field, values in SWEEPS.items():
        for value in values:
            if value != getattr(settings, field):  # that one is the edit itself
                way = Way(settings=dataclasses.replace(settings, **{field: value}))
                swept.append(Method(field, value, _editing(way)))
    return swept


def _baselines(settings: EditSettings) -> list[Method]:
    first = Way(settings=settings, first_frame_only=True)
    baselines = [
        Method("depth, frame by frame", None, _editing(Way(settings=settings, frame_by_frame=True))),
        Method(
            FIRST_FRAME,
            None,
            lambda editor: propagate_first(editor.edit(first), editor.worlds.clips.flow_to_first),
        ),
        Method(
            "first frame, estimated flow",
            None,
            lambda editor: propagate_stepwise(editor.edit(first), estimate_backward_flow(editor.worlds.clips.source)),
        ),
    ]
    for frame_by_frame in (True, False):
        for sees_structure in (False, True):
            whole = "frame by frame" if frame_by_frame else "whole clip"
            group = f"SDEdit, {whole}" + (", with depth" if sees_structure else "")
            for strength in STRENGTHS:
                way = Way(
                    settings=settings, strength=strength, sees_structure=sees_structure, frame_by_frame=frame_by_frame
                )
                if strength < 1 or not sees_structure:  # with depth and at full strength nothing of SDEdit is left
                    baselines.append(Method(group, strength, _editing(way)))
    return baselines


def _editing(way: Way) -> Callable[[Editor], EditClips]:
    return lambda editor: editor.edit(way)
