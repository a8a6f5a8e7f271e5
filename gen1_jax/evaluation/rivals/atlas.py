"""Edit two pictures of a clip, its layers, and lay the edits under all frames: in the way of Text2LIVE.

clip ─► layers (`layered_atlas`) ─► background's picture ─────────────────► image model ─┐
                 │                  foreground's, over what is behind it ─► image model ─┴─► colours of all frames
                 └─► maps and alpha of each frame ──────────────────────────────────────────┘

Source: https://arxiv.org/abs/2204.02491, section 3.2 (Text2LIVE, which trains a network for each edit of atlases).
"""

from functools import partial

import jax
import numpy as np
from jaxtyping import Float, UInt8

from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.local_worlds import FIRST_OBJECT
from gen1_jax.evaluation.rivals import layered_atlas
from gen1_jax.evaluation.rivals.layered_atlas import Atlas
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import EditClips, ShownSource, ShownWorlds
from gen1_jax.models.structure.pictures import opencv


def atlas_edit(editor: Editor, way: Way, *, true_masks: bool = False) -> EditClips:
    """Edits whose every colour is of the edit of one of two pictures.

    Args:
        editor: of the worlds.
        way: of edits of pictures.
        true_masks: whether the foreground is all objects of a world, rather than what moves otherwise than most.
    """
    clips, edits, numbers = editor.worlds.clips, [], [*editor.batches()]
    masks = (clips.ids >= FIRST_OBJECT).astype(np.float32) if true_masks else None
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(way.settings.seed)))(np.arange(len(editor.worlds)))
    atlases = [
        layered_atlas.fitted(clips.source[i], None if masks is None else masks[i], keys=keys[i]) for i in numbers
    ]
    size, count = clips.source.shape[2:4], len(editor.worlds)
    layers = np.concatenate([_pictures(atlas, size) for atlas in atlases])[:count]
    for layer in (0, 1):
        stills = editor.showing(ShownWorlds(ShownSource(layers[:, layer, None]), editor.worlds.prompts))
        edits.append(stills.edit(way)[:, 0])
        editor.evaluations += stills.evaluations / clips.source.shape[1]
    edited = np.stack(edits, axis=1).astype(np.float32) / 255
    frames = [
        _to_uint8(np.asarray(layered_atlas.rendered(a, edited[i]))) for a, i in zip(atlases, numbers, strict=True)
    ]
    return np.concatenate(frames)[:count]


def _pictures(atlas: Atlas, size: tuple[int, int]) -> UInt8[np.ndarray, "n 2 h w 3"]:
    """Of each layer, at the size of frames; around the foreground, and where it is not seen, what is behind it."""
    background, foreground = np.moveaxis(np.asarray(atlas.pictures), 1, 0)
    behind, seen = np.asarray(layered_atlas.behind(atlas)), layered_atlas.coverage(atlas)[..., None]
    layers = np.stack([background, behind + seen * (foreground - behind)], axis=1)
    return np.stack([[_resized(picture, size) for picture in clip] for clip in _to_uint8(layers)])


def _resized(picture: UInt8[np.ndarray, "i j 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    cv2 = opencv("layered atlases")
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def _to_uint8(x: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[0, 1] to 0 ... 255, rounded and clipped."""
    return np.rint(np.clip(np.asarray(x), 0, 1) * 255).astype(np.uint8)
