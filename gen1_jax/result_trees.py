"""Trees of results as JSON: how arrays are put together into dicts, lists and (named) tuples. Nothing of it is run."""

import importlib
from collections.abc import Iterator
from typing import Any

import jax

_PACKAGE = __name__.partition(".")[0]


def generator_of(x: Any) -> str | None:
    """The generator whose keys these are, by its name."""
    return str(jax.random.key_impl(x)) if isinstance(x, jax.Array) and _is_of_keys(x.dtype) else None


def _is_of_keys(dtype: Any) -> bool:
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def as_numbers(x: jax.Array) -> jax.Array:
    """Itself, or the numbers that keys are made of."""
    return jax.random.key_data(x) if generator_of(x) is not None else x


OTHER = object()
"""The description of what has none."""

_SEQUENCES = {"list": list, "tuple": tuple}


def described(results: Any) -> Any:
    """How a tree of results is put together, as JSON; `OTHER` of what is not: its nodes know more than their names."""
    if isinstance(results, jax.Array):
        return {"array": generator_of(results)}
    if results is None:
        return None
    names, parts = [], results
    if type(results) is dict and all(isinstance(key, str) for key in results):
        names, parts = sorted(results), [results[key] for key in sorted(results)]
    elif not (isinstance(results, tuple | list) and (type(results) in (tuple, list) or _is_ours(type(results)))):
        return OTHER
    parts = [described(part) for part in parts]
    kind = type(results)
    return OTHER if OTHER in parts else {"node": f"{kind.__module__}:{kind.__qualname__}", "keys": names, "of": parts}


def put_together(description: Any, arrays: Iterator[jax.Array]) -> Any:
    """The inverse of `described`, of the arrays in order.

    Raises:
        TypeError: it names what is no tuple of this package.
    """
    if description is None:
        return None
    if "array" in description:
        x, keys = next(arrays), description["array"]
        return x if keys is None else jax.random.wrap_key_data(x, impl=keys)
    parts = [put_together(part, arrays) for part in description["of"]]
    module, name = description["node"].split(":")
    if module == "builtins":
        return dict(zip(description["keys"], parts, strict=True)) if name == "dict" else _SEQUENCES[name](parts)
    kind = getattr(importlib.import_module(module), name) if module.startswith(f"{_PACKAGE}.") else None
    if not _is_ours(kind):
        raise TypeError(f"{description['node']} is no tuple of this package")
    return kind(*parts)


def _is_ours(kind: Any) -> bool:
    """Whether it is a named tuple of this package."""
    is_named = isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields")
    return is_named and kind.__module__.startswith(f"{_PACKAGE}.")
