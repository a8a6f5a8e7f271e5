"""Configuration files: Python whose `get_config()` returns a ConfigDict, read to plain values."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from absl import flags
from ml_collections import config_flags

from gen1_jax.data.config import DataConfig
from gen1_jax.errors import UserError
from gen1_jax.pretrained.tensors import one_line


def read_values(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `get_config()` of a file returns, as nested dicts of plain values.

    Args:
        path: of the file; "FILE:TEXT" passes `get_config` a text.

    Raises:
        UserError: no such file, or an error in it.
    """
    if not os.path.isfile(os.fspath(path).split(".py:")[0].removesuffix(".py") + ".py"):
        raise UserError(f"{path}: no such file; a recipe is a Python file, see configs/")
    values = flags.FlagValues()
    with naming(path):
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=[])
        values(["gen1", f"--config={path}"])
        return values.config.to_dict()


def read_data(path: str | os.PathLike[str]) -> DataConfig:
    """The `data` of a configuration file, whatever else it has.

    Raises:
        UserError: see `read_values`; no `data`, an unknown field in it, or a value of the wrong type or out of range.
    """
    values = read_values(path)
    if "data" not in values:
        raise UserError(f"{path}: its configuration has no `data`")
    with naming(path):
        return DataConfig.from_dict(values["data"])


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Whatever is raised becomes a UserError of one line that begins with `what`: a file may raise anything."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{what}: there is no field {' '.join(str(error.args[0]).split())}") from None
    except Exception as error:
        _, traceback, rest = str(error).partition("Traceback (most recent call last):")  # ml_collections quotes it
        told = _end_of(rest) if traceback else one_line(error)
        raise UserError(f"{what}: {told or type(error).__name__}") from None


def _end_of(traceback: str) -> str:
    """What was raised, and where."""
    lines = [line.strip() for line in traceback.strip().splitlines()]
    places = [line for line in lines if line.startswith("File ")]
    return f"{lines[-1]} ({places[-1]})" if places else lines[-1]
