"""Structure: what of a clip an edit keeps, as maps that are blurred t_s times.

    frames ──estimate──► maps of a kind ──normalise──► [-1, 1] ──degrade by t_s──► blurred ─┬─encode──► latents
    pictures of ready maps ──from_pictures─────────────────────┘                            └─hint──► RGB in [0, 1]

Latents are what Gen-1's own U-Net is told, a hint what a ControlNet is. A kind is a module here and a line of
`registry.py`, or, if its maps are only ever given, a line of `pictures.py`.
"""

from gen1_jax.models.structure.blur import MAX_STRUCTURE_LEVEL, blur, blur_frames
from gen1_jax.models.structure.canny import Canny
from gen1_jax.models.structure.depth import Depth, blur_depth, normalise_depth, structure_images
from gen1_jax.models.structure.kind import EncodeImages, StructureKind
from gen1_jax.models.structure.pictures import PictureKind
from gen1_jax.models.structure.registry import STRUCTURE_KINDS, structure_kind
from gen1_jax.models.structure.steady import aligned_frames, steady_depth

__all__ = [
    "MAX_STRUCTURE_LEVEL",
    "STRUCTURE_KINDS",
    "Canny",
    "Depth",
    "EncodeImages",
    "PictureKind",
    "StructureKind",
    "aligned_frames",
    "blur",
    "blur_depth",
    "blur_frames",
    "normalise_depth",
    "steady_depth",
    "structure_images",
    "structure_kind",
]
