"""From a recipe to what each stage learns."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp

from gen1_jax.errors import UserError
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.autoencoder import AutoencoderObjective
from gen1_jax.training.config import StageConfig, TrainConfig
from gen1_jax.training.consistency import CONSISTENCY, ConsistencyObjective
from gen1_jax.training.contrastive import ContrastiveObjective
from gen1_jax.training.denoising import DenoisingObjective
from gen1_jax.training.monodepth import ClipDepthObjective, DepthObjective
from gen1_jax.training.objective import Objective
from gen1_jax.training.prior import PriorObjective
from gen1_jax.training.split import SPLIT, SplitObjective

_PICTURES_PER_DEVICE = 8  # that a frozen autoencoder encodes together


class Given(NamedTuple):
    """What an objective is made of.

    Attributes:
        config: the recipe.
        stage: of it.
        family: the model's configuration.
        settings: the part of the recipe that is the objective's.
        dtype: of the computation.
        tokenizer: gives the text tower's, to those who read captions.
        devices: over which batches are divided.
    """

    config: TrainConfig
    stage: StageConfig
    family: Gen1Config
    settings: Any
    dtype: jnp.dtype
    tokenizer: Callable[[], CLIPTokenizer]
    devices: int


class ObjectiveKind(NamedTuple):
    """An objective by its name.

    Attributes:
        component: the network that it trains.
        build: makes it.
        beside: networks that learn together with it: what is learned has then the parameters of each under its name.
    """

    component: str
    build: Callable[[Given], Objective]
    beside: tuple[str, ...] = ()

    @property
    def components(self) -> tuple[str, ...]:
        """All networks that learn."""
        return self.component, *self.beside


def _of_noise(kind: Callable[..., Objective]) -> Callable[[Given], Objective]:
    return lambda given: kind(
        given.family,
        given.settings,
        dtype=given.dtype,
        inputs=given.config.data.inputs,
        structure=given.config.seen_kinds(given.stage, given.family.unet),
        remat=given.config.remat,
        pictures_at_once=_PICTURES_PER_DEVICE * given.devices,
        tokenizer=given.tokenizer,
    )


def _of_split(given: Given) -> Objective:
    return _of_noise(partial(SplitObjective, split=given.config.split))(given)


def _of_pictures(kind: Callable[..., Objective]) -> Callable[[Given], Objective]:
    return lambda given: kind(given.family, given.settings, dtype=given.dtype)


def _of_captions(kind: Callable[..., Objective]) -> Callable[[Given], Objective]:
    return lambda given: kind(given.family, given.settings, tokenizer=given.tokenizer(), dtype=given.dtype)


OBJECTIVES: dict[str, ObjectiveKind] = {
    "denoising": ObjectiveKind("unet", _of_noise(DenoisingObjective)),
    CONSISTENCY: ObjectiveKind("unet", _of_noise(ConsistencyObjective)),
    "autoencoder": ObjectiveKind("vae", _of_pictures(AutoencoderObjective)),
    "contrastive": ObjectiveKind("clip", _of_captions(ContrastiveObjective)),
    "monodepth": ObjectiveKind("depth", _of_pictures(DepthObjective)),
    "clip_depth": ObjectiveKind("depth", _of_pictures(ClipDepthObjective)),
    "prior": ObjectiveKind("prior", _of_captions(PriorObjective)),
    SPLIT: ObjectiveKind("unet", _of_split, beside=(SPLIT,)),
}
"""By the name that recipes give (`TrainConfig.objective`); the first of a component is its own. Its settings are the
field of the recipe with the component's name."""


def objective_kind(config: TrainConfig) -> ObjectiveKind:
    """The objective that a recipe names, or else its component's own.

    Raises:
        UserError: there is none of that name, or it trains another network.
    """
    if config.objective is None:
        return next(kind for kind in OBJECTIVES.values() if kind.component == config.component)
    if config.objective not in OBJECTIVES:
        raise UserError(f"objective is {config.objective!r}, not one of {', '.join(OBJECTIVES)}")
    kind = OBJECTIVES[config.objective]
    if kind.component != config.component:
        raise UserError(
            f"objective {config.objective} trains the {kind.component}, but component is {config.component}"
        )
    return kind


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
        UserError: the model has no such network, or there is no such objective of it.
    """
    if config.component not in family.components:
        raise UserError(f"{config.model} has no {config.component} to train")
    settings, dtype = getattr(config, config.component), jnp.dtype(config.dtype)
    return objective_kind(config).build(Given(config, stage, family, settings, dtype, tokenizer, devices))
