"""Edited frames to files, of the size and times of what they were made from."""

import itertools
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.editing.inputs import resize
from gen1_jax.editing.provenance import provenance_of
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.source import Source
from gen1_jax.media import IMAGE_SUFFIXES, VideoWriter, keeps_pixel_aspect, side_by_side, write_image


def is_picture(path: str | Path) -> bool:
    """Whether a file of that name holds one picture."""
    return str(path).lower().endswith(tuple(IMAGE_SUFFIXES))


def write_frames(
    path: str | Path,
    frames: Iterator[np.ndarray],
    source: Source,
    request: EditRequest,
    *,
    audio: bool,
    record: Mapping[str, Any] | None = None,
) -> tuple[int, int, int]:
    """Frames to a file of the input's size and times (or of their own size, side by side), `record` in it; signed.

    Returns:
        Width and height of what was written, and its number of frames.
    """
    info, note = source.info, None if record is None else json.dumps(record)
    keeps_aspect = _keeps_aspect(path, request)
    if not request.compare:
        size = output_size(path, source, request)
        frames = (resize(frame, size) for frame in frames)
    first = next(frames)
    provenance = provenance_of(request, record)
    height, width, _ = first.shape
    if is_picture(path):
        write_image(path, first, note=note, provenance=provenance)
        return width, height, 1
    with VideoWriter(
        path,
        width=width,
        height=height,
        frame_rate=request.fps or info.frame_rate / request.stride,
        audio_from=request.video if audio and info.has_audio else None,
        sound=source.sound,
        sample_aspect_ratio=info.sample_aspect_ratio if keeps_aspect else None,
        metadata=info.metadata if audio else None,
        track_metadata=info.track_metadata if audio else None,
        note=note,
        provenance=provenance,
    ) as writer:
        ends = [*source.times[1:], source.end]
        for frame, start, end in zip(itertools.chain([first], frames), source.times, ends, strict=True):
            for time in _ticks(start, end, request.fps):
                writer.write(frame, time, end - time)
    if writer.left_out:
        warnings.warn(
            f"{path}: {writer.left_out} of {writer.left_out + writer.count} frames are left out, for a GIF shows none"
            " for less than 1/50 s",
            stacklevel=2,
        )
    return *writer.size, writer.count


def output_size(path: str | Path, source: Source, request: EditRequest) -> tuple[int, int]:
    """(height, width) of what is written to a file of that name, where it is not written side by side."""
    info = source.info
    keeps_aspect = _keeps_aspect(path, request)
    width, height = (info.width, info.height) if keeps_aspect else info.square_size
    if request.size is not None:
        width, height = request.size
    elif request.enlarges:
        width, height = request.upscale * width, request.upscale * height
    elif (factor := request.upscale * source.frames.shape[1] / height) > 1 and request.upscale > 1:
        width, height = (2 * round(side * factor / 2) for side in (width, height))
    return height, width


def _keeps_aspect(path: str | Path, request: EditRequest) -> bool:
    """Only a video says what shape its pixels are; a picture is looked at in square ones."""
    return request.size is None and not request.compare and keeps_pixel_aspect(path)


def _ticks(start: Fraction, end: Fraction, fps: Fraction | None) -> Iterator[Fraction]:
    """When a frame is shown that is on the screen from `start` to `end`: again at each tick, if there is a rate."""
    yield start
    if fps is not None:
        for tick in itertools.count(1):
            if end - (start + tick / fps) <= 1 / fps / 2:  # an end that is rounded is no tick
                return
            yield start + tick / fps


def compare_frames(
    source: Source, structures: Mapping[str, Iterable[np.ndarray]], edited: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """Input, structures and edit beside each other, frame by frame, at the size of the edit."""
    for seen, *views in zip(source.frames, *structures.values(), edited, strict=True):
        yield side_by_side([resize(seen, views[-1].shape[:2]), *views])
