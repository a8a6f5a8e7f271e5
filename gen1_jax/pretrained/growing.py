"""A model whose U-Net has more inputs than its weights, as training begins with: rows of zeros for the new ones."""

import dataclasses
from collections.abc import Set

import jax
import numpy as np

from gen1_jax.models.module import Params
from gen1_jax.models.unet import UNetConfig, grow
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.tokenizer import CLIPTokenizer


class GrownModel:
    """A model that is the same bit for bit until it is trained; a `ModelSource`.

    Args:
        base: the model.
        unet: the shape of its U-Net with more inputs, see `models.unet.with_inputs`.
    """

    def __init__(self, base: ModelSource, unet: UNetConfig):
        self.base, self.name, self.warning = base, base.name, base.warning
        self.config = dataclasses.replace(base.config, unet=unet)

    @property
    def words(self) -> Set[str] | None:
        """See `ModelFolder`."""
        return getattr(self.base, "words", None)

    def parameters(self, component: str) -> Params:
        """The weights of one network, on the host."""
        return jax.tree.map(np.asarray, self.stored(component))

    def stored(self, component: str) -> Params:
        """The same; of the U-Net's first layer on the host."""
        stored = self.base.stored(component)
        return grow(stored, self.base.config.unet, self.config.unet) if component == "unet" else stored

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        return self.base.tokenizer()


def grown(source: ModelSource, unet: UNetConfig) -> ModelSource:
    """The model, with as many inputs as a shape of its U-Net has; itself if it has them."""
    has = source.config.unet
    same = (has.inputs, has.guidance_embedded) == (unet.inputs, unet.guidance_embedded)
    return source if same else GrownModel(source, unet)
