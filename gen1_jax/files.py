"""Files and folders that appear whole or not at all. Imports nothing of this package, so that every room may use it."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_NAME = 255  # bytes, on the file systems of Linux and macOS


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, alone: bool = False) -> Iterator[Path]:
    """A path beside `path`, of the same suffix, to write a file or folder to; it becomes `path` where the block ends.

    If the block raises, or the process is killed, what was at `path` stays as it is; a file is replaced, a folder is
    only where there was none. Its folder must exist.

    Args:
        path: where it will be; on a disk.
        alone: whether no other process writes it at the same time: what a killed process left is then written over.
    """
    path = Path(path)
    beside = path.with_name(_name_beside(path, "" if alone else f".{os.getpid()}"))
    try:
        yield beside
        beside.replace(path)
    finally:
        _remove(beside)


def _name_beside(path: Path, number: str) -> str:
    """The name with something added, never longer than names may be."""
    name = f".{path.stem}{number}.part{path.suffix}"
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{number}.part{path.suffix}"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces a file of text, UTF-8, at one moment."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def is_lfs_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether the file is the note that Git keeps in place of a large one (git-lfs.com, spec.md), not yet fetched."""
    with open(path, "rb") as file:
        return file.read(len(_POINTER)) == _POINTER


NOT_FETCHED = "is a pointer of Git LFS, not the file itself; fetch it with git lfs pull, or download it again"
"""What to say of one."""


def _remove(path: Path) -> None:
    """Whatever is there, if it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
