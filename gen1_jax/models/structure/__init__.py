"""Structure: what of a clip an edit keeps, as maps that are blurred t_s times.

    frames ──estimate──► maps of a kind ──normalise──► [-1, 1] ──degrade by t_s──► blurred ─┬─encode──► latents
    pictures of ready maps ──from_pictures─────────────────────┘                            └─hint──► RGB in [0, 1]

Latents are what Gen-1's own U-Net is told, a hint what a ControlNet is. A kind is a module here and a line of
`registry.py`, or, if its maps are only ever given, a line of `pictures.py`.
"""

from gen1_jax.models.structure.blur import MAX_STRUCTURE_LEVEL, blur, blur_frames
from gen1_jax.models.structure.canny import Canny
from gen1_jax.models.structure.depth import Depth, blur_depth, normalise_depth, structure_images
from gen1_jax.models.structure.edges import Edges
from gen1_jax.models.structure.flow import Flow
from gen1_jax.models.structure.kind import EncodeImages, StructureKind, told_level
from gen1_jax.models.structure.low_resolution import LOW_RESOLUTION, LowResolution
from gen1_jax.models.structure.normals import Normals
from gen1_jax.models.structure.pictures import PictureKind
from gen1_jax.models.structure.pose import Bone, Pose, draw_bones
from gen1_jax.models.structure.registry import STRUCTURE_KINDS, structure_kind
from gen1_jax.models.structure.segmentation import Segmentation, colours_of, estimate_regions
from gen1_jax.models.structure.split import SPLIT, LearnedSplit, picture_encoder
from gen1_jax.models.structure.steady import aligned_frames, steady_depth

__all__ = [
    "LOW_RESOLUTION",
    "MAX_STRUCTURE_LEVEL",
    "SPLIT",
    "STRUCTURE_KINDS",
    "Bone",
    "Canny",
    "Depth",
    "Edges",
    "EncodeImages",
    "Flow",
    "LearnedSplit",
    "LowResolution",
    "Normals",
    "PictureKind",
    "Pose",
    "Segmentation",
    "StructureKind",
    "aligned_frames",
    "blur",
    "blur_depth",
    "blur_frames",
    "colours_of",
    "draw_bones",
    "estimate_regions",
    "normalise_depth",
    "picture_encoder",
    "steady_depth",
    "structure_images",
    "structure_kind",
    "told_level",
]
