"""A model of another shape than its weights, as training begins with: zeros for new inputs, or a network more."""

import dataclasses
from collections.abc import Set

import jax
import numpy as np

from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.growing import grow
from gen1_jax.models.module import Params
from gen1_jax.models.split import SplitConfig
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.tokenizer import CLIPTokenizer


class GrownModel:
    """A model that is the same bit for bit until it is trained; a `ModelSource`.

    Args:
        base: the model.
        unet: the shape of its denoiser with more inputs, see `models.growing.with_inputs`; or of one of another size,
            for which the weights of the model are nothing to begin with.
        split: the shape of its split, which has no weights yet where the model has none.
    """

    def __init__(self, base: ModelSource, unet: DenoiserConfig, split: SplitConfig | None = None):
        self.base, self.name, self.warning = base, base.name, base.warning
        self.config = dataclasses.replace(base.config, unet=unet, split=split)

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


def grown(source: ModelSource, unet: DenoiserConfig, split: SplitConfig | None = None) -> ModelSource:
    """The model, with a denoiser and a split of these shapes; itself if it has them, whatever it predicts."""
    has = source.config.unet
    same = has == dataclasses.replace(unet, prediction_type=has.prediction_type) and source.config.split == split
    return source if same else GrownModel(source, unet, split)
