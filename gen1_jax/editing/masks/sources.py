"""Where a mask comes from, in the notation of `gen1 edit --mask`."""

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Literal

from gen1_jax.errors import UserError

AUTO = "auto"
CHANGED = "changed"
OF_CLIP = ("near", "far", "click", "text", CHANGED)
"""What the notation begins with, up to a colon, of masks that come from the clip itself; all others are files."""

_FORMS = "a file, near:D, far:D, click:X,Y[@FRAME], text:WORDS or changed[:WORDS]"
_CLICK = re.compile(r"(?P<x>[0-9.]+),(?P<y>[0-9.]+)(@(?P<frame>[0-9]+))?$")
_DRAWN = re.compile(r"(?P<path>.+)@(?P<frame>[0-9]+)$")


@dataclasses.dataclass(frozen=True)
class ByDepth:
    """What is near, or far.

    Attributes:
        side: which of both may change.
        depth: where they part, of the clip's depth as it is shown: 0 is the farthest, 1 the nearest. None lets the
            clip say it, by Otsu's threshold.
    """

    side: Literal["near", "far"]
    depth: float | None


@dataclasses.dataclass(frozen=True)
class AtPoint:
    """The thing at a point: pixels of the source from its left and top, in a frame of the edit, from 0."""

    x: float
    y: float
    frame: int = 0


@dataclasses.dataclass(frozen=True)
class OfWords:
    """What words name, by the difference that they make to predictions."""

    words: str


@dataclasses.dataclass(frozen=True)
class OfEdit:
    """What the edit itself would change, by the difference that its content makes to predictions.

    Attributes:
        words: for what the clip shows; None lets it show that itself.
    """

    words: str | None = None


@dataclasses.dataclass(frozen=True)
class OfFile:
    """A video, a folder of pictures, or a picture.

    Attributes:
        path: of the file.
        frame: of the edit, from 0, that a picture was drawn on: it is carried along what moves. None leaves a picture
            where it is, in all frames.
    """

    path: Path
    frame: int | None = None


MaskSource = ByDepth | AtPoint | OfWords | OfEdit | OfFile


def parse_mask(text: str | os.PathLike) -> MaskSource:
    """A mask from its notation: FILE, FILE@FRAME, near:D, far:D, click:X,Y, click:X,Y@FRAME, text:WORDS, changed,
    changed:WORDS.

    What exists as a file is one, whatever its name looks like.

    Raises:
        UserError: it is none of these.
    """
    text = os.fspath(text)
    if os.path.lexists(text):
        return OfFile(Path(text))
    if text == CHANGED:
        return OfEdit()
    form, colon, said = text.partition(":")
    if form in ("near", "far") and colon:
        return ByDepth(form, _depth(text, said))
    if form == "click" and colon:
        return _point(text, said)
    if form == "text" and colon:
        return OfWords(_words(text, said, "name what may change, as text:the car"))
    if form == CHANGED and colon:
        return OfEdit(_words(text, said, "say what the clip shows, as changed:a dog in the snow"))
    if (drawn := _DRAWN.match(text)) and os.path.lexists(drawn["path"]):
        return OfFile(Path(drawn["path"]), int(drawn["frame"]))
    raise UserError(f"--mask {text}: no such file; give {_FORMS}")


def of_edit(mask: object) -> OfEdit | None:
    """A mask that is found by the content of the edit; None where it is another, or not in notation."""
    source = parse_mask(mask) if isinstance(mask, str | os.PathLike) else None
    return source if isinstance(source, OfEdit) else None


def takes_model(mask: str | os.PathLike) -> bool:
    """Whether a mask is found by predictions of the whole model: by words, or by what the edit changes."""
    return isinstance(parse_mask(mask), OfWords | OfEdit)


def file_of(mask: str | os.PathLike | None) -> Path | None:
    """The file of a mask; None where it comes from the clip itself."""
    source = None if mask is None else parse_mask(mask)
    return source.path if isinstance(source, OfFile) else None


def without_folder(mask: str | os.PathLike | None) -> str | None:
    """The notation of a mask, its file by its name alone."""
    path = file_of(mask)
    return None if mask is None else os.fspath(mask) if path is None else os.fspath(mask).replace(str(path), path.name)


def _depth(text: str, said: str) -> float | None:
    if said == AUTO:
        return None
    try:
        depth = float(said)
    except ValueError:
        depth = math.nan
    if not 0 <= depth <= 1:
        raise UserError(f"--mask {text}: the depth is 0 (the farthest) to 1 (the nearest), or auto")
    return depth


def _words(text: str, said: str, mend: str) -> str:
    if not said.strip():
        raise UserError(f"--mask {text}: {mend}")
    return said.strip()


def _point(text: str, said: str) -> AtPoint:
    match = _CLICK.match(said)
    try:
        return AtPoint(float(match["x"]), float(match["y"]), int(match["frame"] or 0))
    except (TypeError, ValueError):
        raise UserError(f"--mask {text}: write click:X,Y or click:X,Y@FRAME, in pixels of the source") from None
