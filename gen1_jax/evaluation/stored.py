"""What an evaluation keeps in its folder, so that it can go on: files of JSON, each written whole."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.files import write_text
from gen1_jax.measures import Interval, bootstrap


def read_json(path: Path, *names: str) -> dict[str, Any]:
    """What `write_json` wrote, with at least these names in it.

    Raises:
        UserError: it is something else.
    """
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise unreadable(path, f"it is not JSON, {error}") from None
    if missing := [name for name in names if not isinstance(values, dict) or name not in values]:
        raise unreadable(path, f"it has no {missing[0]}")
    return values


def unreadable(path: Path, why: str) -> UserError:
    """The error of a file that is not of an evaluation."""
    return UserError(f"{path} is not of a benchmark that can go on: {why}; delete it, or choose another --out")


def write_json(path: Path, values: Any) -> None:
    """Replaces a file at one moment."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def file_name(name: str) -> str:
    """A name of anything as one of a file; two names may become one."""
    return re.sub(r"[^a-zA-Z0-9.+]+", "_", name)


def own_file_name(name: str) -> str:
    """The same, of any length, with a hash, so that no two names become one."""
    return f"{file_name(name)[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def json_number(value: float) -> float | None:
    """A number to 6 decimals; JSON has no NaN."""
    return round(value, 6) if np.isfinite(value) else None


def interval_of(values: Iterable[float | None]) -> Interval:
    """The mean with its interval of what `json_number` made."""
    return bootstrap(np.array([np.nan if value is None else value for value in values], np.float64))


def with_mean(values: list[float | None]) -> dict[str, Any]:
    """Scores by clip, beside their mean and its interval."""
    interval = interval_of(values)
    return {
        "mean": json_number(interval.mean),
        "interval": [json_number(interval.low), json_number(interval.high)],
        "clips": values,
    }
