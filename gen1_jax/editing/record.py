"""The settings of an edit, as they travel in the file that it made: enough to make it again.

Files may come from anybody: every value is checked as one from the command line is, and names no path.
"""

import functools
import hashlib
import json
import typing
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen1_jax.checkpoints.identity import model_hash
from gen1_jax.editing.masks import file_of, without_folder
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError, in_one_line
from gen1_jax.media import read_note
from gen1_jax.media.provenance import signed_edit
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.versions import versions

if TYPE_CHECKING:
    from gen1_jax.editing.request import EditRequest

_VERSION = 1
_LARGEST = 2**20  # bytes of a sidecar
_PACKAGES = ("gen1-jax", "jax")


class NoRecord(UserError):
    """There are no settings in a file."""


def make_record(
    request: "EditRequest", settings: EditSettings, model: ModelSource, upscaler: ModelSource | None = None
) -> dict[str, Any]:
    """Plain values: what was asked for, the model, and versions. Files are told by their names and hashes alone.

    Args:
        request: of the edit.
        settings: with the model's own numbers filled in.
        model: that made it.
        upscaler: that enlarged it, if it is another.
    """
    files = lambda paths: [Path(path).name for path in paths]
    hashes = lambda paths: [file_hash(Path(path)) for path in paths]
    enlarged = request.upscale > 1
    maps, mask_file = [path for _, path in request.structure_from], file_of(request.mask)
    return {
        "record": _VERSION,
        "model": model.name,
        "model_hash": model_hash(model),
        "video": Path(request.video).name,
        "video_hash": file_hash(Path(request.video)) if Path(request.video).is_file() else None,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "image": _one_or_all(files(request.images)),
        "image_hash": _one_or_all(hashes(request.images)),
        "contents": [str(use.without_folder()) for use in request.contents] or None,
        "contents_hash": hashes(use.image for use in request.contents if use.image is not None) or None,
        "structure_from": files(maps) or None,
        "keyframes": [f"{index}={Path(path).name}" for index, path in request.keyframes] or None,
        "mask": without_folder(request.mask),
        "mask_file": mask_file and mask_file.name,
        "background": request.background,
        "loras": [f"{Path(path).name}:{strength:g}" for path, strength in request.loras] or None,
        **vars(settings),
        "start": _moment(request.start),
        "duration": _moment(request.duration),
        "frames": request.frames,
        "stride": request.stride,
        "fps": None if request.fps is None else str(request.fps),
        "size": None if request.size is None else "{}x{}".format(*request.size),
        "upscale": request.upscale if enlarged else None,
        "upscaler": upscaler and upscaler.name,
        "upscaler_hash": upscaler and model_hash(upscaler),
        "noise_level": request.noise_level if upscaler else None,
        "match_colour": request.match_colour if enlarged else None,
        "compare": request.compare,
        "versions": versions(_PACKAGES),
    }


def _one_or_all(values: list[str]) -> str | list[str] | None:
    """None, one alone as it is, several as a list."""
    return values if len(values) > 1 else next(iter(values), None)


def file_hash(path: Path) -> str:
    """16 hexadecimal digits of a file's bytes, which are read once as long as nothing writes to it."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=256)
def _digest(path: Path, *state: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _moment(value: int | Fraction | None) -> int | str | None:
    return f"{value}s" if isinstance(value, Fraction) else value


def read_record(path: str | Path) -> dict[str, Any]:
    """The record in a file that `gen1 edit` wrote, or in a sidecar (.json); every value is of its type.

    Raises:
        UserError: there is none in it, or it is damaged; `MediaError` for a file that cannot be read.
    """
    local = Path(path)
    if local.suffix.lower() == ".json":
        if not local.is_file():
            raise UserError(f"{path}: no such file")
        if local.stat().st_size > _LARGEST:
            raise UserError(f"{path}: {local.stat().st_size} bytes, too large for the settings of an edit")
        note = local.read_text(encoding="utf-8", errors="replace")
    else:
        note = read_note(path) or signed_edit(path)
    if note is None:
        raise NoRecord(f"{path}: has no settings in it; gen1 edit writes them to mp4, mov, mkv, webm, png and webp")
    try:
        values = json.loads(note)
    except ValueError as error:
        raise UserError(f"{path}: its settings are damaged ({in_one_line(error, 80)})") from None
    if not isinstance(values, dict) or values.get("record") != _VERSION:
        raise UserError(f"{path}: its settings are not those of gen1 edit, or of a newer version")
    before = {"guidance_interval": [0.0, 1.0], "shift_windows": False}  # of all edits, when there was no choice
    values = before | values
    for name, fits in _FIELDS.items():
        if not fits(values.get(name)):
            raise UserError(f"{path}: its settings are damaged ({name} is {str(values.get(name))[:40]!r})")
    return values | {"guidance_interval": tuple(map(float, values["guidance_interval"]))}


def _a(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_a(int, float), value))


_NONE = type(None)


def _fits(annotation: Any) -> Callable[[Any], bool]:
    """What a field of `EditSettings` may be; records of before it was there have none."""
    kinds = {kind for kind in (typing.get_args(annotation) or (annotation,)) if isinstance(kind, type)} | {_NONE}
    return _a(*kinds, *({int} if float in kinds else ()))


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "model": _a(str),
    "model_hash": _a(str),
    "prompt": _a(str, _NONE),
    "negative_prompt": _a(str, _NONE),
    "image": _a(str, list, _NONE),
    "image_hash": _a(str, list, _NONE),
    "contents": lambda value: value is None or (isinstance(value, list) and all(map(_a(str), value))),
    "structure_from": _a(list, _NONE),
    "keyframes": _a(list, _NONE),
    "loras": _a(list, _NONE),
    "mask": _a(str, _NONE),
    "mask_file": _a(str, _NONE),
    "background": _a(str, _NONE),
    "structure_blur": _a(int),
    "guidance_scale": _a(int, float),
    "temporal_guidance_scale": _a(int, float),
    "guidance_interval": _is_interval,
    "num_inference_steps": _a(int),
    "seed": _a(int),
    "sampler": _a(str),
    "start": _a(int, str),
    "duration": _a(int, str, _NONE),
    "frames": _a(int, _NONE),
    "stride": _a(int),
    "fps": _a(str, _NONE),
    "size": _a(str, _NONE),
    "compare": _a(bool),
    "upscale": _a(int, _NONE),  # as all that follows, younger than the first records
    "upscaler": _a(str, _NONE),
    "upscaler_hash": _a(str, _NONE),
    "noise_level": _a(int, _NONE),
    "match_colour": _a(bool, _NONE),
}
_FIELDS |= {
    name: _fits(annotation)
    for name, annotation in typing.get_type_hints(EditSettings).items()
    if name not in _FIELDS  # those of the first records had to be there
}
