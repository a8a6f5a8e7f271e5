"""The kinds of structure that there are, by name."""

from gen1_jax.errors import UserError
from gen1_jax.models.structure.canny import Canny
from gen1_jax.models.structure.depth import Depth
from gen1_jax.models.structure.edges import Edges
from gen1_jax.models.structure.flow import Flow
from gen1_jax.models.structure.kind import StructureKind
from gen1_jax.models.structure.low_resolution import LowResolution
from gen1_jax.models.structure.normals import Normals
from gen1_jax.models.structure.pictures import PICTURE_KINDS
from gen1_jax.models.structure.pose import Pose
from gen1_jax.models.structure.segmentation import Segmentation
from gen1_jax.models.structure.softedge import SoftEdge
from gen1_jax.models.structure.split import LearnedSplit

_OF_MODELS = (Depth(), Edges(), Normals(), Flow(), Segmentation(), Pose(), LowResolution(), LearnedSplit())
_OF_CONTROL_NETS = (Canny(), SoftEdge(), Normals(name="normal"), *PICTURE_KINDS)

STRUCTURE_KINDS: dict[str, StructureKind] = {kind.name: kind for kind in (*_OF_MODELS, *_OF_CONTROL_NETS)}
"""Those that a U-Net of our own may have as channels, exact from the worlds ("source", too), and those of ControlNets.

What both know goes by two names, for a model may have both: "normals" and "normal", "source" and "tile".
"""


def structure_kind(name: str) -> StructureKind:
    """The kind of that name.

    Raises:
        ValueError: there is none; lists those that there are.
    """
    if name not in STRUCTURE_KINDS:
        raise UserError(f"there is no structure of kind {name!r}, only {', '.join(sorted(STRUCTURE_KINDS))}")
    return STRUCTURE_KINDS[name]
