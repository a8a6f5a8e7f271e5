"""Recipes: read from a file with overrides from the command line, compared when a run is taken up again."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from gen1_jax.training.config import TrainConfig

_MAY_DIFFER = (
    "mesh",
    "microbatches",
    "remat",
    "log_every",
    "max_skipped",
    "checkpoint",
    "preview",
    "data.workers",
    "data.threads",
    "data.prefetch",
)
"""What changes how a run is done but not what comes of it, except for rounding."""


def read_recipe(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> TrainConfig:
    """The recipe of a configuration file.

    Args:
        path: a Python file whose `get_config()` returns a ConfigDict.
        overrides: as "--config.optimizer.learning_rate=3e-4".

    Raises:
        ValueError: no such file, an error in it, an unknown field, or a value of the wrong type or out of range.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "recipe", flag_values=values)
    try:
        values(["gen1", f"--config={path}", *overrides])
        made = values.config
    except Exception as error:  # whatever the file raises
        raise ValueError(f"{path}: {' '.join(str(error).split()) or type(error).__name__}") from None
    return TrainConfig.from_dict(made.to_dict())


def differences(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """The first thing in which two recipes differ, of those that may not; empty if there is none."""
    one, other = dict(_leaves(saved)), dict(_leaves(ours))
    for name in sorted(one.keys() | other.keys()):
        free = name.startswith(_MAY_DIFFER) or (name.startswith("data.") and name.endswith(".path"))
        if not free and one.get(name) != other.get(name):
            return f"{name} is {one.get(name)} there and {other.get(name)} here"
    return ""


def _leaves(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _leaves(value, f"{name}.{key}" if name else key)
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _leaves(value, f"{name}.{index}")
    else:
        yield name, values
