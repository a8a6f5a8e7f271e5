"""HED's weights in the names of ControlNetHED, the network behind the soft edges of ControlNet 1.1.

The public file, ControlNetHED.pth, is a pickle: it has to be converted once. It comes without a configuration, which
the shapes of its tensors tell.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen1_jax.models.hed import HEDConfig
from gen1_jax.pretrained.layout import Layout, LayoutError
from gen1_jax.pretrained.tensors import StoredTensor, checkpoint_files, stored_tensors

_BLOCKS = len(HEDConfig().block_out_channels)

HED = Layout(renames=tuple((rf"^blocks\.{i}\.", f"block{i + 1}.") for i in range(_BLOCKS)))


def hed_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of ControlNetHED in a safetensors file, or a folder that has one.

    Raises:
        FolderError: see `checkpoint_files`.
    """
    return stored_tensors(checkpoint_files(path))


def hed_config(tensors: Mapping[str, Any], source: str) -> HEDConfig:
    """The `HEDConfig` of tensors; any that do not belong are for the layout to refuse.

    Raises:
        LayoutError: they are not ControlNetHED's.
    """
    widths, layers = [], []
    for block in range(1, _BLOCKS + 1):
        first = tensors.get(f"block{block}.convs.0.weight")
        if first is None:
            raise LayoutError(f"{source} is not ControlNetHED: it has no block{block}.convs.0.weight")
        widths.append(first.shape[0])
        layers.append(sum(f"block{block}.convs.{i}.weight" in tensors for i in range(len(tensors))))
    return HEDConfig(block_out_channels=tuple(widths), layers_per_block=tuple(layers))
