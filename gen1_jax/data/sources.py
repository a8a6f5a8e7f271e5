"""Where examples come from: random access to clips and pictures, whatever keeps them.

"tfds:NAME", DIR of a data set ──► RecordSource, LatentSource, TfdsSource ─┐
*.array_record of media files ───► MediaRecords ───────────────────────────┼─► {"video" | "image" | "moments", ...}
folders, patterns ───────────────► MediaFiles ─────────────────────────────┘
"""

import bisect
import glob
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Int
from PIL import Image

from gen1_jax.data.codec import VideoFile
from gen1_jax.data.dataset import Example, RecordError, count_records, open_dataset
from gen1_jax.data.latents import LatentSource
from gen1_jax.data.storage import folder, is_remote
from gen1_jax.errors import UserError
from gen1_jax.media.images import READABLE_SUFFIXES

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
"""What counts as a video in a folder."""

_NO_DATA_SOURCE = "cannot be read without TensorFlow; prepare it with: tfds build {name} --file_format=array_record"


@runtime_checkable
class Source(Protocol):
    """Random access to examples; picklable, and its repr is the same in every process.

    An example is a dict with one of
        "video"    the bytes of a video file, its Path, or uint8 (T, H, W, 3)
        "image"    the bytes of a picture file, its Path, or uint8 (H, W) or (H, W, 1 | 3 | 4)
        "moments"  latents of a clip, with "content" and "structure", see `LatentSource`
    and, where there is one, a "caption"; records may have more, see `CLIP_FEATURES`, and maps by the name of their kind
    of structure, see `codec.recorded_maps`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def locate(self, index: int) -> str:
        """Where an example is, for messages: its file, its index."""
        ...

    def sizes(self) -> Int[np.ndarray, "n 2"] | None:
        """Height and width of every example, if that can be told without reading them."""
        ...


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
    files = _files(path)
    if not files:
        raise UserError(f"{path}: no data set, video, picture or array_record file there")
    if "array_record" in files[0].name:
        return MediaRecords(tuple(map(str, files)))
    return MediaFiles(tuple(map(str, files)))


def _files(path: str) -> list[Path]:
    if Path(path).is_dir():
        suffixes = (*VIDEO_SUFFIXES, *READABLE_SUFFIXES)
        found = [file for file in Path(path).rglob("*") if not file.name.startswith(".")]
        return sorted(file for file in found if file.suffix.lower() in suffixes or ".array_record" in file.name)
    return sorted(Path(file) for file in ([path] if os.path.exists(path) else glob.glob(path, recursive=True)))


class MediaFiles:
    """Videos and pictures as files; the caption of NAME.mp4 is the text of NAME.txt, if that exists."""

    def __init__(self, files: Sequence[str]) -> None:
        self._files = tuple(files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        file = Path(self._files[index])
        text = file.with_suffix(".txt")
        caption = text.read_text().strip() if text.exists() else ""
        return {"video" if file.suffix.lower() in VIDEO_SUFFIXES else "image": file, "caption": caption}

    def locate(self, index: int) -> str:
        """The file."""
        return f"{self._files[index]} (index {index})"

    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """From the files' headers; a file that has none that can be read counts as a square."""
        return np.array([_file_size(Path(file)) for file in self._files], np.int32)

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
            data = self._records[index]
        except RuntimeError as error:
            raise RecordError(f"{self.locate(index)} cannot be read ({' '.join(str(error).split())})") from error
        return {"image" if _is_picture(data) else "video": data, "caption": ""}

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


def _is_picture(data: bytes) -> bool:
    signatures = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
    return data.startswith(signatures) or data[8:12] == b"WEBP" or data[4:12] == b"ftypavif"


def _file_size(file: Path) -> tuple[int, int]:
    try:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            with VideoFile(file) as video:
                return video.height, video.width
        with Image.open(file) as image:
            return image.height, image.width
    except Exception:
        return 1, 1
