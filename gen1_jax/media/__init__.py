"""Video and picture files, in and out: local files only, every hostile one refused with one clear line."""

from gen1_jax.media.animation import ANIMATION_SUFFIXES, write_animation
from gen1_jax.media.clips import load_video, save_video
from gen1_jax.media.errors import Limits, MediaError
from gen1_jax.media.files import check_output, check_suffix, check_writable
from gen1_jax.media.images import (
    IMAGE_SUFFIXES,
    picture_of,
    pixels_of,
    read_image,
    side_by_side,
    text_strip,
    write_image,
)
from gen1_jax.media.info import Frame, VideoInfo
from gen1_jax.media.loudness import loudness
from gen1_jax.media.note_reader import read_note
from gen1_jax.media.part import Part
from gen1_jax.media.reader import VideoReader, open_video
from gen1_jax.media.recipes import VIDEO_SUFFIXES, keeps_pixel_aspect, needs_even_size
from gen1_jax.media.windows import WindowReader, open_windows
from gen1_jax.media.writer import VideoWriter

__all__ = [
    "ANIMATION_SUFFIXES",
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "Limits",
    "MediaError",
    "Part",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "WindowReader",
    "check_output",
    "check_suffix",
    "check_writable",
    "keeps_pixel_aspect",
    "load_video",
    "loudness",
    "needs_even_size",
    "open_video",
    "open_windows",
    "picture_of",
    "pixels_of",
    "read_image",
    "read_note",
    "save_video",
    "side_by_side",
    "text_strip",
    "write_animation",
    "write_image",
]
