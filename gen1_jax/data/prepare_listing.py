"""Which videos are prepared, in what order, and the caption of each."""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from gen1_jax.data.captions import Captions, CaptionSummary, plain_name, read_table
from gen1_jax.errors import UserError
from gen1_jax.media.errors import AnyPath, shown
from gen1_jax.media.files import existing_path
from gen1_jax.media.listing import MOVIE_SUFFIXES, describe, list_media


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


class VideoList(list[VideoEntry]):
    """Videos in the order of their names, each once.

    Attributes:
        left_out: what else there was, by reason, see `list_media`.
        captions: what became of captions.
    """

    def __init__(
        self, entries: Iterable[VideoEntry], left_out: Mapping[str, tuple[str, ...]], captions: CaptionSummary
    ) -> None:
        super().__init__(entries)
        self.left_out, self.captions = left_out, captions

    def notes(self) -> list[str]:
        """What of this there is to tell, a line each."""
        return [*(f"files left out, {line}" for line in describe(self.left_out)), *self.captions.lines()]


def list_videos(videos: AnyPath, captions: AnyPath | None = None) -> VideoList:
    """The videos of a folder and its subfolders, of a pattern ("**" is any folder), or of a CSV file.

    The caption is that of `captions`, else of the CSV file, else the text of a file beside the video that has its name
    and the suffix .txt, see `Captions`.

    Args:
        videos: a folder, a pattern, a single video, or a CSV file with a column "file", relative to its own folder,
            and perhaps a column "caption".
        captions: a CSV file with the columns "file", a `source` or relative to the CSV file's folder, and "caption".

    Raises:
        UserError: nothing found, a URL, a CSV file that cannot be understood or that names a file twice, or captions
            none of which belongs to a video.
    """
    root, names, own, left_out = _find(videos)
    if not names:
        raise UserError(f"{shown(videos)}: no videos found there; give a folder, a pattern in quotes, or a CSV file.")
    told = Captions(root, [root / name for name in names], captions, known=own, search=False)
    entries = [VideoEntry(path=root / name, source=_text(name), caption=told.of(root / name)) for name in sorted(names)]
    return VideoList(entries, left_out, told.summary())


def _find(videos: AnyPath) -> tuple[Path, list[str], dict[str, str], Mapping[str, tuple[str, ...]]]:
    """A folder, the files in it, their captions as far as `videos` has any, and what was left out."""
    if os.path.isfile(videos) and Path(videos).suffix.lower() in (".csv", ".tsv", ".jsonl"):
        path = existing_path(videos)
        rows = read_table(path, captions=False)
        names = [_on_disk(path.parent, name) for name in rows]
        return path.parent, names, rows, {}
    listing = list_media(videos, MOVIE_SUFFIXES)
    return listing.root, [os.path.relpath(file, listing.root) for file in listing.files], {}, listing.left_out


def _on_disk(root: Path, name: str) -> str:
    """The name that a file of a table has, which may be in another form of Unicode; as it is, if there is none."""
    found = Path()
    for part in Path(name).parts:
        if (root / found / part).exists():
            found /= part
            continue
        try:
            beside = [entry for entry in os.listdir(root / found) if plain_name(entry) == part]
        except OSError:
            return name
        if not beside:
            return name
        found /= beside[0]
    return os.fspath(found)


def _text(name: str) -> str:
    """A file's name as text that can be stored: bytes that are no UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
