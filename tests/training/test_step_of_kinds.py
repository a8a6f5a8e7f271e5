"""A U-Net that sees several kinds of structure: what it is told of each."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.module import abstract_parameters
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective

KINDS = ("depth", "edges", "normals", "flow", "segmentation", "pose", "source")
FAMILY = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, structure_kinds=KINDS))


def test_each_kind_is_told_with_its_level():
    objective = DenoisingObjective(FAMILY, DenoisingConfig(structure_dropout=0.5))
    batch = random_latents(FAMILY, "video", 3)
    structure = {kind: batch.structure["depth"] + np.float32(i) for i, kind in enumerate(KINDS)}
    batch = dataclasses.replace(batch, structure=structure, structure_level=np.array([0, 3, 7], np.int32))
    inputs = jax.tree.map(jnp.asarray, objective.inputs(batch))
    signals = objective._signals._encoded({}, inputs, jnp.zeros(batch.structure["depth"].shape))
    for kind, signal in signals.items():
        without = kind in ("edges", "segmentation", "pose")  # from which t_s takes nothing
        np.testing.assert_array_equal(signal.level, [0, 0, 0] if without else [0, 3, 7])
        np.testing.assert_array_equal(signal.maps, batch.structure[kind].astype(np.float32))
    weights = {
        k: s.weight for k, s in objective._signals._weighted(signals, jax.random.split(jax.random.key(0), 3)).items()
    }
    assert len({tuple(np.asarray(weight)) for weight in weights.values()}) > 2  # each is dropped by itself
    params = abstract_parameters(objective.module)
    loss, _ = jax.eval_shape(objective.loss, params, {}, inputs, jax.random.split(jax.random.key(0), 3))
    assert loss.shape == (3,)


def test_what_is_estimated_on_the_host_is_precomputed():
    for kind in ("edges", "flow", "segmentation"):
        family = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, structure_kinds=("depth", kind)))
        with pytest.raises(UserError, match=f"structure {kind} cannot be estimated in a step: run gen1 precompute"):
            DenoisingObjective(family, inputs="pixels")
