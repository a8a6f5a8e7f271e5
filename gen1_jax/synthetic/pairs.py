"""What an edited clip looked like before: the same structure, in a content that differs in one thing or in all.

source content ──an edit that names what differs──► content
"""

import dataclasses

import numpy as np

from gen1_jax.synthetic.content import Content, sample_content
from gen1_jax.synthetic.structure import Structure

CHANGES = ("object", "place", "style", "all")
"""What an edit changes: the material of one object, the place with its light, the style, or everything."""

_SHARES = (0.4, 0.15, 0.15, 0.3)


def sample_source(
    seed: int, structure: Structure, content: Content, split: str = "train", change: str | None = None
) -> tuple[Content, str]:
    """Draws the content of the clip that is edited, whose right edit is `content`.

    What differs comes from another content of the split. With the rest of `content` it may be a combination of no split
    or of another: a model learns to make the answer, not the source.

    Args:
      seed: of what is drawn.
      structure: that has the content.
      content: of the right edit.
      split: of the content from which comes what differs.
      change: what the edit changes, of `CHANGES`; drawn for None.

    Returns:
      The content, and what the edit changes.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, 0x50]))
    drawn = str(rng.choice(CHANGES, p=_SHARES))
    change = drawn if change is None else change
    slot = int(rng.integers(len(structure.names)))
    while True:
        other = sample_content(int(rng.integers(1 << 62)), structure, split)
        before = _with(content, other, change, slot)
        if any(np.any(a != b) for a, b in zip(vars(before).values(), vars(content).values(), strict=True)):
            return before, change


def _with(content: Content, other: Content, change: str, slot: int) -> Content:
    """The content, with that of the other where they are to differ."""
    if change == "all":
        return other
    if change == "object":
        materials = np.array(content.materials)
        materials[slot] = other.materials[slot]
        return dataclasses.replace(content, materials=materials)
    names = {"place": ("environment", "light"), "style": ("style",)}[change]
    return dataclasses.replace(content, **{name: getattr(other, name) for name in names})
