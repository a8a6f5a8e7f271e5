"""A note that travels inside a video or picture: written by `VideoWriter` and `write_image`, read by `read_note`.

.mp4        synopsis                           .mkv .webm  a tag of its own, "gen1_jax"
.mov        behind the comment                 .png        a chunk of text, "gen1_jax"
.gif        nothing: it has no such place      .webp .jpg  EXIF, description of the picture
"""

import warnings
from collections.abc import Iterable, Mapping

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gen1_jax.media.errors import AnyPath, shown

_MARK = "gen1_jax settings: "  # by which it is known wherever it stands
_KEY = "gen1_jax"
_DESCRIPTION = 0x010E  # of EXIF
_ROOM = dict.fromkeys((".jpg", ".jpeg", ".mov"), 60_000)  # bytes: lengths have 16 bits there, and others want room, too


def noted(metadata: Mapping[str, str], key: str | None, note: str) -> dict[str, str]:
    """Metadata of a container with a note behind whatever its key says already; without one if it has no such place."""
    if key is None:
        return dict(metadata)
    return {**metadata, key: f"{metadata[key]}\n{_MARK}{note}" if metadata.get(key) else _MARK + note}


def without_note(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata of a container without the note that an edit of before left there."""
    kept = {key: value.partition(_MARK)[0].rstrip("\n") for key, value in metadata.items()}
    return {key: value for key, value in kept.items() if value or not metadata[key]}


def fitting(path: AnyPath, suffix: str, note: str | None) -> str | None:
    """The note, or None, with a warning, where it is longer than a file of this kind can hold."""
    room = _ROOM.get(suffix)
    if note is None or room is None or len((_MARK + note).encode()) <= room:
        return note
    warnings.warn(
        f"{shown(path)}: its settings are left out of it, for a {suffix} file has no room for so long a text;"
        " --sidecar writes them beside it",
        stacklevel=3,
    )
    return None


def picture_options(suffix: str, note: str | None) -> dict[str, object]:
    """What Pillow's `save` takes to write a note."""
    if note is None:
        return {}
    if suffix == ".png":
        chunk = PngInfo()
        chunk.add_itxt(_KEY, _MARK + note)
        return {"pnginfo": chunk}
    exif = Image.Exif()
    exif[_DESCRIPTION] = _MARK + note
    return {"exif": exif}


def of_picture(image: Image.Image) -> str | None:
    """The note in an opened picture, or None."""
    return of_texts((str(image.info.get(_KEY, "")), str(image.getexif().get(_DESCRIPTION, ""))))


def of_texts(texts: Iterable[str]) -> str | None:
    """The note in one of the texts of a file, or None."""
    return next((text.partition(_MARK)[2] for text in texts if _MARK in text), None)
