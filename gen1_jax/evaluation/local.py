"""`gen1 evaluate --benchmark local`: one object is to become something else, and all that is not it to stay.

Its prompts are captions of the right answer; the unmasked edit, told the same, is what masks have to be better than.
"""

import dataclasses
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gen1_jax.editing.masks import MaskClip
from gen1_jax.editing.masks.differences import CHANGE_NOISES, CHANGE_STRENGTH, changed, differences
from gen1_jax.editing.masks.growing import grown
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.inputs import SOURCE_SCALES, in_sight, source_methods
from gen1_jax.evaluation.local_worlds import changed_object
from gen1_jax.evaluation.methods import (
    CHANGE_DESCRIBED,
    CHANGE_IN_SIGHT,
    CLICKED,
    MASKED,
    MASKED_BY_CHANGE,
    MASKED_IN_SIGHT,
    Method,
    first_methods,
)
from gen1_jax.evaluation.scores import Measure, Scorer, Scores
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.measures import masked_psnr, seam_error, unit_vectors
from gen1_jax.models.structure import normalise_depth
from gen1_jax.pretrained.family import Gen1Config

MARGIN = 2
"""Pixels from an object within which another material of it changes what is seen: by antialiasing."""

LOCAL_MEASURES = {
    "inside_psnr": Measure("higher", "dB, at most 100", "PSNR to the answer, of the object that changes alone"),
    "outside_psnr": Measure(
        "higher", "dB, at most 100", f"PSNR to the input, of all further than {MARGIN} pixels from it; 100 is exact"
    ),
    "changed": Measure(
        "higher", "0 or 1", "whether the object is nearer to what it is to become than to what it was, by PSNR"
    ),
    "named": Measure(
        "higher",
        "0 or 1",
        "whether the edit is nearer to its prompt than to what would be said of the input, in CLIP's space",
    ),
    "seam_error": Measure(
        "lower",
        "from 0",
        "how far the mean difference of neighbouring pixels in 3 pixels around the object's outline is from the "
        "answer's, as a share of it",
    ),
}
"""Scores of a local edit beside `MEASURES`."""


def local_methods(settings: EditSettings, config: Gen1Config | None = None) -> list[Method]:
    """What is compared; of a model that sees the source, edits that are to leave alone what is not named."""
    masked = lambda masks, way=settings: lambda editor: editor.edit(Way(settings=way, masks=masks(editor)))
    change = lambda described=False: partial(changed_masks, settings=settings, described=described)
    seeing = [] if config is None else [Method(*fields) for fields in source_methods(settings, config)]
    if seeing:
        way = dataclasses.replace(settings, **in_sight(config, SOURCE_SCALES[0]))
        sight = f"with the clip itself in sight, w_src {SOURCE_SCALES[0]:g}"
        seeing.append(Method(MASKED_IN_SIGHT, None, f"the masked edit {sight}", masked(exact_masks, way)))
        what = f"the edit by its described change {sight}"
        seeing.append(Method(CHANGE_IN_SIGHT, None, what, masked(change(described=True), way)))
    return [
        *first_methods(settings),
        Method(MASKED, None, "the edit under a mask of the object, exact, and 2 pixels wider", masked(exact_masks)),
        Method(CLICKED, None, "the same by a click on the object, where it is seen best", masked(clicked_masks)),
        Method(MASKED_BY_CHANGE, None, "the same where its content changes predictions", masked(change())),
        Method(CHANGE_DESCRIBED, None, "the same, told in words what was there", masked(change(described=True))),
        *seeing,
    ]


def exact_masks(editor: Editor) -> list[MaskClip]:
    """Of each clip the object that changes, with the pixels around it that change, too."""
    return [MaskClip.where(clip) for clip in _wider(_objects(editor))]


def clicked_masks(editor: Editor) -> list[MaskClip]:
    """Of each clip what a click finds: in the middle of the object, in the frame where most of it is seen."""
    import cv2

    quantiles = editor.pipeline.config.depth_quantiles
    depth = (np.asarray(normalise_depth(jnp.asarray(editor.depth), quantiles)) + 1) / 2
    masks = []
    for frames, inverse_depth, clip in zip(editor.worlds.clips.source, depth, _objects(editor), strict=True):
        at = int(clip.sum((1, 2)).argmax())
        middle = cv2.distanceTransform(clip[at].astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).argmax()
        row, column = map(int, np.unravel_index(middle, clip[at].shape))
        found = grown(frames, inverse_depth, (row, column), at)
        masks.append(MaskClip.where(found))
    return masks


def changed_masks(editor: Editor, settings: EditSettings, described: bool = False) -> list[MaskClip]:
    """Of each clip what `gen1 edit --mask changed` finds, or `changed:WORDS`: nobody has to say where the object is."""
    masks, size = [], editor.worlds.clips.source.shape[2:4]
    how = dict(strength=CHANGE_STRENGTH, noises=CHANGE_NOISES, seed=settings.seed)
    pipeline, seen = editor.pipeline, editor.worlds
    before = pipeline.content.of_prompts(seen.source_prompts, editor.seed, editor.batch_size)[0] if described else None
    for indices in editor.batches():
        told = editor.told(Way(settings=settings), indices)
        if before is None:
            other = editor.told_input(told, indices)
        else:
            other = dataclasses.replace(told, content=dict.fromkeys(told.content, jnp.asarray(before[indices])))
        found = differences(pipeline, jnp.asarray(editor.latents[indices]), told, other, **how)
        masks += [*changed(found, size)]
    editor.evaluations += 2 * CHANGE_NOISES
    return [MaskClip.where(clip, sharp=True) for clip in masks[: len(editor.worlds)]]


class LocalScorer(Scorer):
    """`MEASURES` and `LOCAL_MEASURES` of edits; NaN where the object is not seen."""

    def score(self, clips: EditClips) -> Scores:
        """See `Scorer.score`."""
        objects = _objects(self.editor)
        arrays = (clips, self.editor.worlds.clips.answer, self.editor.worlds.clips.source, objects, _wider(objects))
        return super().score(clips) | self._batched(_local, *arrays)

    @cached_property
    def _source_prompts(self) -> Float[np.ndarray, "n d"]:
        return self._embed_texts(self.editor.worlds.source_prompts)

    def told(self, embedded: Float[np.ndarray, "n t d"]) -> Scores:
        """See `Scorer.told`."""
        either = unit_vectors(np.stack([self._prompts, self._source_prompts]))
        asked, before = (either * unit_vectors(embedded).mean(1)).sum(-1)
        return super().told(embedded) | {"named": (asked > before).astype(float)}


def _objects(editor: Editor) -> np.ndarray:
    return changed_object(editor.worlds)


def _wider(objects: np.ndarray) -> np.ndarray:
    """The objects and what lies within `MARGIN` pixels of them."""
    import cv2

    around = np.ones((2 * MARGIN + 1,) * 2, np.uint8)
    frames = objects.reshape(-1, *objects.shape[2:]).astype(np.uint8)
    return np.stack([cv2.dilate(frame, around) for frame in frames]).reshape(objects.shape).astype(bool)


@jax.jit
def _local(clips, answers, sources, objects, wider) -> dict[str, jax.Array]:
    clips, answers, sources = (x.astype(jnp.float32) / 255 for x in (clips, answers, sources))
    inside, before = masked_psnr(clips, answers, objects), masked_psnr(clips, sources, objects)
    return {
        "inside_psnr": inside,
        "changed": jnp.where(jnp.isnan(inside), jnp.nan, inside > before),
        "outside_psnr": masked_psnr(clips, sources, ~wider),
        "seam_error": seam_error(clips, answers, objects),
    }
