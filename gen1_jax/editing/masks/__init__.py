"""Masks of edits: what of a clip may change, and what is to stay as it is.

    near:0.5, far:auto ── depth ────────────────┐
    click:120,80, drawn.png@0 ── depth, flow ───┤
    text:the car, changed ── predictions ───────┼─► MaskClip ─┬─ latent_change ─► the sampler keeps the rest in x_0
    mask.mp4, mask.png, arrays ─────────────────┘             └─ feathered ─────► composited over the source's pixels

White, or 1, may change; outside it the output is the source, number by number.
"""

from gen1_jax.editing.masks.clip import MaskClip, latent_change
from gen1_jax.editing.masks.reading import GivenMask, read_mask
from gen1_jax.editing.masks.sources import MaskSource, file_of, of_edit, parse_mask, takes_model, without_folder

__all__ = [
    "GivenMask",
    "MaskClip",
    "MaskSource",
    "file_of",
    "latent_change",
    "of_edit",
    "parse_mask",
    "read_mask",
    "takes_model",
    "without_folder",
]
