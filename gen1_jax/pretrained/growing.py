"""A model whose denoiser has another shape than its weights, as training begins with: rows of zeros for new inputs."""

import dataclasses
from collections.abc import Set

import jax
import numpy as np

from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.growing import grow
from gen1_jax.models.module import Params
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.tokenizer import CLIPTokenizer


class GrownModel:
    """A model that is the same bit for bit until it is trained; a `ModelSource`.

    Args:
        base: the model.
        unet: the shape of its denoiser with more inputs, see `models.growing.with_inputs`; or of one of another size,
            for which the weights of the model are nothing to begin with.
    """

    def __init__(self, base: ModelSource, unet: DenoiserConfig):
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


def grown(source: ModelSource, unet: DenoiserConfig) -> ModelSource:
    """The model, with a denoiser of this shape; itself if it has that, whatever it predicts."""
    has = source.config.unet
    return source if has == dataclasses.replace(unet, prediction_type=has.prediction_type) else GrownModel(source, unet)
