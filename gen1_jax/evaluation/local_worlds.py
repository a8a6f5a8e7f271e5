"""Local edits whose right answer is known: the clip with one object made of something else, and nothing else changed.

structure i ─┬─ content a ─────────────────────────────► source
             └─ content a, one object's material of b ──► answer, which differs from the source where the object is
"""

import jax
import numpy as np
from jaxtyping import Bool

from gen1_jax import synthetic
from gen1_jax.evaluation.worlds import Scene, Worlds
from gen1_jax.synthetic.content import split_of
from gen1_jax.synthetic.materials import MATERIAL_NAMES
from gen1_jax.synthetic.structure import MAX_OBJECTS

PHOTOGRAPH = 0
"""Of the styles the one in which an object's material changes no pixel further than 2 from it; others are not local."""

FIRST_OBJECT = 3  # in `Geometry.ids`: before it come the sky, the ground and the set
_DRAWS = 1 << 20  # contents of one structure come from seeds so far apart


def local_scene(split: str, index: int, seed: int) -> Scene:
    """A structure, a photograph of it, and the same with the largest object of another material of the split."""
    structure = synthetic.sample_structure(synthetic.clip_seed(split, index, seed))
    rng = np.random.default_rng([index, seed])
    for draw in range(1, 1000):
        content = synthetic.sample_content(synthetic.clip_seed(split, index + draw * _DRAWS, seed), structure, split)
        if int(content.style) != PHOTOGRAPH:
            continue
        slot = largest_object(structure)
        environment, before = int(content.environment), int(content.materials[slot])
        others = [m for m in range(len(MATERIAL_NAMES)) if split_of(m, environment, PHOTOGRAPH) == split]
        if others := [material for material in others if material != before]:
            break
    materials = np.array(content.materials)
    materials[slot] = rng.choice(others)
    return structure, content, synthetic.Content(**vars(content) | {"materials": materials})


def changed_object(worlds: Worlds) -> Bool[np.ndarray, "n t h w"]:
    """Where the object is that differs, exactly: what a perfect mask would be."""
    slots = []
    for _, before, after in worlds.scenes:
        (slot,) = np.flatnonzero(np.asarray(before.materials) != np.asarray(after.materials))[:1]
        slots.append(slot + FIRST_OBJECT)
    return worlds.clips.ids == np.array(slots)[:, None, None, None]


def largest_object(structure: synthetic.Structure) -> int:
    """The slot of the object whose parts have the most volume."""
    parts = jax.tree.map(np.asarray, structure.parts)
    volume = np.zeros(MAX_OBJECTS + 1)
    real = np.arange(len(parts.slot)) < parts.count
    np.add.at(volume, parts.slot[real], parts.half[real].prod(-1))
    return int(volume[:MAX_OBJECTS][: len(structure.names)].argmax())
