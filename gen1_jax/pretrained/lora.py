"""LoRA (arXiv 2106.09685): small changes of a model's weights in files of their own, merged when the model is loaded.

W + strength * (alpha / rank) * up @ down         in float32, whatever the files hold
"""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gen1_jax.models.module import Params, flatten, unflatten
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.lora_file import Delta, read_lora
from gen1_jax.pretrained.lora_names import Targets
from gen1_jax.pretrained.subject import Subjects
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.pretrained.words import READS_WORDS


def merge(params: Params, loras: Sequence[tuple[Mapping[str, Delta], float | int]]) -> Params:
    """The parameters of a network with LoRAs added, each kernel summed in float32 and kept in the dtype that it has.

    Args:
        params: of the network.
        loras: changes by path (`LoRA.deltas[component]`), and their strengths.
    """
    return jax.tree.map(np.asarray, merged_when_read(params, loras))


def norm_ratio(params: Params, deltas: Mapping[str, Delta], strength: float | int = 1) -> float:
    """How large the change of a network is against the kernels that it changes, in Frobenius norms of all of them.

    A LoRA that fits is about 0.001 to 1; 0 where nothing is changed.
    """
    flat = flatten(params)
    weights = [np.asarray(flat[path]).astype(np.float32) for path in deltas]
    before = math.hypot(*(float(np.linalg.norm(weight.ravel())) for weight in weights))
    return abs(strength) * math.hypot(*(delta.norm() for delta in deltas.values())) / before if before else 0.0


class WithLoRA:
    """A model with LoRAs merged into its U-Net and its text encoder; a `ModelSource`. A warning tells what is left out.

    Args:
        source: the model.
        loras: files, or folders of one, and their strengths.

    Attributes:
        base: the model without them.
        files: of the LoRAs, and their strengths.

    Raises:
        FolderError, LoRAError: see `read_lora`.
    """

    def __init__(self, source: ModelSource, loras: Sequence[tuple[str | Path, float | int]]):
        self.base, self.config, self.warning = source, source.config, source.warning
        targets = Targets.of(source.config)
        self._read = [(read_lora(path, targets), float(strength)) for path, strength in loras]
        self.files = [(file, strength) for lora, strength in self._read for file in lora.files]
        for lora, _ in self._read:
            if lora.report:
                warnings.warn(lora.report, stacklevel=2)
        self.name = " + ".join([source.name, *(f"{lora.name}:{strength:g}" for lora, strength in self._read)])

    @property
    def words(self) -> Set[str] | None:
        """Those of the model, unless what reads them is changed; see `pretrained.words`."""
        changed = any(lora.deltas.get(name) for lora, _ in self._read for name in READS_WORDS)
        return None if changed else getattr(self.base, "words", None)

    def parameters(self, component: str) -> Params:
        """The weights of one network, on the host."""
        if not self._changes(component):
            return self.base.parameters(component)
        return jax.tree.map(np.asarray, self.stored(component))

    def stored(self, component: str) -> Params:
        """The same, each read and merged only where it is sliced."""
        return merged_when_read(self.base.stored(component), self._changes(component))

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        return self.base.tokenizer()

    @property
    def subjects(self) -> Subjects:
        """Those of the files, and that of the model; see `pretrained.subject`."""
        told = [(lora.subject, strength) for lora, strength in self._read if lora.subject is not None]
        return [*getattr(self.base, "subjects", ()), *told]

    def norm_ratios(self) -> list[dict[str, float]]:
        """Of each file, the `norm_ratio` of the networks that it changes. Reads their weights."""
        return [
            {
                name: norm_ratio(self.base.stored(name), deltas, strength)
                for name, deltas in lora.deltas.items()
                if deltas
            }
            for lora, strength in self._read
        ]

    def _changes(self, component: str) -> list[tuple[Mapping[str, Delta], float | int]]:
        changes = [(lora.deltas.get(component, {}), strength) for lora, strength in self._read]
        return [(deltas, strength) for deltas, strength in changes if deltas and strength]


def with_loras(source: ModelSource, loras: Sequence[tuple[str | Path, float | int]]) -> ModelSource:
    """The model, with LoRAs if there are any."""
    return WithLoRA(source, loras) if loras else source


@dataclasses.dataclass(frozen=True)
class _Merged:
    """A kernel with its changes, made when it is sliced or an array."""

    weight: Any
    changes: tuple[tuple[Delta, float], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    @property
    def dtype(self) -> Any:
        return self.weight.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self)[index]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        weight = np.asarray(self.weight)
        total = weight.astype(np.float32)
        for delta, strength in self.changes:
            total += np.float32(strength) * delta.kernel()
        return total.astype(dtype or weight.dtype)


def merged_when_read(params: Params, loras: Sequence[tuple[Mapping[str, Delta], float | int]]) -> Params:
    """`merge`, each kernel read and summed only where it is sliced or made an array."""
    flat = flatten(params)
    for path, weight in flat.items():
        if changes := tuple((deltas[path], strength) for deltas, strength in loras if path in deltas and strength):
            flat[path] = _Merged(weight, changes)
    return unflatten(flat)
