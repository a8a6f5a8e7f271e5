"""Folders on disk and in buckets. What reads or writes through `folder` works in both; see launch/README.md."""

import importlib.util
import os
import threading
from pathlib import Path

from etils import epath

from gen1_jax.errors import UserError

Folder = Path | epath.Path
"""Of pathlib on disk, of epath in a bucket: nearly the same methods; a bucket can neither append nor lock."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the address of something in a bucket."""
    return "://" in os.fspath(path)


def folder(path: str | os.PathLike[str]) -> Folder:
    """A folder or file on disk, or in a bucket of Google Cloud Storage.

    Raises:
        ValueError: an address of another kind, or the package that reads buckets is not installed.
    """
    address = os.fspath(path)
    if not is_remote(address):
        return Path(path)
    if not address.startswith("gs://"):
        scheme = address.split("://")[0]
        raise UserError(f"{address}: only folders and gs:// can be used; mount the {scheme}:// bucket as a folder")
    if not any(map(importlib.util.find_spec, ("gcsfs", "tensorflow"))):
        raise UserError(f"{address}: gs:// needs gcsfs; install it with: pip install 'gen1-jax[gcs]'")
    return epath.Path(path)


def local_folder(path: str | os.PathLike[str]) -> Path:
    """A folder on disk, for what is appended to, locked or renamed.

    Raises:
        ValueError: the address of a bucket.
    """
    if is_remote(path):
        raise UserError(f"{path}: is written to a folder only; copy the folder to the bucket when it is whole")
    return Path(path)


class _BytesRead(threading.local):
    """How many bytes of records this thread has asked for, as they are without the file's compression."""

    count = 0

    def counted(self, record: bytes) -> bytes:
        """The record."""
        self.count += len(record)
        return record


BYTES_READ = _BytesRead()
"""Of array_record files; those of videos and pictures are read by their decoders, and are not counted."""
