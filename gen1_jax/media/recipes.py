"""What each suffix of a video means: container, codec, settings."""

from dataclasses import dataclass, field
from pathlib import Path

from gen1_jax.media.errors import AnyPath
from gen1_jax.media.files import is_folder


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one kind of file is written.

    Args:
        container: FFmpeg's name of the muxer.
        codec: FFmpeg's name of the encoder.
        pixel_format: what the encoder is given.
        options: for the encoder.
        container_options: for the muxer.
        even: the encoder takes even sizes only.
        aspect: whether it states the shape of its pixels and players heed it. PyAV cannot state it in webm.
        ticks: of its clock a second, where the container fixes them.
        least_ticks: between two frames; where it is more than one, frames that come sooner are left out.
        most_ticks: that one frame may be shown; it is written again where it is shown longer.
        sound: codecs of sound copied as they are; None for a silent format.
        sound_encoder: for any other codec.
        edit_list: whether what lies before time 0 can be hidden.
        note_key: of the metadata, where `notes` puts a note; None where there is no place for one.
    """

    container: str
    codec: str
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    even: bool = False
    aspect: bool = True
    ticks: int | None = None
    least_ticks: int = 1
    most_ticks: int | None = None
    sound: frozenset[str] | None = None
    sound_encoder: str = "aac"
    edit_list: bool = False
    note_key: str | None = None


# No B-frames: decoding order is then display order, and mp4 states uneven durations exactly.
_H264 = {"codec": "libx264", "options": {"crf": "16", "preset": "medium", "bf": "0"}, "even": True}
_QUICKTIME = {**_H264, "container_options": {"movflags": "+faststart"}, "edit_list": True}
_MPEG4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac"})

RECIPES = {
    ".mp4": Recipe(container="mp4", note_key="synopsis", sound=_MPEG4_SOUND | {"opus", "flac"}, **_QUICKTIME),
    ".mov": Recipe(container="mov", note_key="comment", sound=_MPEG4_SOUND | {"pcm_s16le", "pcm_s24le"}, **_QUICKTIME),
    ".mkv": Recipe(container="matroska", note_key="gen1_jax", sound=_MPEG4_SOUND | {"opus", "vorbis", "flac"}, **_H264),
    ".webm": Recipe(
        container="webm",
        codec="libvpx-vp9",
        options={"crf": "20", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"},
        sound=frozenset({"opus", "vorbis"}),
        sound_encoder="libopus",
        aspect=False,
        note_key="gen1_jax",
    ),
    ".gif": Recipe(
        container="gif", codec="gif", pixel_format="pal8", ticks=100, least_ticks=2, most_ticks=0xFFFF, aspect=False
    ),
}

VIDEO_SUFFIXES = (*RECIPES, "/")
"""What `VideoWriter` writes; "/" is a folder of PNG files."""


def keeps_pixel_aspect(path: AnyPath) -> bool:
    """Whether players heed the shape of pixels that a file of this name states: of mp4, mov and mkv they do."""
    recipe = _recipe(path)
    return recipe is not None and recipe.aspect


def note_key(path: AnyPath) -> str | None:
    """The key of the metadata of a file of this name that `notes` writes to; None if there is none."""
    recipe = _recipe(path)
    return None if recipe is None else recipe.note_key


def needs_even_size(path: AnyPath) -> bool:
    """Whether frames in a file of this name have even sizes only."""
    recipe = _recipe(path)
    return recipe is not None and recipe.even


def _recipe(path: AnyPath) -> Recipe | None:
    return None if is_folder(path) else RECIPES.get(Path(path).suffix.lower())
