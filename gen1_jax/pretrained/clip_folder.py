"""A CLIP alone, in transformers' layout: config.json of CLIPModel, safetensors, its vocabulary."""

from pathlib import Path

import numpy as np

from gen1_jax.models.clip import CLIPModel
from gen1_jax.models.module import Bound
from gen1_jax.pretrained.assembly import Network, Source
from gen1_jax.pretrained.hf_clip import CLIP, clip_config
from gen1_jax.pretrained.hf_folders import read_config, tokenizer_json
from gen1_jax.pretrained.hf_pipeline import network_folder
from gen1_jax.pretrained.tensors import FolderError, read_json, stored_tensors, tensor_files
from gen1_jax.pretrained.tokenizer import CLIPTokenizer

_VOCABULARIES = ("merges.txt", "tokenizer.json")
_FORMAT = "format"  # what only a config.json of our own has


def is_clip_folder(folder: Path) -> bool:
    """Whether it is one, or has one in it (`clip/`, `snapshots/...`), rather than a model folder of our own."""
    if not folder.is_dir():
        return False
    here = folder / "config.json"
    if here.is_file():
        config = read_json(here)
        return _FORMAT not in config and config.get("model_type") == "clip"
    return network_folder(folder, "clip") != folder


def read_clip_folder(folder: Path) -> tuple[Bound, CLIPTokenizer]:
    """The network in float32, and the tokenizer of its text tower, whose vocabulary is there or in `tokenizer` beside.

    Raises:
        FolderError, ConfigError, LayoutError: it is damaged, or of another variant.
    """
    folder = network_folder(folder, "clip")
    config = read_config(folder, clip_config)
    module = CLIPModel(config)
    source = Source(layout=CLIP, tensors=stored_tensors(tensor_files(folder)), name=str(folder))
    params = Network(module=module, sources=(source,)).parameters(np.float32)
    places = (folder, folder.parent / "tokenizer")
    vocabulary = next((place for place in places if any((place / name).is_file() for name in _VOCABULARIES)), None)
    if vocabulary is None:
        raise FolderError(f"{folder} has no vocab.json and merges.txt: put CLIP's there")
    return Bound(module, params), CLIPTokenizer(tokenizer_json(vocabulary), config.text, str(vocabulary))
