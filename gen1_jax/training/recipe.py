"""Recipes: read from a file with overrides from the command line, compared when a run is taken up again."""

import ast
import dataclasses
import difflib
import itertools
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import placeholder

from gen1_jax.data.config_file import naming, read_values
from gen1_jax.errors import UserError
from gen1_jax.pretrained.tensors import one_line
from gen1_jax.training.config import TrainConfig

_MAY_DIFFER = (
    "mesh",
    "microbatches",
    "remat",
    "log_every",
    "max_skipped",
    "checkpoint",
    "preview",
    "data.on_error",
    "data.in_memory",
    "data.workers",
    "data.threads",
    "data.prefetch",
)
"""What changes how a run is done but not what comes of it, except for rounding."""


def read_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> TrainConfig:
    """The recipe of a configuration file.

    Args:
        path: a Python file whose `get_config()` returns a ConfigDict; "FILE:TEXT" passes it a text.
        overrides: as "--config.optimizer.learning_rate=3e-4", of any field, whether the file has it or not.

    Raises:
        ValueError: no such file, an error in it, an unknown field, or a value of the wrong type or out of range.
    """
    values = read_values(path)
    with naming(path):
        config = TrainConfig.from_dict(values)
    if not overrides:
        return config
    full = _with_types(TrainConfig, config.to_dict())
    for override in map(_with_brackets, overrides):
        full = _overridden(full, override)
    with naming(" ".join(overrides)):
        return TrainConfig.from_dict(_plain(full))


def _overridden(full: ConfigDict, override: str) -> ConfigDict:
    """With the field of one override changed; what is wrong with it is said in the words of the recipe."""
    name, equals, value = override.partition("=")
    expected = _expected(full, name.removeprefix("--config."))
    if not equals:
        raise UserError(f"{name} has no value: give {name}=VALUE")
    values = flags.FlagValues()
    try:
        if expected is tuple and value.startswith(("(", "[")):
            ast.literal_eval(value)  # what is no list would be taken for a text
        config_flags.DEFINE_config_dict("config", full, flag_values=values, sys_argv=["gen1", override])
        values(["gen1", override])
    except Exception as error:
        wanted = _IN_WORDS.get(expected)
        raise UserError(f"{name} is {wanted}, not {value!r}" if wanted else f"{name}: {one_line(error)}") from None
    return values.config


_IN_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list such as (1, 2)",
    ConfigDict: "a group of fields: name one of them",
}


def _expected(full: ConfigDict, name: str) -> type:
    """The type of a field by its whole name, as "stages[0].steps".

    Raises:
        UserError: there is no such field; names those that there are.
    """
    here, place, kind = full, "", dict
    for part in re.findall(r"[^.\[\]]+", name):
        if isinstance(here, ConfigDict):
            if part not in here:
                raise UserError(f"--config.{name}: {place or 'a recipe'} has no field {part!r}; {_nearest(part, here)}")
            kind, here = here.get_type(part), here[part]
            place = f"{place}.{part}" if place else part
        elif isinstance(here, tuple):
            if not (part.isdigit() and int(part) < len(here)):
                raise UserError(f"--config.{name}: {place} has {len(here)} elements, counted from 0, none is {part}")
            here = here[int(part)]
            kind, place = type(here), f"{place}[{part}]"
        else:
            raise UserError(f"--config.{name}: {place} has no fields")
    return kind


def _nearest(part: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(part, names, 3)
    return f"did you mean {' or '.join(close)}?" if close else f"it has {', '.join(names)}"


def _with_brackets(override: str) -> str:
    """ "--config.stages.0.steps=2" as "--config.stages[0].steps=2"."""
    name, equals, value = override.partition("=")
    return re.sub(r"\.(\d+)(?=[.\[]|$)", r"[\1]", name) + equals + value


def _with_types(hint: Any, value: Any) -> Any:
    """Where there is None, what may stand there instead, so that it can be given on the command line."""
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return ConfigDict({name: _with_types(hints[name], field) for name, field in value.items()})
    if value is None:
        other = next(t for t in typing.get_args(hint) if t is not type(None))
        if typing.get_origin(other) is typing.Literal:
            other = type(typing.get_args(other)[0])
        return placeholder(typing.get_origin(other) or other)
    if typing.get_origin(hint) is tuple:
        return tuple(_with_types(typing.get_args(hint)[0], element) for element in value)
    return value


def _plain(value: Any) -> Any:
    """The inverse: no ConfigDict is left, nor a place for what was not given. ConfigDict's own stops at tuples."""
    if isinstance(value, ConfigDict):
        return {name: _plain(field) for name, field in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def differences(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The first thing in which two recipes differ, of those that may not; empty if there is none."""
    return next((f"{name} is {one} there and {other} here" for name, (one, other) in changes(saved, ours).items()), "")


def refused(changed: Mapping[str, tuple[Any, Any]], allowed: Sequence[str]) -> str:
    """What of the changes was not allowed, in a line that says how to; empty if there is none.

    Args:
        changed: see `changes`.
        allowed: names of fields, or beginnings of them ("optimizer").
    """
    names = [name for name in changed if not _within(name, allowed)]
    if not names:
        return ""
    (one, other), others = changed[names[0]], f", and {len(names) - 1} more differ" if len(names) > 1 else ""
    return f"{names[0]} is {one} there and {other} here{others}; to go on with it: --allow-change {' '.join(names)}"


def changes(saved: Mapping[str, Any], ours: Mapping[str, Any], step: int = 0) -> dict[str, tuple[Any, Any]]:
    """In what two recipes differ, of that which may not: values of the saved one and of ours, by name of the field.

    Args:
        saved: the recipe that a run was begun with.
        ours: the one that it is to go on with.
        step: that the run has come to. Stages that are not finished may become longer, and others may follow, as long
            as the learning rate does not depend on the end of the run.
    """
    saved = TrainConfig.from_dict(saved).to_dict()  # with fields that are newer than the record
    one, other = dict(_leaves(saved)), dict(_leaves(ours))
    fixed = ("microbatches",) if ours["component"] == "clip" else ()  # they are each other's negatives
    ends = list(itertools.accumulate(stage["steps"] for stage in saved["stages"]))
    constant = saved["optimizer"]["schedule"] == "constant" and step > 0
    longer = {
        f"stages.{i}.steps"
        for i, stage in enumerate(saved["stages"])
        if constant and step <= ends[i] and i < len(ours["stages"]) and ours["stages"][i]["steps"] >= stage["steps"]
    }
    found = {}
    for name in sorted(one.keys() | other.keys()):
        is_path = name.startswith("data.") and name.endswith(".path")
        free = is_path or (_within(name, _MAY_DIFFER) and not _within(name, fixed))
        is_new_stage = constant and name.startswith("stages.") and int(name.split(".")[1]) >= len(ends)
        if not (free or name in longer or is_new_stage) and one.get(name) != other.get(name):
            found[name] = (one.get(name), other.get(name))
    return found


def _within(name: str, fields: Sequence[str]) -> bool:
    """Whether a field is one of these, or a part of one."""
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def _leaves(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{name}.{key}" if name else key)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _leaves(value, f"{name}.{index}")
    else:
        yield name, values
