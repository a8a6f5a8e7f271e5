"""Which files of a folder are media: one answer for training, `gen1 prepare` and whoever else lists one.

folder ──walk, links last──► name ── hidden, junk, suffix? ──► real path ── seen before? ──► files
                                       └──────────────────────────────────────┴──────────► left out, and why
"""

import dataclasses
import glob
import os
import re
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path

from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.files import existing_path, local_path
from gen1_jax.media.images import READABLE_SUFFIXES

MOVIE_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v"),
    *(".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm"),
    *(".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
"""What counts as a video in a folder."""

MEDIA_SUFFIXES = (*MOVIE_SUFFIXES, *READABLE_SUFFIXES)
"""What counts as a video or a picture in a folder."""

INDEX_FOLDER = ".gen1_index"
"""Where indices of frames are kept; of our own making, so that nobody has to be told of it."""

HIDDEN, JUNK, OTHER = "hidden", "of the system", "neither video nor picture"
TWICE, DANGLING, UNREADABLE = "there already by another name", "links to nothing", "folders that cannot be opened"
SPECIAL = "devices, pipes or sockets"
"""Why something is left out."""

_JUNK = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "thumbs"}
_JUNK |= {"thumbs.db", "ehthumbs.db", "desktop.ini", "__pycache__"}
_BESIDE = (".txt", ".csv", ".tsv", ".jsonl")  # captions
_WILD = re.compile(r"[*?[]")
_SHOWN = 3  # names in a summary


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Args:
        root: the folder, that of a file, or the part of a pattern before its first wildcard.
        files: regular files or links to such, sorted, each real file once.
        left_out: paths within `root` of files and whole folders, by reason.
    """

    root: Path
    files: tuple[Path, ...]
    left_out: Mapping[str, tuple[str, ...]]


def list_media(where: AnyPath, suffixes: Collection[str] = MEDIA_SUFFIXES) -> Listing:
    """The media of a folder and its subfolders, those that match a pattern ("**" is any folder), or one file.

    Links are followed, each folder and each file is taken once, under its own name rather than a link's. A file is
    taken for what its suffix says; a file that is named, and a pattern that ends in a suffix, may be of any.

    Raises:
        MediaError: no such file, or a URL.
    """
    text = os.fspath(where)
    if has_wildcard(text):
        pattern = local_path(text)
        ending = pattern.suffix
        walk = _Walk(_fixed_part(pattern), None if ending and not _WILD.search(ending) else suffixes)
        walk.take(sorted(map(Path, glob.glob(text, recursive=True))))
        return walk.listing()
    path = existing_path(where)
    if not path.is_dir():
        return Listing(path.parent, (path,), {})
    walk = _Walk(path, suffixes)
    walk.run()
    return walk.listing()


def has_wildcard(where: AnyPath) -> bool:
    """Whether a path is a pattern rather than the name of something that is there."""
    return bool(_WILD.search(os.fspath(where))) and not os.path.lexists(where)


def describe(left_out: Mapping[str, Collection[str]]) -> list[str]:
    """A line for each reason: how many, and the first of them."""
    lines = []
    for reason, names in left_out.items():
        first = ", ".join(shown(name) for name in list(names)[:_SHOWN])
        rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        lines.append(f"{reason}: {len(names)} ({first}{rest})")
    return lines


class _Walk:
    """One walk; what is real comes before what is a link to it.

    Args:
        root: names are told relative to it.
        suffixes: of files that are taken; None for all.
    """

    def __init__(self, root: Path, suffixes: Collection[str] | None) -> None:
        self._root, self._suffixes = root, suffixes
        self._files: dict[str, Path] = {}  # by real path
        self._folders = {os.path.realpath(root)}
        self._links: deque[Path] = deque()
        self._left_out: dict[str, list[str]] = {}

    def run(self) -> None:
        """Walks through the folder."""
        self._tree(self._root)
        while self._links:
            self._follow(self._links.popleft())

    def take(self, paths: Collection[Path]) -> None:
        """Takes what is a file among these paths, whose folders were named."""
        for path in sorted(paths, key=lambda path: path.is_symlink()):
            between = path.relative_to(self._root).parts[:-1] if path.is_relative_to(self._root) else ()
            if not path.is_dir() and all(self._visible(name, path) for name in between):
                self._follow(path)

    def listing(self) -> Listing:
        """What was found."""
        left_out = {reason: tuple(sorted(names)) for reason, names in sorted(self._left_out.items())}
        return Listing(self._root, tuple(sorted(self._files.values())), left_out)

    def _tree(self, top: Path) -> None:
        """A folder and all below that is no link."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                self._leave(folder, UNREADABLE)
                continue
            real = os.path.realpath(folder)
            for entry in entries:
                path = folder / entry.name
                if entry.is_symlink():
                    if self._visible(entry.name, path):
                        self._links.append(path)
                elif entry.is_dir():
                    if self._visible(entry.name, path) and self._is_new(path, os.path.join(real, entry.name)):
                        waiting.append(path)
                elif self._suits(entry.name, path):
                    self._file(path, os.path.join(real, entry.name), regular=entry.is_file())

    def _follow(self, path: Path) -> None:
        real = os.path.realpath(path)
        if not os.path.exists(real):  # a loop of links is nothing, too
            self._leave(path, DANGLING)
        elif not os.path.isdir(real):
            if self._suits(path.name, path):
                self._file(path, real, regular=os.path.isfile(real))
        elif self._is_new(path, real):
            self._tree(path)

    def _is_new(self, folder: Path, real: str) -> bool:
        if real in self._folders:
            self._leave(folder, TWICE)
            return False
        self._folders.add(real)
        return True

    def _file(self, path: Path, real: str, *, regular: bool) -> None:
        if not regular:
            self._leave(path, SPECIAL)
        elif real in self._files:
            self._leave(path, TWICE)
        else:
            self._files[real] = path

    def _suits(self, name: str, path: Path) -> bool:
        """Whether a file is taken, by its name."""
        if not self._visible(name, path):
            return False
        if self._suffixes is None or path.suffix.lower() in self._suffixes:
            return True
        if path.suffix.lower() not in _BESIDE:
            self._leave(path, OTHER)
        return False

    def _visible(self, name: str, path: Path) -> bool:
        if name == INDEX_FOLDER:
            return False
        if name.startswith("."):
            self._leave(path, HIDDEN)
            return False
        if name.lower() in _JUNK:
            self._leave(path, JUNK)
            return False
        return True

    def _leave(self, path: Path, reason: str) -> None:
        names = self._left_out.setdefault(reason, [])
        name = os.path.relpath(path, self._root)
        if name not in names[-1:]:
            names.append(name)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before the first one with a wildcard."""
    return next(folder for folder in pattern.parents if not _WILD.search(os.fspath(folder)))
