"""Structure: what of a clip an edit keeps, as maps that are blurred t_s times and encoded by the autoencoder.

frames ──estimate──► maps of a kind ──normalise──► [-1, 1] ──degrade by t_s──► blurred ──encode──► latents

A kind is a module here and a line of `registry.py`; depth is the first.
"""

from gen1_jax.models.structure.blur import MAX_STRUCTURE_LEVEL, blur
from gen1_jax.models.structure.depth import Depth, blur_depth, normalise_depth, structure_images
from gen1_jax.models.structure.kind import EncodeImages, StructureKind
from gen1_jax.models.structure.registry import STRUCTURE_KINDS, structure_kind

__all__ = [
    "MAX_STRUCTURE_LEVEL",
    "STRUCTURE_KINDS",
    "Depth",
    "EncodeImages",
    "StructureKind",
    "blur",
    "blur_depth",
    "normalise_depth",
    "structure_images",
    "structure_kind",
]
