"""Reading Hugging Face configurations: what we do not implement is refused by name."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

from gen1_jax.errors import UserError


class ConfigError(UserError):
    """A Hugging Face configuration describes a network that we do not have."""


def require(config: Mapping, source: str, **expected) -> None:
    """Check that keys of `config`, where present, have the one value that we implement.

    Raises:
        ConfigError: naming the key, its value and what is supported.
    """
    for key, value in expected.items():
        found = config.get(key, value)
        found = tuple(found) if isinstance(found, list) else found
        if found != value:
            raise ConfigError(f"{source}: {key} is {found!r}, only {value!r} is supported")


def typed_fields(defaults: Any, config: Mapping, source: str) -> dict[str, Any]:
    """The value in `config` of each field of a dataclass, lists as tuples; where absent or null, that of `defaults`.

    Raises:
        ConfigError: a value's type is not that of the default, or a number is not positive, by key.
    """
    values = {}
    for field in dataclasses.fields(defaults):
        default, value = getattr(defaults, field.name), config.get(field.name)
        value = tuple(value) if isinstance(value, list) else value
        values[field.name] = default if value is None else value
        if value is not None and not _is_like(default, value):
            raise ConfigError(f"{source}: {field.name} is {value!r}, only one like {default!r} is supported")
    return values


def with_library_defaults(example: Any, class_name: str) -> Any:
    """A dataclass of ours with the values that transformers assumes of keys that a file leaves out.

    Args:
        example: of the dataclass; fields that the library does not have stay.
        class_name: of its configuration.
    """
    theirs = library_defaults(class_name)
    known = {f.name: theirs[f.name] for f in dataclasses.fields(example) if theirs.get(f.name) is not None}
    return dataclasses.replace(example, **{k: tuple(v) if isinstance(v, list) else v for k, v in known.items()})


@functools.cache
def library_defaults(class_name: str) -> dict[str, Any]:
    """Every key of a configuration of transformers with its default. The library needs no torch for it."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # without torch it would say so on stderr
    import transformers

    return getattr(transformers, class_name)().to_dict()


def _is_like(example: Any, value: Any) -> bool:
    if isinstance(example, tuple):  # a float allows whole numbers too; an index may be 0
        widest = max(example, key=lambda v: isinstance(v, float))
        return isinstance(value, tuple) and all(v == 0 or _is_like(widest, v) for v in value)
    if isinstance(example, bool | str):
        return isinstance(value, type(example))
    kinds = int if isinstance(example, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0
