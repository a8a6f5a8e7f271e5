"""The networks of a model as edits need them: read when they are first asked for, and let go where memory is short."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, Params, cast_kernels
from gen1_jax.parallel.sharding import UNET_RULES, Layout
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
        params = jax.device_put(cast_kernels(self._source.parameters(name), self.dtype))
        if name == "unet" and self._layout is not None:
            params = self._layout.put(params, self._layout.gathered(params, UNET_RULES))
        return params
