import dataclasses
from pathlib import Path

import numpy as np
import pytest

import gen1_jax
from gen1_jax.models.module import flatten, initialise, unflatten
from gen1_jax.pretrained.family import TINY
from gen1_jax.pretrained.folder import save_model

FAMILY = dataclasses.replace(  # attention on a level, and text states narrower than embeddings
    TINY,
    unet=dataclasses.replace(TINY.unet, attention_levels=(True, False)),
    clip=dataclasses.replace(TINY.clip, text=dataclasses.replace(TINY.clip.text, hidden_size=12)),
    prior=dataclasses.replace(TINY.prior, text_hidden_size=12),
)


SMALLEST = dataclasses.replace(  # one level of one block each: programs of which most of the time is compilation
    TINY,
    unet=dataclasses.replace(
        TINY.unet,
        block_out_channels=(8,),
        attention_levels=(False,),
        structure_kinds=("depth", "edges"),
        structure_optional=True,
        known=True,
    ),
    vae=dataclasses.replace(TINY.vae, block_out_channels=(8,)),
)

NEEDING = dataclasses.replace(  # it cannot do without its structure, as nano
    SMALLEST,
    unet=dataclasses.replace(SMALLEST.unet, structure_kinds=("depth",), structure_optional=False, known=False),
)

SEVERAL = dataclasses.replace(
    FAMILY,
    unet=dataclasses.replace(
        FAMILY.unet,
        structure_kinds=("depth", "edges", "flow", "source"),
        structure_optional=True,
        known=True,
        structure_level_period=16.0,
    ),
)


@pytest.fixture(scope="session")
def trained_model(tmp_path_factory):
    """A model folder in which no parameter is zero or one any more, so that none can be missed."""
    return save_trained(FAMILY, tmp_path_factory.mktemp("models") / "trained")


@pytest.fixture(scope="session")
def several_model(tmp_path_factory):
    """The same with several inputs, any of which may be given."""
    return save_trained(SEVERAL, tmp_path_factory.mktemp("models") / "several")


@pytest.fixture(scope="session")
def smallest_model(tmp_path_factory):
    """The same of less, with several inputs."""
    return save_trained(SMALLEST, tmp_path_factory.mktemp("models") / "smallest")


@pytest.fixture(scope="session")
def needing_model(tmp_path_factory):
    """The same with one structure, which it needs."""
    return save_trained(NEEDING, tmp_path_factory.mktemp("models") / "needing")


def save_trained(config, folder):
    rng = np.random.default_rng(0)
    params = {}
    for component in config.components:
        fresh = flatten(initialise(config.build(component, np.float32), 0))
        noise = {name: rng.normal(0, 0.1, value.shape).astype(np.float32) for name, value in fresh.items()}
        params[component] = unflatten({name: value + noise[name] for name, value in fresh.items()})
    tokenizer = (Path(gen1_jax.__file__).parent / "pretrained" / "nano" / "tokenizer.json").read_text()
    save_model(folder, config, params, tokenizer)
    return folder
