"""A training workdir: its files but for the checkpoints, on disk or in a bucket, and the lock on it."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from gen1_jax.data.storage import Folder, folder
from gen1_jax.errors import UserError

CHECKPOINTS = "checkpoints"
"""Folder of a workdir."""


PREVIEWS = "previews"
"""Folder of a workdir: STEP.mp4."""

LOCK = "lock"
"""File of a workdir on disk that the training in it holds locked."""


class WorkFiles:
    """All files of a workdir but checkpoints: log, TensorBoard, previews, recipe; a context manager.

    Where the workdir is in a bucket, which cannot append, they are written to a temporary folder and copied to the
    bucket whenever `upload` is called and at the end. A workdir that is made for a run which then cannot begin is
    removed again.

    Args:
        workdir: of the run.
        continued: names of the files that this process goes on writing, if they are there.
        lock: keep other trainings out until the end, however this process ends; a bucket has no locks. One process of
            a run does it for all.

    Attributes:
        folder: where they are written.
        begun: whether the run has come so far that its files are worth keeping when it fails.

    Raises:
        UserError: another training is at work there.
    """

    def __init__(self, workdir: str | os.PathLike[str], continued: tuple[str, ...] = (), *, lock: bool = False):
        self._workdir = folder(workdir)
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._uploaded: dict[Path, tuple[int, int]] = {}
        self._lock: IO[str] | None = None
        self._made: list[Path] = []
        self.begun = False
        if isinstance(self._workdir, Path):
            absolute = self._workdir.absolute()
            self._made = [path for path in (absolute, *absolute.parents) if not path.exists()]
        self._make(workdir)
        if isinstance(self._workdir, Path):
            self.folder = self._workdir
            self._lock = _lock(self._workdir) if lock else None
            return
        self._temporary = tempfile.TemporaryDirectory(prefix="gen1_")
        self.folder = Path(self._temporary.name)
        for name in continued:
            if (self._workdir / name).exists():
                (self.folder / name).write_bytes((self._workdir / name).read_bytes())

    def _make(self, name: str | os.PathLike[str]) -> None:
        """Raises a UserError for a place where there can be no folder."""
        try:
            self._workdir.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{name} is a file, and a workdir is a folder: choose another name") from None
        except (NotADirectoryError, PermissionError) as error:
            raise UserError(f"{name} cannot be made, {error.filename}: {error.strerror}") from None

    def __enter__(self) -> "WorkFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not self.begun and self._made:
                self._remove()
            else:
                self.upload()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()
            if self._lock is not None:
                self._lock.close()

    def upload(self) -> None:
        """Copies what is new or has changed to the bucket, if there is one."""
        if self._temporary is None:
            return
        for file in sorted(file for file in self.folder.rglob("*") if file.is_file()):
            state = (file.stat().st_mtime_ns, file.stat().st_size)
            if self._uploaded.get(file) != state:
                there = self._workdir / file.relative_to(self.folder)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(file.read_bytes())
                self._uploaded[file] = state

    def _remove(self) -> None:
        """The workdir, and the folders above it that were made for it."""
        workdir, *above = self._made
        shutil.rmtree(workdir, ignore_errors=True)
        for parent in above:
            with contextlib.suppress(OSError):  # something else has come to lie there
                parent.rmdir()


def _lock(workdir: Path) -> IO[str]:
    """The open file whose lock keeps others out; it ends with the process, and workers forked from it do not hold it.

    Raises:
        UserError: another process has it.
    """
    file = (workdir / LOCK).open("a")
    with contextlib.suppress(OSError):  # a file system that has no locks does without
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # the system may say either
            file.close()
            raise UserError(f"{workdir}: another gen1 train is at work there; wait for it, or choose another") from None
    return file


def is_workdir(path: str | os.PathLike[str]) -> bool:
    """Whether `gen1 train` has been at work there."""
    return (folder(path) / CHECKPOINTS).is_dir()


def workdir_of(path: str | os.PathLike[str]) -> Folder | None:
    """The workdir whose checkpoints, or the checkpoint of a step in it, a path names; None if it names neither."""
    path = folder(path)
    checkpoints = path.parent if path.name.isdecimal() else path
    named = checkpoints.name == CHECKPOINTS and path.is_dir() and not (path / "config.json").exists()
    return checkpoints.parent if named else None
