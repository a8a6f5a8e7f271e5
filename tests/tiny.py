"""The smallest family as a model folder, for tests that need every part to run and none to be good."""

import dataclasses
from pathlib import Path

import numpy as np

import gen1_jax
from gen1_jax.models.module import initialise
from gen1_jax.pretrained import family
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import save_model
from gen1_jax.pretrained.nano_public import public_config
from gen1_jax.training.split import SplitTrainingConfig

TINY = dataclasses.replace(
    family.TINY, unet=dataclasses.replace(family.TINY.unet, block_out_channels=(8,), attention_levels=(False,))
)
"""The smallest family with a U-Net of one level, whose programs compile in half of the time; "tiny" has two."""

TINY_PUBLIC = dataclasses.replace(public_config(TINY), clip=None)
"""The same, of the kind of public weights: text, motion modules, a control of depth."""

TINY_SPLIT = SplitTrainingConfig(grid=4, groups=2, bits=4, width=8).family(TINY)
"""The same with a learned split in the place of depth and CLIP."""


def save_tiny_model(folder: Path, config: Gen1Config = TINY, seed: int = 0) -> Path:
    """A model folder of it, with nano's vocabulary."""
    params = {c: initialise(config.build(c, np.float32), seed) for c in config.components}
    tokenizer = (Path(gen1_jax.__file__).parent / "pretrained" / "nano" / "tokenizer.json").read_text()
    save_model(folder, config, params, tokenizer)
    return folder
