"""A hash by which a model is known again."""

import hashlib
import json
from pathlib import Path

from gen1_jax.checkpoints.trained import TrainedModel
from gen1_jax.pretrained.folder import ModelFolder, ModelSource
from gen1_jax.pretrained.lora import WithLoRA

_BLOCKS, _BLOCK = 16, 2**16  # of each file of weights: reading gigabytes to name a model would take longer than an edit


def model_hash(source: ModelSource) -> str:
    """16 hexadecimal digits of a model's configuration and of samples of its weights.

    It tells models apart that people mix up; who wants to forge one can. Of a workdir it is that of the record of its
    last checkpoint and of the model that it began from; of one with LoRAs that of the model, their files and strengths.
    Which steps are guided by default does not count: every edit says it of itself, and models may learn better.
    """
    config = {name: value for name, value in source.config.to_dict().items() if name != "guidance_interval"}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    if isinstance(source, TrainedModel):
        digest.update(json.dumps(source.record, sort_keys=True).encode() + model_hash(source.base).encode())
    elif isinstance(source, WithLoRA):
        digest.update(model_hash(source.base).encode())
        for file, strength in source.files:
            digest.update(_sample(file) + repr(strength).encode())
    elif isinstance(source, ModelFolder):
        for file in sorted(source.path.glob("*.safetensors")):
            digest.update(file.name.encode() + _sample(file))
    else:
        digest.update(source.name.encode())
    return digest.hexdigest()[:16]


def _sample(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        blocks = []
        for index in range(_BLOCKS):
            file.seek(max(0, size - _BLOCK) * index // (_BLOCKS - 1))
            blocks.append(file.read(_BLOCK))
    return size.to_bytes(8, "little") + b"".join(blocks)
