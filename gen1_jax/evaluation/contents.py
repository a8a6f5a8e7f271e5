"""What the benchmark asks of several contents at once: words, a picture of what they say, and both together."""

import dataclasses
from collections.abc import Iterator
from functools import partial

from gen1_jax.editing.settings import BLENDS, EditSettings
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.inputs import Fields
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.pretrained.family import Gen1Config

PICTURE, BOTH = "picture", "prompt and picture"


def content_methods(settings: EditSettings, config: Gen1Config) -> Iterator[Fields]:
    """For models whose content is a picture, or words by way of a prior.

    Args:
        settings: of the edit, filled in.
        config: of the model.
    """
    kind = config.unet.content
    if not (kind.is_shown and kind.of_prompts):
        return
    way = Way(settings=settings)
    shown = "the first frame of the answer"
    yield PICTURE, None, f"the edit that is shown {shown} in the place of the prompt", partial(_shown, way=way)
    for blend in BLENDS:
        told = Way(settings=dataclasses.replace(settings, blend=blend))
        what = f"the edit that is told the prompt and shown {shown}, half each, by {blend}"
        yield BOTH, blend, what, partial(_both, way=told)


def _shown(editor: Editor, *, way: Way) -> EditClips:
    with editor.telling(editor.shown(editor.worlds.clips.answer)):
        return editor.edit(way)


def _both(editor: Editor, *, way: Way) -> EditClips:
    with editor.telling(editor.content, editor.shown(editor.worlds.clips.answer)):
        return editor.edit(way)
