"""Captions of files: from a table, from tables that lie among the files, from NAME.txt beside NAME.mp4.

One reader for `gen1 prepare` and for folders that are trained on. People write these files by hand and with whatever
program they have, so names are compared by what they mean (Unicode in either form, either slash, "./"), columns are
known by several names, and text is read in whatever encoding it is in.
"""

import codecs
import csv
import dataclasses
import io
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gen1_jax.errors import UserError
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.files import existing_path

FILE_COLUMNS = ("file", "file_name", "filename", "file_path", "filepath", "path", "video", "image")
CAPTION_COLUMNS = ("caption", "text", "prompt", "description")
"""Names of columns, in capital or small letters; the first that a table has is taken."""

TABLES = ("captions.csv", "captions.tsv", "captions.jsonl", "metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Tables that are looked for among the files, as Hugging Face's imagefolder does for the last three."""

_DELIMITERS = (",", "\t", ";", "|")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]|(?<!^)\xff\xfe|(?<!^)\xfe\xff")  # what no text has
_SHOWN = 3  # rows in a summary


def decode_text(data: bytes) -> str:
    """Text in UTF-8, or by its mark or its zeros in UTF-16 or UTF-32, or else in Windows' Latin-1.

    Raises:
        UserError: it is no text.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    even, odd = data[0:400:2].count(0), data[1:400:2].count(0)  # of UTF-16, Latin letters have one zero each
    if max(even, odd) * 4 > len(data[:400]):
        return data.decode("utf-16-be" if even > odd else "utf-16-le", "replace")
    if _BINARY.search(data):
        raise UserError("it is no text")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def read_table(path: AnyPath, *, captions: bool = True) -> dict[str, str]:
    """The caption of each file that a table names: CSV, also with tabs or semicolons, or lines of JSON.

    Args:
        path: the table; its first line names the columns, `FILE_COLUMNS` and `CAPTION_COLUMNS`.
        captions: whether it has to have a column of captions; they are empty without.

    Returns:
        Captions by `plain_name`, in the order of the rows.

    Raises:
        UserError: no such file, no table, a column is missing, or a file is named twice or not at all.
    """
    rows = table_rows(path, FILE_COLUMNS)
    columns = {name for _, row in rows[:1] for name in row}
    file = next((name for name in FILE_COLUMNS if name in columns), None)
    caption = next((name for name in CAPTION_COLUMNS if name in columns), None)
    for wanted, found in (("file", file), ("caption", caption if captions else "")):
        if found is None:
            raise UserError(f"{shown(path)}: has no column {wanted!r}; its first line must name the columns.")
    table: dict[str, str] = {}
    for line, row in rows[1:]:
        name = plain_name(row.get(file) or "")
        if name in ("", ".") or name in table:
            fault = "no file" if name in ("", ".") else f"{shown(name)} for a second time"
            raise UserError(f"{shown(path)}: line {line} names {fault}.")
        table[name] = row.get(caption) or ""
    return table


def table_rows(path: AnyPath, named: Collection[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table: CSV, also with tabs or semicolons, lines of JSON (.jsonl), or one JSON list (.json).

    Names of columns are in small letters, with underscores.

    Args:
        path: the table.
        named: names of columns, one of which a CSV has; it tells what columns are divided by.

    Returns:
        Line number and columns of each row; the first one maps the columns to themselves.

    Raises:
        UserError: no such file, or no table.
    """
    local = existing_path(path)
    suffix = local.suffix.lower()
    try:
        text = decode_text(local.read_bytes())
        if suffix in (".json", ".jsonl"):
            return list(_json_rows(text, whole=suffix == ".json"))
        return list(_csv_rows(text, named))
    except (UserError, ValueError, csv.Error) as error:
        kind = {".jsonl": "JSON in each line", ".json": "a list in JSON"}.get(suffix, "a CSV file")
        raise UserError(f"{shown(path)}: not {kind} ({error}).") from None
    except OSError as error:
        raise UserError(f"{shown(path)}: cannot be read ({error.strerror}).") from None


def plain_name(name: AnyPath) -> str:
    """A name of a file as it is compared: composed Unicode, slashes, nothing superfluous."""
    text = unicodedata.normalize("NFC", os.fspath(name)).strip().replace("\\", "/")
    return os.path.normpath(text) if text else ""


@dataclasses.dataclass(frozen=True)
class CaptionSummary:
    """What became of captions.

    Args:
        captioned: files that have one.
        without: files that have none.
        unmatched: rows of tables that are about none of the files, by table.
        unusable: tables among the files that were not used, and why.
    """

    captioned: int
    without: int
    unmatched: Mapping[str, tuple[str, ...]]
    unusable: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """For a person: nothing where there is nothing to tell."""
        told = [f"captions: {self.captioned} with, {self.without} without"]
        for table, rows in self.unmatched.items():
            first = ", ".join(shown(row) for row in rows[:_SHOWN])
            rest = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            told.append(f"{len(rows)} row{'s' * (len(rows) > 1)} of {shown(table)} match no file: {first}{rest}")
        return told + [f"not used: {reason}" for reason in self.unusable]


class Captions:
    """The captions of the files of a set.

    That of a table is taken before that of a file beside; of several tables the one nearest to the file.

    Args:
        root: folder of the set.
        files: all of them.
        table: one that was named; rows may be relative to `root` or to the table's own folder. Then no other is read.
        known: captions by names within `root`; those of a table that was named are taken before them.
        search: whether the tables among the files, `TABLES`, are read; else they are only told of.

    Raises:
        UserError: the table that was named cannot be read, or none of its rows is about any of the files.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        table: AnyPath | None = None,
        known: Mapping[str, str] | None = None,
        search: bool = True,
    ) -> None:
        self._texts: dict[str, str] = {}  # by absolute plain name
        self._unmatched: dict[str, tuple[str, ...]] = {}
        self._unusable: list[str] = []
        self._files = {plain_name(os.path.abspath(file)): file for file in files}
        folded = Counter(name.casefold() for name in self._files)
        self._folded = {name.casefold(): name for name in self._files if folded[name.casefold()] == 1}
        self._beside = _Sidecars()
        for found in [] if table or known else _tables(root, files):
            if not search:
                self._unusable.append(f"{shown(found)}; name it with --captions")
                continue
            try:
                self._use(found, read_table(found), found.parent)
            except UserError as error:
                self._unusable.append(str(error))
        self._take({name: text for name, text in (known or {}).items() if text}, root)
        if table and not self._use(table, read_table(table), Path(table).parent, root):
            raise UserError(f"{shown(table)}: none of its files is among the videos; check its column 'file'.")

    def _use(self, table: AnyPath, rows: Mapping[str, str], *folders: Path) -> set[str]:
        """Takes the captions of a table; the names of those that are about a file."""
        used = set().union(*(self._take(rows, folder) for folder in folders))
        if unmatched := tuple(name for name in rows if name not in used):
            self._unmatched[os.fspath(table)] = unmatched
        return used

    def _take(self, rows: Mapping[str, str], folder: Path) -> set[str]:
        places = {name: plain_name(os.path.abspath(folder / name)) for name in rows}
        for name, place in places.items():
            if place not in self._files:  # capitals are forgiven where that is clear
                places[name] = self._folded.get(place.casefold(), place)
        used = {name for name, place in places.items() if place in self._files}
        self._texts |= {places[name]: rows[name] for name in used}
        return used

    def of(self, file: Path) -> str:
        """The caption of a file, in one line; empty if it has none."""
        text = self._texts.get(plain_name(os.path.abspath(file))) or self._beside.text(file)
        return " ".join(text.split())

    def summary(self) -> CaptionSummary:
        """How many files have one, and what was left over."""
        captioned = sum(bool(self._texts.get(name)) or self._beside.has(f) for name, f in self._files.items())
        return CaptionSummary(captioned, len(self._files) - captioned, self._unmatched, tuple(self._unusable))


class _Sidecars:
    """Files of text beside others, found by their names in either form of Unicode."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def has(self, file: Path) -> bool:
        """Whether there is a NAME.txt with something in it: of a million of them none is read."""
        return self._find(file) is not None

    def text(self, file: Path) -> str:
        """What NAME.txt says, if it is there and text."""
        found = self._find(file)
        try:
            return decode_text(found.read_bytes()) if found else ""
        except (OSError, UserError):
            return ""

    def _find(self, file: Path) -> Path | None:
        if file.parent not in self._folders:
            self._folders[file.parent] = dict(self._list(file.parent))
        return self._folders[file.parent].get(plain_name(file.stem))

    def _list(self, folder: Path) -> Iterator[tuple[str, Path]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:  # .txt comes after .TXT, and so counts more
            if entry.name.lower().endswith(".txt") and entry.is_file() and entry.stat().st_size:
                yield plain_name(entry.name[:-4]), folder / entry.name


def _tables(root: Path, files: Sequence[Path]) -> list[Path]:
    """The tables in the folders of the files and in those above them up to the root, outermost first."""
    folders = {root}
    for parent in {file.parent for file in files}:
        while parent not in folders and parent.is_relative_to(root):
            folders.add(parent)
            parent = parent.parent
    ordered = sorted(folders, key=lambda folder: (len(folder.parts), folder))
    return [folder / name for folder in ordered for name in reversed(TABLES) if (folder / name).is_file()]


def _csv_rows(text: str, named: Collection[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and columns of each row; the first one maps the columns to themselves."""
    if text.startswith("sep="):  # Excel's own first line
        text = text.partition("\n")[2]
    delimiter, header = next(
        ((sign, names) for sign in _DELIMITERS if set(names := _header(text, sign)) & set(named)),
        (",", _header(text, ",")),
    )
    yield 1, {name: name for name in header}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    for number, fields in enumerate(reader):
        if number and any(field.strip() for field in fields):
            while len(fields) > len(header) and not fields[-1].strip():
                fields.pop()
            if len(fields) > len(header):  # commas in a caption that comes last and has no quotes
                fields[len(header) - 1 :] = [(delimiter + " ").join(fields[len(header) - 1 :])]
            yield reader.line_num, dict(zip(header, fields, strict=False))


def _header(text: str, delimiter: str) -> list[str]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    return [_column(name) for name in next(reader, [])]


def _column(name: Any) -> str:
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def _json_rows(text: str, *, whole: bool) -> Iterator[tuple[int, dict[str, str]]]:
    if whole:
        listed = json.loads(text)
        rows = list(enumerate(listed if isinstance(listed, list) else [None], 1))
    else:
        rows = [(number, json.loads(line)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not all(isinstance(row, dict) for _, row in rows):
        raise UserError("it is no list of objects" if whole else "a line is no object")
    texts = lambda row: {_column(k): str(v) for k, v in row.items() if isinstance(v, str)}
    rows = [(number, texts(row)) for number, row in rows]
    yield 1, {name: name for _, row in rows for name in row}
    yield from rows
