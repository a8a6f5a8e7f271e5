"""Which versions of packages run, for records."""

from collections.abc import Iterable
from functools import cache
from importlib import metadata

NOT_INSTALLED = "not installed"
"""Of a package that runs from a source tree."""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The installed version of each package."""
    return {name: _version(name) for name in packages}


@cache  # it is read from a file, and every checkpoint says it
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED
