"""The learned code as structure: frames through the autoencoder, and what the family's split keeps of their latents."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp

from gen1_jax.models.module import Bound
from gen1_jax.models.structure.kind import Degraded, EncodeImages, StructureKind
from gen1_jax.models.structure.pictures import Tile

SPLIT = "split"
"""One name for all that is of `models.split`: part of a family, kind of structure, kind of content, objective."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedSplit(Tile):
    """Maps are the frames themselves, of which a denoiser is told their code (`picture_encoder`). See `StructureKind`.

    How much the code tells is fixed by training: t_s takes nothing from it.
    """

    part: ClassVar[str | None] = SPLIT
    name: str = SPLIT
    degrades: Degraded = "nothing"


def picture_encoder(kind: StructureKind, network: Callable[[str], Bound]) -> EncodeImages:
    """What `kind.encode` needs, of a family's networks: the autoencoder, and after it the split for the learned code.

    Args:
        kind: of structure.
        network: gives a network of the family by its name.
    """
    vae = network("vae")
    if kind.name != SPLIT:
        return vae.images_to_latents
    split = network(SPLIT)
    return lambda images: split.encode(jnp.asarray(vae.images_to_latents(images))).maps
