"""Paths in and out: only local regular files are read, and an output appears whole or not at all."""

import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gen1_jax.errors import UserError
from gen1_jax.files import NOT_FETCHED, is_lfs_pointer
from gen1_jax.media.errors import AnyPath, Limits, MediaError, blaming, shown

# "http://…", "file:…", "concat:…", "pipe:0", "data:…"; one letter and a slash is a Windows drive.
_PROTOCOL = re.compile(r"(?![a-z]:[\\/])[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def local_path(path: AnyPath) -> Path:
    """The path, refused (MediaError) when FFmpeg might take it for a URL or a protocol string, or if empty."""
    text = os.fspath(path)
    if not text:
        raise MediaError(f"{shown(path)}: the path is empty; name a file.")
    if _PROTOCOL.match(text):
        raise MediaError(
            f"{shown(path)}: only local files are used, not URLs or protocols;"
            " download it first (for a file with a colon in its name, write the full path)."
        )
    return Path(text)


def existing_path(path: AnyPath) -> Path:
    """The path of an existing file or folder: never a device, a pipe or a socket (MediaError)."""
    local = local_path(path)
    with blaming(path, "cannot be looked at"):
        try:
            mode = local.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise MediaError(f"{shown(path)}: no such file; check the name.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise MediaError(f"{shown(path)}: not a regular file (a device, pipe or socket); copy it to a file.")
    return local


def regular_file(path: AnyPath, limits: Limits) -> Path:
    """The path of a readable, non-empty file of at most `limits.max_bytes` (else MediaError)."""
    local = existing_path(path)
    if local.is_dir():
        raise MediaError(f"{shown(path)}: is a folder; name a file.")
    check_bytes(path, local.stat().st_size, limits)
    with blaming(path, "cannot be opened"), local.open("rb") as file:
        if not file.read(1):
            raise MediaError(f"{shown(path)}: the file is empty; export or download it again.")
    if is_lfs_pointer(local):
        raise MediaError(f"{shown(path)}: {NOT_FETCHED}.")
    return local


def check_bytes(path: AnyPath, size: int, limits: Limits) -> None:
    """Raises MediaError when `size` bytes are more than the limit."""
    if size > limits.max_bytes:
        mend = f"cut it{limits.raised_by('--max-bytes')}"
        raise MediaError(f"{shown(path)}: {size} bytes are more than {limits.max_bytes}; {mend}.")


def check_output(path: AnyPath, inputs: Iterable[AnyPath]) -> None:
    """Raises ValueError when `path` is one of `inputs`, by whatever name (links included)."""
    target = local_path(path)
    if any(_same_file(target, source) for source in inputs):
        raise UserError(f"{shown(path)}: the output is also an input; choose another name.")


def _same_file(one: AnyPath, other: AnyPath) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them does not exist (ValueError: a null byte in its name)
        return False


def check_suffix(path: AnyPath, allowed: Collection[str]) -> str:
    """The suffix in lower case, "/" for a folder; ValueError naming those allowed for any other."""
    suffix = "/" if is_folder(path) else Path(path).suffix.lower()
    if suffix not in allowed:
        names = ", ".join("a folder NAME/" if name == "/" else name for name in allowed)
        raise UserError(f"{shown(path)}: cannot tell what to write; end its name in one of: {names}.")
    return suffix


def is_folder(path: AnyPath) -> bool:
    """Whether an output path means a folder of pictures: it ends with a slash or is one already."""
    return os.fspath(path).endswith(("/", os.sep)) or Path(path).is_dir()


def check_writable(path: AnyPath, suffixes: Collection[str] | None = None, overwrite: bool = True) -> None:
    """Raises unless a file (or a folder, "NAME/") can be written at `path`: ask before the expensive work.

    Args:
        path: the output.
        suffixes: the endings allowed, such as `VIDEO_SUFFIXES`; None for any.
        overwrite: whether an existing file may be replaced. A folder must be new or empty in any case.

    Raises:
        ValueError: the suffix is none of `suffixes`.
        MediaError: its folder is missing or cannot be written to, or something that must stay is in the way.
    """
    target = local_path(path)
    if suffixes is not None:
        check_suffix(path, suffixes)
    with blaming(path, "cannot be written"):
        _check_free(path, target, overwrite)
        parent = target.resolve().parent
        if not parent.is_dir():
            raise MediaError(f"{shown(path)}: the folder {shown(parent)} does not exist; create it first.")
        with tempfile.TemporaryFile(dir=parent):
            pass


def _check_free(path: AnyPath, target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if is_folder(path):
        if not target.is_dir() or any(target.iterdir()):
            raise MediaError(f"{shown(path)}: is not an empty folder; choose a new one.")
    elif not target.is_file():
        raise MediaError(f"{shown(path)}: not a regular file; choose another name.")
    elif not overwrite:
        raise MediaError(f"{shown(path)}: exists already; remove it or choose another name.")


class PendingOutput:
    """A file or folder written beside its target: `commit` renames it into place, `discard` removes it.

    Args:
        path: the target; a folder where it ends with a slash.
        overwrite: whether an existing file may be replaced.

    Raises:
        MediaError: its folder is missing or cannot be written to, or something that must stay is in the way.
    """

    def __init__(self, path: AnyPath, overwrite: bool = True) -> None:
        check_writable(path, overwrite=overwrite)
        self.target = Path(path).resolve()  # a link is written through, not replaced
        # Short, for what is added to a name as long as it may be would be too much.
        self.path = self.target.with_name(f".{secrets.token_hex(4)}.part{self.target.suffix}")
        if is_folder(path):
            self.path.mkdir()

    def commit(self) -> None:
        """Puts the output in its place."""
        with blaming(self.target, "cannot be put in its place"):
            self.path.replace(self.target)

    def discard(self) -> None:
        """Removes what has been written; never raises."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def __enter__(self) -> "PendingOutput":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self.discard()  # after a commit there is nothing left of it
