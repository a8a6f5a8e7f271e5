"""What the benchmark asks of a model with several inputs: given frames, keyframes first, any of its structures."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from gen1_jax.editing.keyframes import evaluations
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.propagation import propagate_first
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.models.conditions import SOURCE
from gen1_jax.pretrained.family import Gen1Config

FIRST_KNOWN = "first frame known"
ANSWER_KNOWN, ANSWER_CARRIED = "true first frame known", "true first frame true flow"
KEYFRAMES = "keyframe stride"
FOLLOWED = "structure"
WITH_SOURCE = "source guidance scale"

_STRIDES = (2, 3, 4, 7)
SOURCE_SCALES = (1.0, 1.5, 2.0)


Fields = tuple[str, int | float | str | None, str, Callable[[Editor], EditClips]]
"""Of a `methods.Method`, in its order."""


def input_methods(settings: EditSettings, config: Gen1Config) -> Iterator[Fields]:
    """What is compared beside the methods that every model has; nothing for a model of one structure.

    Args:
        settings: of the edit, filled in.
        config: of the model.
    """
    unet, way = config.unet, Way(settings=settings)
    if unet.known:
        yield from _given(settings)
        guided = settings.num_inference_steps, settings.guidance(unet), settings.guidance_interval or (0.0, 1.0)
        for stride in (k for k in _STRIDES if k < config.num_frames):
            cost = [evaluations(config.num_frames, k, *guided) for k in (1, stride)]
            what = f"every {stride}th frame, then those between: {cost[1]:.1f} evaluations a frame, not {cost[0]:g}"
            yield KEYFRAMES, stride, what, _editing(way, keyframe_stride=stride)
    if not unet.structure_optional:
        return
    first, *others = (kind for kind in unet.structures if kind != SOURCE)
    for kind in others:
        yield FOLLOWED, kind, f"the edit by {kind} alone", _editing(way, structure=kind)
        both = f"{first},{kind}"
        yield FOLLOWED, f"{first}+{kind}", f"the edit by {first} and {kind}", _editing(way, structure=both)
    yield from source_methods(settings, config)


def source_methods(settings: EditSettings, config: Gen1Config) -> Iterator[Fields]:
    """Edits by a model that sees the source, over w_src; nothing for others."""
    if SOURCE in config.unet.structures:
        what = "the edit with the clip itself in sight, at a guidance of it, w_src"
        for scale in SOURCE_SCALES:
            yield WITH_SOURCE, scale, what, _editing(Way(settings=settings), **in_sight(config, scale))


def in_sight(config: Gen1Config, scale: float) -> dict[str, Any]:
    """Settings of an edit that sees the source beside the model's first structure, at w_src `scale`."""
    return dict(structure=f"{config.unet.structures[0]},{SOURCE}", source_guidance_scale=scale)


def _given(settings: EditSettings) -> Iterator[Fields]:
    way, first = Way(settings=settings), Way(settings=settings, first_frame_only=True)

    def answers(editor: Editor) -> EditClips:
        return editor.worlds.clips.answer[:, :1]

    yield (
        FIRST_KNOWN,
        None,
        "the edit that goes on from the edit of the first frame",
        lambda editor: editor.edit(way, first=editor.edit(first)),
    )
    yield (
        ANSWER_KNOWN,
        None,
        "the edit that goes on from the first frame of the answer",
        lambda editor: editor.edit(way, first=answers(editor)),
    )
    yield (
        ANSWER_CARRIED,
        None,
        "the first frame of the answer, carried along the renderer's own motion",
        lambda editor: propagate_first(answers(editor), editor.worlds.clips.flow_to_first),
    )


def _editing(way: Way, **changes) -> Callable[[Editor], EditClips]:
    changed = dataclasses.replace(way, settings=dataclasses.replace(way.settings, **changes))
    return lambda editor: editor.edit(changed)
