"""A model's CLIP alone, as transformers' CLIPModel loads it, its vocabulary in the same folder.

Such a folder is a judge of edits (`gen1 evaluate --judge`), as any other CLIP is.
"""

from pathlib import Path

import jax
import numpy as np

from gen1_jax.exporting.diffusers_format import write_tensors, write_tokenizer
from gen1_jax.exporting.diffusers_parity import measure_clip, quiet
from gen1_jax.exporting.networks import ExportError, Networks, Written, write_json
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.hf_clip import CLIP, their_clip_config, their_image_processor_config


def write_clip(source: ModelSource, folder: Path, dtype: np.dtype) -> Written:
    """Write the folder, load it with its class, and run it beside the JAX network.

    Raises:
        ExportError: the model has no CLIP, or the class does not take what was written.
    """
    if source.config.clip is None:
        raise ExportError(f"{source.name} has no CLIP")
    import torch

    networks, tokenizer = Networks(source, dtype), source.tokenizer()
    write_json(folder / "config.json", their_clip_config(source.config.clip, tokenizer.start))
    write_tensors(folder, "model", CLIP.to_theirs(networks["clip"]), None)
    write_json(folder / "preprocessor_config.json", their_image_processor_config(source.config.clip.vision))
    write_tokenizer(folder, tokenizer)
    with torch.no_grad(), quiet(), jax.default_matmul_precision("highest"):
        return Written(measure_clip(source, networks, folder))
