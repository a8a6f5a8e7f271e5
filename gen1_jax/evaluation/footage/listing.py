"""Which file is the edit of which: a table of sources and prompts, and folders whose files are named as the sources.

A clip is a file, or a folder of pictures. Known tables:

source,prompt                 and other common names of these columns; `edit` names the file of the edit, if it differs
LOVEU-TGVE-2023               Video name, Style Change Caption, ...: four edits of a source, NAME/style and so on
IVEBench (a list in JSON)     src_video_name, target_prompt
DAVIS                         folders of pictures, in any depth: JPEGImages/480p/NAME, Annotations/480p/NAME
"""

import dataclasses
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from gen1_jax.data.captions import CAPTION_COLUMNS, FILE_COLUMNS, plain_name, table_rows
from gen1_jax.errors import UserError
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.images import READABLE_SUFFIXES
from gen1_jax.media.listing import MEDIA_SUFFIXES, MOVIE_SUFFIXES, list_media

SOURCE_COLUMNS = ("source", "src_video_name", "src_video", "source_video", "video_name", *FILE_COLUMNS)
PROMPT_COLUMNS = ("target_prompt", "edited_prompt", "editing_prompt", "edit_prompt", "target", *CAPTION_COLUMNS)
EDIT_COLUMNS = ("edit", "output")
_TGVE = re.compile(r"(?P<kind>\w+?)_changes?_caption$")

SOURCE = "source"
"""What the sources themselves are called among editors."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A line of a table.

    Attributes:
        name: of the edit, which no other has.
        source: name of the source.
        prompt: what the edit is to look like.
        edits: names that its file may have.
    """

    name: str
    source: str
    prompt: str
    edits: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """An edit that was asked for, and the files there are of it.

    Attributes:
        name: of the edit.
        prompt: what it is to look like.
        source: the clip.
        mask: what was to change, if it is known.
        edits: by editor.
    """

    name: str
    prompt: str
    source: Path
    mask: Path | None
    edits: Mapping[str, Path]


def read_wanted(table: AnyPath) -> list[Wanted]:
    """What a table asks for.

    Raises:
        UserError: no such file or no table, no column of sources or of prompts, or two edits of one name.
    """
    (_, header), *rows = table_rows(table, SOURCE_COLUMNS) or [(1, {})]
    source = _column(table, header, SOURCE_COLUMNS, "source")
    kinds = {column: match["kind"] for column in header if (match := _TGVE.match(column))}
    prompt = None if kinds else _column(table, header, PROMPT_COLUMNS, "prompt")
    edit = next((name for name in EDIT_COLUMNS if name in header), None)
    wanted: dict[str, Wanted] = {}
    for line, row in rows:
        name = _without_suffix(row.get(source) or "")
        if kinds and not any((row.get(column) or "").strip() for column in kinds):
            continue  # a heading between parts, as TGVE's sheet has
        if name in ("", "."):
            raise UserError(f"{shown(table)}: line {line} names no source.")
        for one in _edits_of(row, name, kinds, prompt, edit):
            if one.name in wanted:
                raise UserError(
                    f"{shown(table)}: line {line} asks for {shown(one.name)} for a second time; name the file of each"
                    " edit in a column 'edit'."
                )
            wanted[one.name] = one
    if not wanted:
        raise UserError(f"{shown(table)}: has no lines below its first; add one for each edit.")
    return list(wanted.values())


def _edits_of(
    row: Mapping[str, str], source: str, kinds: Mapping[str, str], prompt: str | None, edit: str | None
) -> Iterator[Wanted]:
    if prompt is None:
        for column, kind in kinds.items():
            if text := (row.get(column) or "").strip():
                names = (f"{source}/{kind}", f"{source}_{kind}", f"{source}-{kind}")
                yield Wanted(names[0], source, text, names)
        return
    name = _without_suffix((row.get(edit) or "") if edit else "") or source
    yield Wanted(name, source, " ".join((row.get(prompt) or "").split()), (name, _last(name)))


def find_rows(
    wanted: Collection[Wanted],
    sources: AnyPath,
    editors: Mapping[str, AnyPath],
    masks: AnyPath | None = None,
) -> list[Row]:
    """The files of all that is wanted.

    Args:
        wanted: see `read_wanted`.
        sources: folder of the sources.
        editors: folder of each editor's edits.
        masks: folder of masks, named as the sources.

    Raises:
        UserError: no such folder, a source is not there, an editor has none of the edits, or a name is of two files.
    """
    clips, masked = Clips(sources), None if masks is None else Clips(masks)
    folders = {editor: Clips(folder) for editor, folder in editors.items()}
    rows = []
    for one in wanted:
        source = clips.find(one.source, _last(one.source))
        if source is None:
            raise UserError(f"{shown(sources)}: has no clip {shown(one.source)}, which the table names.")
        found = {editor: clips.find(*one.edits) for editor, clips in folders.items()}
        edits = {editor: path for editor, path in found.items() if path is not None}
        mask = None if masked is None else masked.find(one.source, _last(one.source))
        rows.append(Row(one.name, one.prompt, source, mask, edits))
    for editor, folder in editors.items():
        if not any(editor in row.edits for row in rows):
            example = shown(rows[0].name)
            raise UserError(f"{shown(folder)}: has none of the edits; name its files as the sources, {example}.mp4.")
    if masked is not None and not any(row.mask for row in rows):
        raise UserError(f"{shown(masks)}: has no mask of any source; name them as the sources.")
    return rows


def editors_of(folders: Collection[str]) -> dict[str, str]:
    """Editors by name, from "NAME=FOLDER" or from folders, which are called as they are.

    Raises:
        UserError: two of one name, or one that is called as the sources are.
    """
    editors: dict[str, str] = {}
    for text in folders:
        name, equals, folder = text.partition("=")
        if not equals or os.path.isdir(text):
            name, folder = Path(text).resolve().name, text
        if not name or name == SOURCE or name in editors:
            why = f"is the name of {SOURCE} clips" if name == SOURCE else "names two editors" if name else "is no name"
            raise UserError(f"--videos {text}: {name!r} {why}; name them NAME=FOLDER")
        editors[name] = folder
    return editors


class Clips:
    """The clips of a folder, at any depth, by their names without suffix.

    Raises:
        MediaError: no such folder.
    """

    def __init__(self, folder: AnyPath) -> None:
        self._folder = folder
        listing = list_media(folder)
        if not Path(folder).is_dir():
            raise UserError(f"{shown(folder)}: is no folder; name one of clips.")
        self._paths: dict[str, list[Path]] = {}
        pictures: set[Path] = set()
        for file in listing.files:
            self._add(file.relative_to(listing.root), file)
            if file.suffix.lower() not in MOVIE_SUFFIXES and file.parent != listing.root:
                pictures.add(file.parent)
        for parent in sorted(pictures):
            self._add(parent.relative_to(listing.root), parent)

    def _add(self, relative: Path, path: Path) -> None:
        """Under its own name, and under each that tells some of the folders above it."""
        parts = _without_suffix(relative).casefold().split("/")
        for first in range(len(parts)):
            self._paths.setdefault("/".join(parts[first:]), []).append(path)

    def find(self, *names: str) -> Path | None:
        """The clip of one of these names: the first there is.

        Raises:
            UserError: several have it.
        """
        for name in names:
            found = self._paths.get(name.casefold(), [])
            folders = [path for path in found if path.is_dir()]
            found = folders if len(folders) == 1 and len(found) == 2 else found  # NAME/00.png beside NAME.png
            if len(found) > 1:
                raise UserError(f"{shown(self._folder)}: {shown(name)} may be {found[0]} or {found[1]}; rename one.")
            if found:
                return found[0]
        return None


def _column(table: AnyPath, header: Mapping[str, str], names: Collection[str], wanted: str) -> str:
    for name in names:
        if name in header:
            return name
    raise UserError(f"{shown(table)}: has no column {wanted!r}; its first line must name the columns.")


def _last(name: str) -> str:
    """The name without folders, which may be those of another machine."""
    return name.rpartition("/")[2]


def _without_suffix(name: AnyPath) -> str:
    """As `plain_name`, without the suffix of a clip."""
    text = plain_name(name)
    stem, suffix = os.path.splitext(text)
    return stem if suffix.lower() in (*MEDIA_SUFFIXES, *READABLE_SUFFIXES) else text
