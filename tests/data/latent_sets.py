"""Small sets of precomputed latents, in the layout of today and in that of before."""

import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds
from small_sets import clip

from gen1_jax.data.dataset import CLIP_FEATURES, write_dataset
from gen1_jax.data.latents import structure_contract, write_latents
from gen1_jax.models.structure import structure_kind

FRAMES = 3


def latent_record(index: int, kinds=("depth",)) -> dict:
    """A clip of three frames of 32x48 with latents of noise, of all levels of each kind."""
    normal = lambda seed, *shape: np.random.default_rng([index, seed]).normal(size=shape).astype(ml_dtypes.bfloat16)
    record = {key: value for key, value in clip(index, frames=FRAMES).items() if key != "video"}
    arrays = {"moments": normal(0, FRAMES, 4, 6, 8), "content": normal(1, FRAMES, 5)}
    structure = {kind: normal(2 + number, 8, FRAMES, 4, 6, 4) for number, kind in enumerate(kinds)}
    return {**record, **arrays, "structure": structure}


def _noise(*shape):
    return tfds.features.Tensor(shape=shape, dtype=ml_dtypes.bfloat16, encoding="bytes")


def make_set_of_before(directory, count: int, shards: int = 3) -> str:
    """As `gen1 precompute` wrote it when a record had depth at all levels; its names are written out here."""
    features = {name: feature for name, feature in CLIP_FEATURES.items() if name != "video"}
    features |= {"moments": _noise(None, None, None, None), "content": _noise(None, None)}
    features |= {"structure": _noise(8, None, None, None, None)}

    def examples(shard: int):
        for index in range(shard * count // shards, (shard + 1) * count // shards):
            record = latent_record(index)
            yield {**record, "structure": record["structure"]["depth"]}

    depth = {"source": "model", "polarity": "near is large", "normalisation": "clip minimum and maximum to [-1, 1]"}
    write_dataset(
        directory,
        name="latent_clips",
        split="train",
        features=features,
        num_shards=shards,
        examples=examples,
        info={"size": [None, None], "depth": depth},
    )
    return str(directory)


def maps_of(index: int) -> np.ndarray:
    """Depth of a clip as `make_maps` keeps it, to 16 bits."""
    return np.random.default_rng([index, 9]).normal(size=(FRAMES, 32, 48, 1)).astype(np.float32)


def make_maps(directory, count: int) -> str:
    """The same clips as `gen1 precompute` writes them for a model without CLIP, whose control follows depth."""

    def examples(shard: int):
        for i in range(count):
            record = {name: value for name, value in latent_record(i, ()).items() if name != "content"}
            yield {**record, "maps": {"depth": maps_of(i)}}

    made = dict(structure={}, maps={"depth": structure_contract(structure_kind("depth"))}, info={}, has_content=False)
    write_latents(directory, split="train", num_shards=1, examples=examples, **made)
    return str(directory)


def make_latents(directory, count: int, shards: int = 3, kinds=("depth",)) -> str:
    """The same clips as `gen1 precompute` writes them."""

    def examples(shard: int):
        return (latent_record(i, kinds) for i in range(shard * count // shards, (shard + 1) * count // shards))

    structure = {kind: structure_contract(structure_kind(kind)) for kind in kinds}
    write_latents(directory, split="train", num_shards=shards, examples=examples, structure=structure, info={})
    return str(directory)
