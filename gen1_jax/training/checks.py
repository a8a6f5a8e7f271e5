"""What is refused or warned of before a run begins, rather than when it comes to it."""

import glob
import os
import warnings
from collections.abc import Mapping

import jax

from gen1_jax.data.config import Kind
from gen1_jax.data.storage import folder
from gen1_jax.errors import UserError
from gen1_jax.models.module import Params
from gen1_jax.parallel.sharding import Layout, rules_of
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.training.config import TrainConfig


def kinds(config: TrainConfig) -> set[Kind]:
    """Of the batches of all stages."""
    return {kind for stage in range(len(config.stages)) for kind in config.stage_data(stage).streams}


def check_batches(config: TrainConfig, mesh: Mapping[str, int]) -> None:
    """Batches of every stage can be divided among the devices; an axis that divides nothing is warned of.

    Args:
        config: the recipe.
        mesh: axis -> devices.

    Raises:
        UserError: a batch that microbatches and mesh do not divide, by the fields that say so.
    """
    shards, context = mesh["data"] * mesh["fsdp"], mesh["context"]
    for kind in sorted(kinds(config)):
        stream, parts = getattr(config.data, kind), config.microbatches.of(kind)
        if stream.batch_size % (shards * parts):
            raise UserError(
                f"batches of {stream.batch_size} {kind}s cannot be divided among {shards} devices in {parts} parts "
                f"(data.{kind}.batch_size, microbatches.{kind}, mesh)"
            )
        if stream.frames > 1 and stream.frames % context:
            warnings.warn(
                f"mesh.context={context} does not divide {stream.frames} frames (data.{kind}.frames): "
                f"{context} devices each do the work of one",
                stacklevel=2,
            )
        elif stream.frames == 1 and stream.batch_size // parts % (shards * context):
            warnings.warn(
                f"mesh.context={context} does not divide batches of {stream.batch_size} {kind}s in {parts} parts "
                f"among {shards} devices: {context} devices each do the work of one",
                stacklevel=2,
            )


def check_weights(component: str, params: Params, layout: Layout) -> None:
    """Warns of axes that divide none of the weights, so that their devices do the same work beside each other.

    Args:
        component: the network that is trained.
        params: what is learned, arrays or their shapes.
        layout: where they lie.
    """
    shardings = jax.tree.leaves(layout.at_rest(params, rules_of(component)))
    dividing = {axis for sharding in shardings for axis in sharding.spec}
    for axis in ("fsdp", "tensor"):
        if (size := layout.mesh.shape[axis]) > 1 and axis not in dividing:
            warnings.warn(
                f"mesh.{axis}={size} divides no weights of the {component}: {size} devices each hold all of them",
                stacklevel=2,
            )


def check_model(config: TrainConfig, model: Gen1Config) -> None:
    """The U-Net that a run begins from can go on learning, and can teach.

    Args:
        config: the recipe.
        model: what it begins from.

    Raises:
        UserError: it was distilled: its answers are those of a few steps, not what noise hides.
    """
    if config.component == "unet" and model.unet.guidance_embedded and not config.from_scratch:
        raise UserError(
            f"{config.model} was distilled for few steps: train the model that it was distilled from, and distil that "
            "again (model)"
        )


def check_sources(config: TrainConfig) -> None:
    """Every source of the data is there.

    Raises:
        UserError: naming the first that is not.
    """
    for kind in sorted(kinds(config)):
        for source in getattr(config.data, kind).sources:
            path = os.fspath(source.path)
            if path.startswith("tfds:") or folder(path).exists() or glob.glob(path, recursive=True):
                continue
            raise UserError(f"{path}: no such file or folder (data.{kind}.sources)")
