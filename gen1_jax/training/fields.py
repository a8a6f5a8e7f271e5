"""Every field of a recipe: its name on the command line, its value, its default, and what it means."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from gen1_jax.training.config import TrainConfig

REQUIRED = "required"
"""Stands for the default of a field that has none."""


class Field(NamedTuple):
    """A field of a recipe.

    Attributes:
        name: as "optimizer.learning_rate"; "stages[0].steps" in a recipe, "stages[i].steps" without one.
        value: in the recipe, or the default.
        default: REQUIRED if there is none.
        meaning: from the docstring of its class.
    """

    name: str
    value: Any
    default: Any
    meaning: str


def recipe_fields(config: TrainConfig | None = None) -> Iterator[Field]:
    """The fields of a recipe, those of its parts included; with None, of any recipe."""
    return _fields(TrainConfig, config, None, "")


def _fields(cls: type, value: Any, default: Any, prefix: str) -> Iterator[Field]:
    """Of a dataclass; `value` is one of it, or None if there is no recipe."""
    hints, meant = typing.get_type_hints(cls), meanings(cls)
    for field in dataclasses.fields(cls):
        name, usual = prefix + field.name, getattr(default, field.name, field.default)
        usual = REQUIRED if usual is dataclasses.MISSING else usual
        mine = usual if value is None else getattr(value, field.name)
        part, repeated = _part(hints[field.name])
        if part is None or (mine is None and value is not None):
            yield Field(name, mine, usual, meant[field.name])
        elif not repeated:
            yield from _fields(part, None if value is None else mine, None if usual is REQUIRED else usual, f"{name}.")
        elif value is None:
            yield from _fields(part, None, None, f"{name}[i].")
        else:
            for index, element in enumerate(mine):
                yield from _fields(part, element, None, f"{name}[{index}].")


def _part(hint: Any) -> tuple[type | None, bool]:
    """The dataclass that a type names, perhaps beside None, and whether there may be several of it."""
    if dataclasses.is_dataclass(hint):
        return hint, False
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and dataclasses.is_dataclass(inner[0]):
        return inner[0], True
    if origin in (typing.Union, types.UnionType):
        return next((_part(kind) for kind in inner if _part(kind)[0]), (None, False))
    return None, False


def meanings(cls: type) -> dict[str, str]:
    """What a class says of its attributes, by name, each in one line."""
    _, _, section = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    section = section.split("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
