"""Reading Hugging Face configurations: what we do not implement is refused by name."""

import dataclasses
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
        value = default if value is None else value
        values[field.name] = value = tuple(value) if isinstance(value, list) else value
        if not _is_like(default, value):
            raise ConfigError(f"{source}: {field.name} is {value!r}, only one like {default!r} is supported")
    return values


def _is_like(example: Any, value: Any) -> bool:
    if isinstance(example, tuple):  # a float allows whole numbers too; an index may be 0
        widest = max(example, key=lambda v: isinstance(v, float))
        return isinstance(value, tuple) and all(v == 0 or _is_like(widest, v) for v in value)
    if isinstance(example, bool | str):
        return isinstance(value, type(example))
    kinds = int if isinstance(example, int) else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and value > 0
