"""The networks of a model as edits need them: read when they are first asked for, and let go where memory is short."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, Params, cast_parameter
from gen1_jax.models.quantized import Quantized
from gen1_jax.parallel.sharding import UNET_RULES, Layout
from gen1_jax.pretrained.eight_bit import StoredKernel
from gen1_jax.pretrained.folder import ModelSource

_SHORT = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "half": "float16", "float": "float32"}
_DTYPES = ("bfloat16", "float16", "float32")


def dtype_of(dtype: DTypeLike | str) -> np.dtype:
    """A type to compute in, by any of its names: "bf16", "bfloat16", jnp.bfloat16, torch.bfloat16.

    Raises:
        UserError: it is none of bfloat16, float16 and float32.
    """
    name = str(dtype).removeprefix("torch.") if not isinstance(dtype, type) else dtype
    try:
        found = jnp.dtype(_SHORT.get(name, name) if isinstance(name, str) else name)
    except TypeError:
        found = None
    if found is None or found.name not in _DTYPES:
        raise UserError(f"dtype {dtype!r} is not one of {', '.join(_DTYPES)}; JAX_PLATFORMS chooses the device")
    return found


class LoadedNetworks:
    """Networks by their names.

    Args:
        source: configuration and weights.
        dtype: of the computation; matrices are kept in it.
        layout: how the U-Net lies over several devices; None for one.
        low_memory: whether `let_go` frees weights.

    Attributes:
        dtype, low_memory: as given.
        kept: those that have been asked for, of which some may be without their weights.
    """

    def __init__(self, source: ModelSource, dtype: np.dtype, layout: Layout | None = None, *, low_memory: bool = False):
        self.dtype, self.low_memory = dtype, low_memory
        self.kept: dict[str, Bound] = {}
        self._source, self._layout = source, layout

    def __getitem__(self, name: str) -> Bound:
        if name not in self.kept:
            self.kept[name] = Bound(self._source.config.build(name, self.dtype), self._weights(name))
        network = self.kept[name]
        if network.params is None:
            network.params = self._weights(name)
        return network

    def let_go(self, *names: str) -> None:
        """Frees weights that an edit has done with, where memory is short; what is compiled stays."""
        if self.low_memory:
            for name in set(names) & self.kept.keys():
                self.kept[name].params = None

    def at(self, dtype: np.dtype) -> "LoadedNetworks":
        """The same networks for another type, to be read again."""
        return LoadedNetworks(self._source, dtype, self._layout, low_memory=self.low_memory)

    def _weights(self, name: str) -> Params:
        """Read a tensor at a time, each on its device before the next: the host never holds a network.

        Kernels of eight bits stay so on one device. Divided over several they are widened: there memory is not short.
        """
        stored = self._source.stored(name)
        if name == "unet" and self._layout is not None:
            read = lambda path, x: partial(self._read, path[-1].key, x)
            shardings = self._layout.gathered(stored, UNET_RULES)
            return self._layout.put(jax.tree_util.tree_map_with_path(read, stored), shardings)
        return jax.tree_util.tree_map_with_path(lambda path, x: jax.device_put(self._kept(path[-1].key, x)), stored)

    def _read(self, name: str, stored: Any) -> np.ndarray:
        return cast_parameter(name, np.asarray(stored), self.dtype)

    def _kept(self, name: str, stored: Any) -> np.ndarray | Quantized:
        return stored.in_eight_bits() if isinstance(stored, StoredKernel) else self._read(name, stored)
