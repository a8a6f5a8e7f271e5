"""Where examples come from: random access to clips and pictures, whatever keeps them.

"tfds:NAME", DIR of a data set ──► RecordSource, LatentSource, TfdsSource ─┐
*.array_record of media files ───► MediaRecords ───────────────────────────┼─► {"video" | "image" | "moments", ...}
folders, patterns ───────────────► MediaFiles ─────────────────────────────┘
"""

import bisect
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Bool, Int

from gen1_jax.data.captions import Captions
from gen1_jax.data.dataset import Example, RecordError, count_records, open_dataset
from gen1_jax.data.latents import LatentSource
from gen1_jax.data.storage import BYTES_READ, folder, is_remote
from gen1_jax.errors import UserError
from gen1_jax.media.errors import Limits, MediaError, shown
from gen1_jax.media.frame_index import known_size
from gen1_jax.media.images import READABLE_SUFFIXES, image_size, is_image
from gen1_jax.media.listing import INDEX_FOLDER, MOVIE_SUFFIXES, OTHER, Listing, describe, has_wildcard, list_media
from gen1_jax.media.pictures import is_picture

TRAINING_LIMITS = Limits(max_bytes=2**50, options=False)
"""Of videos: a window of one is read, however long it is."""

PICTURE_LIMITS = Limits(max_pixels=2**26, options=False)
"""Of pictures, whose frames come one at a time: what cameras of phones make."""

_log = logging.getLogger(__name__)
_NO_DATA_SOURCE = "cannot be read without TensorFlow; prepare it with: tfds build {name} --file_format=array_record"


@runtime_checkable
class Source(Protocol):
    """Random access to examples; picklable, and its repr is the same in every process.

    An example is a dict with one of
        "video"    the bytes of a video file, its Path, or uint8 (T, H, W, 3)
        "image"    the bytes of a picture file, its Path, or uint8 (H, W) or (H, W, 1 | 3 | 4)
        "moments"  latents of a clip, with "content" and "structure", see `LatentSource`
    and, where there is one, a "caption"; records may have more, see `CLIP_FEATURES`, and maps by the name of their kind
    of structure, see `world.recorded_maps`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def locate(self, index: int) -> str:
        """Where an example is, for messages: its file, its index."""
        ...

    def sizes(self) -> Int[np.ndarray, "n 2"] | None:
        """Height and width of every example, as it is looked at, if that can be told without reading them."""
        ...

    # A source may have more, see `MediaFiles`: index_folder, notes, moving().


def open_source(path: str, split: str = "train") -> Source:
    """Opens what `SourceConfig.path` names.

    Raises:
        ValueError: nothing there, or nothing that can be read.
    """
    if path.startswith("tfds:"):
        return TfdsSource(path, split)
    if any((folder(path) / name).exists() for name in ("dataset_info.json", f"recipe_{split}.json")):
        records = open_dataset(path, split)
        if "moments" in records.features:
            return LatentSource(records)
        return records if "video" in records.features else TfdsSource(path, split)
    if is_remote(path):
        raise UserError(f"{path}: no data set there; videos, pictures and lone array_record files lie in a folder")
    listing = _listing(path)
    if not listing.files:
        left_out = "".join(f"; left out: {line}" for line in describe(listing.left_out))
        raise UserError(f"{path}: no data set, video, picture or array_record file there{left_out}")
    if ".array_record" in listing.files[0].name:
        return MediaRecords(tuple(map(str, listing.files)))
    return MediaFiles.of(listing, keep=not os.path.isfile(path))


def _listing(path: str) -> Listing:
    """The media of a folder, a pattern or a file; or array_record files, if a folder has those first."""
    if not os.path.lexists(path) and not has_wildcard(path):
        return Listing(Path(path), (), {})
    listing = list_media(path)
    records = [name for name in listing.left_out.get(OTHER, ()) if ".array_record" in Path(name).name]
    if records and not listing.files:
        return Listing(listing.root, tuple(listing.root / name for name in records), {})
    return listing


class MediaFiles:
    """Videos and pictures as files, with their captions, see `Captions`.

    Args:
        files: of media.
        captions: of each.
        root: the folder in which they were found, where the indices of their frames are kept; None for nowhere.
        notes: what there is to tell about them, a line each.
    """

    def __init__(
        self, files: Sequence[str], captions: Captions | None = None, root: str | None = None, notes: Sequence[str] = ()
    ) -> None:
        self._files, self._captions = tuple(files), captions or Captions(Path(), [])
        self.index_folder = Path(root) / INDEX_FOLDER if root else None
        self.notes = tuple(notes)

    @classmethod
    def of(cls, listing: Listing, *, keep: bool) -> "MediaFiles":
        """What was listed; what was left out, and what became of captions, is logged and in `notes`.

        Args:
            listing: of media.
            keep: whether indices of frames are kept in its folder.
        """
        captions = Captions(listing.root, listing.files)
        name = shown(listing.root)
        notes = [f"{name}: left out, {line}" for line in describe(listing.left_out)]
        notes += [f"{name}: {line}" for line in captions.summary().lines()]
        for note in notes:
            _log.info("%s", note)
        return cls(tuple(map(str, listing.files)), captions, str(listing.root) if keep else None, notes)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        file = Path(self._files[index])
        return {"video" if _is_movie(file) else "image": file, "caption": self._captions.of(file)}

    def locate(self, index: int) -> str:
        """The file."""
        return f"{self._files[index]} (index {index})"

    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """Upright and in square pixels, from the files' headers; a file that has none that can be read is a square."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return np.array(list(pool.map(self._size, map(Path, self._files))), np.int32)

    def _size(self, file: Path) -> tuple[int, int]:
        try:
            if _is_movie(file):
                return known_size(file, file, TRAINING_LIMITS, self.index_folder)
            return image_size(file)
        except (MediaError, OSError):
            return 1, 1

    def moving(self) -> Bool[np.ndarray, " n"]:
        """Which are videos rather than pictures."""
        return np.array([_is_movie(Path(file)) for file in self._files], bool)

    def __repr__(self) -> str:
        return f"MediaFiles({len(self)} files from {self._files[0]!r} on)"


class MediaRecords:
    """array_record files, each record the bytes of a video or picture file."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)
        self._ends = list(itertools.accumulate(count_records(Path(file)) for file in files))
        self._records = ArrayRecordDataSource(list(files))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        try:
            data = BYTES_READ.counted(self._records[index])
        except RuntimeError as error:
            raise RecordError(f"{self.locate(index)} cannot be read ({' '.join(str(error).split())})") from error
        return {"image" if is_image(data) else "video": data, "caption": ""}

    def locate(self, index: int) -> str:
        """The file and the record in it."""
        file = bisect.bisect_right(self._ends, index)
        return f"{self._files[file]}: record {index - (self._ends[file - 1] if file else 0)} (index {index})"

    def sizes(self) -> None:
        """Unknown."""
        return None

    def __repr__(self) -> str:
        return f"MediaRecords({len(self._files)} files from {self._files[0]!r} on)"


class TfdsSource:
    """A TFDS data set with an image or video feature, and its caption if it has a text feature of that name.

    Args:
        path: "tfds:NAME", "tfds:NAME/CONFIG:VERSION", or the folder of a prepared data set.
        split: in TFDS's notation.

    Raises:
        ValueError: not prepared, of a file format without random access, without pictures, or no such split.
    """

    def __init__(self, path: str, split: str) -> None:
        self._path, self._split = path, split
        name = path.removeprefix("tfds:")
        try:
            builder = tfds.builder(name) if path.startswith("tfds:") else tfds.builder_from_directory(path)
        except Exception as error:
            raise UserError(f"{path}: no such TFDS data set ({_first_line(error)})") from None
        self._features: Mapping[str, Any] = builder.info.features or {}
        self._key, self._what = self._find_pictures()
        try:
            self._records = builder.as_data_source(split)
        except NotImplementedError:
            raise UserError(f"{path}: {_NO_DATA_SOURCE.format(name=name)}") from None
        except (AssertionError, KeyError, ValueError, OSError) as error:
            raise UserError(
                f"{path}: split {split!r} cannot be opened ({(str(error).splitlines() or [''])[0]})"
            ) from None

    def _find_pictures(self) -> tuple[str, str]:
        for kind, what in ((tfds.features.Image, "image"), (tfds.features.Video, "video")):
            keys = [key for key, feature in self._features.items() if isinstance(feature, kind)]
            if keys:  # of several, say with masks, the one that has the usual name
                return what if what in keys else min(keys), what
        raise UserError(f"{self._path}: has no image or video feature, only {', '.join(sorted(self._features))}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        try:
            example = self._records[index]
        except Exception as error:
            raise RecordError(f"{self.locate(index)} cannot be read ({' '.join(str(error).split())})") from error
        caption = example.get("caption", b"")
        return {self._what: example[self._key], "caption": caption.decode() if isinstance(caption, bytes) else ""}

    def locate(self, index: int) -> str:
        """The data set and the index."""
        return f"{self._path}: index {index} of split {self._split!r}"

    def sizes(self) -> Int[np.ndarray, "n 2"] | None:
        """From the schema, if that fixes the size."""
        height, width = self._features[self._key].shape[-3:-1]
        return None if None in (height, width) else np.broadcast_to(np.int32((height, width)), (len(self), 2))

    def __repr__(self) -> str:
        return f"TfdsSource({self._path!r}, {self._split!r})"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _is_movie(file: Path) -> bool:
    """By its suffix, and for a file of another by what it holds."""
    suffix = file.suffix.lower()
    if suffix in MOVIE_SUFFIXES or suffix in READABLE_SUFFIXES:
        return suffix in MOVIE_SUFFIXES
    return not is_picture(file, file)
