"""Which videos are prepared, in what order, and the caption of each."""

import csv
import dataclasses
import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from gen1_jax.errors import UserError
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.files import existing_path, local_path

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"),
    *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv", ".y4m"),
)
"""What counts as a video in a folder; a pattern or a CSV file may name any file."""

_WILD = re.compile(r"[*?[]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoEntry:
    """A video to prepare.

    Args:
        path: where it is.
        source: its name in the data set: its path within the folder, beside the pattern, or as the CSV file has it.
        caption: in one line; may be empty.
    """

    path: Path
    source: str
    caption: str


def list_videos(videos: AnyPath, captions: AnyPath | None = None) -> list[VideoEntry]:
    """The videos of a folder and its subfolders, of a pattern ("**" is any folder), or of a CSV file.

    The caption is that of `captions`, else of the CSV file, else the text of a file beside the video that has its
    name and the suffix .txt.

    Args:
        videos: a folder, a pattern, a single video, or a CSV file with a column "file", relative to its own folder,
            and perhaps a column "caption".
        captions: a CSV file with the columns "file", a `source` or relative to the CSV file's folder, and "caption".

    Returns:
        The videos in the order of their names, each once.

    Raises:
        ValueError: nothing found, a URL, a CSV file that cannot be understood or that names a file twice, or captions
            none of which belongs to a video.
    """
    root, listed = _find(videos)
    given = _captions(captions)
    used = set()
    entries = []
    for name, caption in sorted(listed.items()):
        path = root / name
        keys = [os.path.normpath(name)] + ([os.path.abspath(path)] if captions else [])
        key = next((key for key in keys if key in given), None)
        used.add(key)
        text = given[key] if key else caption or _sidecar(path)
        entries.append(VideoEntry(path=path, source=_text(name), caption=" ".join(text.split())))
    if not entries:
        raise UserError(f"{shown(videos)}: no videos found there; give a folder, a pattern in quotes, or a CSV file.")
    if captions and used <= {None}:
        raise UserError(f"{shown(captions)}: none of its files is among the videos; check its column 'file'.")
    return entries


def _find(videos: AnyPath) -> tuple[Path, dict[str, str]]:
    """A folder, and the files in it with the captions known by now."""
    text = os.fspath(videos)
    if _WILD.search(text) and not os.path.lexists(text):
        root = _fixed_part(local_path(text))
        found = (Path(name) for name in glob.glob(text, recursive=True))
        return root, {os.path.relpath(path, root): "" for path in found if path.is_file()}
    path = existing_path(videos)
    if path.is_dir():
        return path, {os.path.relpath(file, path): "" for file in _walk(path)}
    if path.suffix.lower() == ".csv":
        return path.parent, {os.path.normpath(name): text for name, text in _rows(path).items()}
    return path.parent, {path.name: ""}


def _fixed_part(pattern: Path) -> Path:
    """The folders of a pattern before the first one with a wildcard."""
    return next(folder for folder in pattern.parents if not _WILD.search(os.fspath(folder)))


def _walk(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(where, name)


def _captions(path: AnyPath | None) -> dict[str, str]:
    """Captions by name, and by the absolute path that the name means beside the CSV file."""
    if path is None:
        return {}
    rows = _rows(path, wanted=("file", "caption"))
    beside = {os.path.abspath(Path(path).parent / name): text for name, text in rows.items()}
    return beside | {os.path.normpath(name): text for name, text in rows.items()}


def _rows(path: AnyPath, wanted: tuple[str, ...] = ("file",)) -> dict[str, str]:
    """Column "caption", or nothing, by column "file"."""
    rows = {}
    try:
        with existing_path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in wanted if name not in (reader.fieldnames or ())]:
                raise UserError(f"{shown(path)}: has no column {missing[0]!r}; its first line must name the columns.")
            for row in reader:
                name = row["file"]
                if not name or name in rows:
                    fault = f"{shown(name)} for a second time" if name else "no file"
                    raise UserError(f"{shown(path)}: line {reader.line_num} names {fault}.")
                rows[name] = row.get("caption") or ""
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{shown(path)}: not a CSV file in UTF-8 ({error}).") from None
    return rows


def _sidecar(video: Path) -> str:
    try:
        return video.with_suffix(".txt").read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ""


def _text(name: str) -> str:
    """A file's name as text that can be stored: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
