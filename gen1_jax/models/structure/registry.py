"""The kinds of structure that there are, by name."""

from gen1_jax.errors import UserError
from gen1_jax.models.structure.canny import Canny
from gen1_jax.models.structure.depth import Depth
from gen1_jax.models.structure.kind import StructureKind
from gen1_jax.models.structure.pictures import PICTURE_KINDS
from gen1_jax.models.structure.softedge import SoftEdge

STRUCTURE_KINDS: dict[str, StructureKind] = {kind.name: kind for kind in (Depth(), Canny(), SoftEdge(), *PICTURE_KINDS)}


def structure_kind(name: str) -> StructureKind:
    """The kind of that name.

    Raises:
        ValueError: there is none; lists those that there are.
    """
    if name not in STRUCTURE_KINDS:
        raise UserError(f"there is no structure of kind {name!r}, only {', '.join(sorted(STRUCTURE_KINDS))}")
    return STRUCTURE_KINDS[name]
