"""From a recipe to what each stage learns."""

from collections.abc import Callable

import jax.numpy as jnp

from gen1_jax.errors import UserError
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.autoencoder import AutoencoderObjective
from gen1_jax.training.config import StageConfig, TrainConfig
from gen1_jax.training.contrastive import ContrastiveObjective
from gen1_jax.training.denoising import DenoisingObjective
from gen1_jax.training.monodepth import DepthObjective
from gen1_jax.training.objective import Objective
from gen1_jax.training.prior import PriorObjective

_PICTURES_PER_DEVICE = 8  # that a frozen autoencoder encodes together


def make_objective(
    config: TrainConfig, stage: StageConfig, family: Gen1Config, tokenizer: Callable[[], CLIPTokenizer], devices: int
) -> Objective:
    """The objective of a stage.

    Args:
        config: the recipe.
        stage: of it.
        family: the model's configuration.
        tokenizer: gives the text tower's, to those who read captions.
        devices: over which batches are divided.

    Raises:
        ValueError: the model has no such network.
    """
    if config.component not in family.components:
        raise UserError(f"{config.model} has no {config.component} to train")
    settings, dtype = getattr(config, config.component), jnp.dtype(config.dtype)
    if config.component == "unet":
        return DenoisingObjective(
            family,
            settings,
            dtype=dtype,
            inputs=config.data.inputs,
            structure=stage.structure,
            remat=config.remat,
            pictures_at_once=_PICTURES_PER_DEVICE * devices,
            tokenizer=tokenizer,
        )
    if config.component == "vae":
        return AutoencoderObjective(family, settings, dtype=dtype)
    if config.component == "depth":
        return DepthObjective(family, settings, dtype=dtype)
    captioned = {"clip": ContrastiveObjective, "prior": PriorObjective}[config.component]
    return captioned(family, settings, tokenizer=tokenizer(), dtype=dtype)
