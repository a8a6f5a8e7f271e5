"""Adapters of ours as files of LoRA: in the spelling of diffusers and PEFT, or of kohya, which `lora_file` reads.

    down (n, rank), up (rank, out) of a kernel ─► Delta, of PyTorch's shapes ─► NAME.lora_A.weight, NAME.lora_B.weight

alpha is the rank: the scale of a change is in its factors.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from gen1_jax.files import replacing
from gen1_jax.models.module import Params, flatten
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.lora_file import Delta
from gen1_jax.pretrained.lora_names import SPELLINGS, Targets
from gen1_jax.pretrained.subject import IN_HEADER, Subject

Deltas = Mapping[str, Delta]
"""Changes of a network by the path of the kernel."""


def deltas_of(factors: Params, config: Gen1Config, scale: float = 1.0, component: str = "unet") -> dict[str, Delta]:
    """The changes that factors (`models.low_rank.initial_factors`) mean.

    Args:
        factors: {path of a kernel: {"down", "up"}}.
        config: of the model.
        scale: of the changes.
        component: the network.
    """
    targets = {target.path: target for target in Targets.of(config).values() if target.component == component}
    pairs, deltas = flatten(factors), {}
    for path in dict.fromkeys(name.rpartition(".")[0] for name in pairs):
        target = targets[path]
        down, up = (np.asarray(pairs[f"{path}.{name}"], np.float32) for name in ("down", "up"))
        beside = (1,) * (len(target.shape) - 2)
        deltas[path] = Delta(
            target,
            target.theirs(down.reshape(*target.shape[:-1], -1)),
            target.theirs(np.float32(scale) * up.reshape(*beside, *up.shape)),
            1.0,
        )
    return deltas


def write_lora(
    file: str | Path,
    deltas: Mapping[str, Deltas],
    *,
    spelling: str = "peft",
    subject: Subject | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write changes as a safetensors file, beside its place and then in it.

    Args:
        file: FILE.safetensors; replaced if it is there.
        deltas: by network ("unet", "text").
        spelling: of `SPELLINGS`.
        subject: that they show; in the header.
        metadata: what else the header says.
    """
    names_of, tensors = SPELLINGS[spelling], {}
    for component, changes in deltas.items():
        for delta in changes.values():
            names = names_of(component, delta.target.module)
            tensors |= {names.down: np.ascontiguousarray(delta.down), names.up: np.ascontiguousarray(delta.up)}
            if names.alpha is not None:
                tensors[names.alpha] = np.array(len(delta.down) * delta.scale, np.float32)
    header = {"format": "pt", **(metadata or {}), **({} if subject is None else {IN_HEADER: subject.to_text()})}
    with replacing(file) as beside:
        save_file(tensors, beside, header)
        beside.chmod(0o644)  # the library keeps files to their owner
