"""Networks as data: a module is a description, its parameters are a plain nested dict of arrays.

module = SpaceTimeUNet(config)                 # shapes only, instant at any size
params = initialise(module, seed=0)            # or read from a file
unet = Bound(module, params)                   # unet(...), jitted; parameters are an argument, never baked in
"""

import dataclasses
import math
import re
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from gen1_jax.kept import KeptProgram

Params = dict[str, Any]
"""Nested dict of arrays with string keys; the flat form joins the keys by dots."""


def flatten(params: Mapping[str | int, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"0": {"kernel": x}}} -> {"a.0.kernel": x}, in sorted order of each level."""
    flat = {}
    for key in params:
        value, path = params[key], f"{prefix}{key}"
        flat.update(flatten(value, path + ".") if isinstance(value, Mapping) else {path: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> Params:
    """The inverse of `flatten`."""
    params: Params = {}
    for path, value in flat.items():
        *parents, leaf = path.split(".")
        node = params
        for key in parents:
            node = node.setdefault(key, {})
        node[leaf] = value
    return params


def abstract_parameters(module: nnx.Module) -> Params:
    """The parameters' shapes and dtypes (`jax.ShapeDtypeStruct`), nothing allocated."""
    return unflatten(_shapes(module))


@lru_cache(maxsize=64)
def _shapes(module: nnx.Module) -> dict[str, Any]:
    """`abstract_parameters` in the flat form: a model asks for them when it is opened, read and run."""
    return flatten(nnx.to_pure_dict(nnx.state(module, nnx.Param)))


_graph = lru_cache(maxsize=64)(nnx.graphdef)


@lru_cache(maxsize=64)
def _programs(module: nnx.Module) -> dict[tuple, KeptProgram]:
    """What runs of a module, whoever has parameters for it: a second pipeline of a family traces nothing again."""
    return {}


@lru_cache(maxsize=64)
def _identity(module: nnx.Module) -> str | None:
    """See `Bound.identity`."""
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(_graph(module)))
    return None if "<lambda>" in text else text


def _apply(module: nnx.Module, method: str, params: "Params", *args, **kwargs) -> Any:
    return getattr(nnx.merge(_graph(module), _with_indices(params)), method)(*args, **kwargs)


def parameter_count(params: Params) -> int:
    """Number of scalars in `params`, abstract or not."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True)
class InitialValue:
    """A fresh float32 parameter, drawn where it is sliced and nowhere else: no host needs the whole of a large one.

    NumPy draws it, in blocks of rows that each have a stream of their own: a jit over the draws of a full-size model
    takes minutes to compile, one a shape is no better.

    Attributes:
        shape: of the parameter.
        init: draws some rows of it.
        stream: tells its random numbers from those of others.
    """

    shape: tuple[int, ...]
    init: Callable[..., np.ndarray]
    stream: tuple[int, ...]

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, columns = np.arange(math.prod(self.shape[:-1])).reshape(self.shape[:-1]), self.shape[-1:]
        index = index if isinstance(index, tuple) else (index,)
        chosen = rows[index[: rows.ndim]]
        size = max(1, _BLOCK // math.prod(columns))
        values = np.empty((chosen.size, *columns), np.float32)
        for block in np.unique(chosen // size).tolist():
            inside = chosen.ravel() // size == block
            first = block * size
            rng = np.random.default_rng([*self.stream, block])
            drawn = self.init(rng, (min(size, rows.size - first), *columns), rows.size)
            values[inside] = drawn[chosen.ravel()[inside] - first]
        values = values.reshape((*chosen.shape, *columns))
        return np.asarray(values[(slice(None),) * chosen.ndim + index[rows.ndim :]])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[(slice(None),) * len(self.shape)].astype(dtype or np.float32, copy=False)


_BLOCK = 2**20  # elements


def initial_values(module: nnx.Module, seed: int) -> Params:
    """Fresh parameters, not drawn yet: an `InitialValue` each, a function of the seed and its own path alone.

    Args:
        module: the network.
        seed: a non-negative number.
    """
    flat = {}
    for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        name = ".".join(map(str, path))
        stream = (seed, zlib.crc32(name.encode()))
        flat[name] = InitialValue(variable.get_value().shape, variable.get_metadata()["init"], stream)
    return unflatten(flat)


def initialise(module: nnx.Module, seed: int, only: Callable[[str], bool] = lambda path: True) -> Params:
    """`initial_values` drawn on the host.

    Args:
        module: the network.
        seed: a non-negative number.
        only: which paths to draw; the others stay abstract.
    """
    abstract, values = flatten(abstract_parameters(module)), flatten(initial_values(module, seed))
    return unflatten({name: np.asarray(x) if only(name) else abstract[name] for name, x in values.items()})


STATISTICS = ("clip_mean", "clip_std")
"""Parameters that are numbers measured once, by which a result is scaled: never rounded, whatever their shape."""


def cast_parameter(name: str, x: Any, dtype: DTypeLike) -> Any:
    """A matrix, kernel or table in `dtype`; a vector (norm scale, bias) and `STATISTICS` as it is.

    Args:
        name: of the parameter, the last of its path.
        x: an array.
        dtype: of the computation.
    """
    return x if x.ndim < 2 or name in STATISTICS else x.astype(dtype, copy=False)


def cast_kernels(params: Params, dtype: DTypeLike) -> Params:
    """`cast_parameter` of all parameters of a network."""
    return jax.tree_util.tree_map_with_path(lambda path, x: cast_parameter(path[-1].key, x, dtype), params)


def _with_indices(params: Mapping[str, Any]) -> dict[str | int, Any]:
    """Whole numbers for the keys of lists: nnx matches in sorted order, and as text 10 comes before 2."""
    return {
        int(key) if key.isdigit() else key: _with_indices(value) if isinstance(value, Mapping) else value
        for key, value in params.items()
    }


class Joint(nnx.Module):
    """Networks that learn together: the parameters of each under its name.

    Args:
        networks: by name.
    """

    def __init__(self, **networks: nnx.Module):
        for name, network in networks.items():
            setattr(self, name, network)


class Bound:
    """A module together with its parameters; calls and methods run as one jitted function each.

    Arrays, floats and None are traced; other keyword arguments (step counts, sizes) are static: they choose the
    computation.

    Attributes:
        module: the description, an `nnx.Module` without arrays.
        params: nested dict of arrays, some of which may be `Quantized`; None while they are let go.
        config: the module's configuration.
    """

    def __init__(self, module: nnx.Module, params: Params | None):
        self.module, self.params, self.config = module, params, module.config
        self._programs = _programs(module)

    @property
    def identity(self) -> str | None:
        """What tells its programs from those of other modules; None of one that holds functions without a name."""
        return _identity(self.module)

    def apply(self, params: Params, *args, method: str = "__call__", **kwargs):
        """Run `method` on explicit parameters, for use inside a `jax.jit` of the caller's."""
        return _apply(self.module, method, params, *args, **kwargs)

    def _run(self, method: str, *args, **kwargs):
        static = {k: v for k, v in kwargs.items() if isinstance(v, bool | int | str)}
        traced = {k: v for k, v in kwargs.items() if k not in static}
        name = (method, *sorted(static.items()))
        if name not in self._programs:
            identity = partial(_identity, self.module)  # of the module alone, lest the program hold these parameters
            function = partial(_apply, self.module, method, **static)
            self._programs[name] = KeptProgram(function, lambda: identity() and (identity(), name))
        return self._programs[name](self.params, *args, **traced)

    def __call__(self, *args, **kwargs):
        return self._run("__call__", *args, **kwargs)

    def __getstate__(self) -> tuple[nnx.Module, Params | None]:
        return self.module, self.params  # the rest is made of these; compiled functions cannot be stored

    def __setstate__(self, state: tuple[nnx.Module, Params | None]) -> None:
        self.__init__(*state)

    def __getattr__(self, method: str):
        if "module" not in vars(self):  # a copy that is not filled yet
            raise AttributeError(method)
        if method.startswith("_") or not callable(getattr(type(self.module), method, None)):
            raise AttributeError(f"{type(self.module).__name__} has no method {method!r}")
        return partial(self._run, method)
