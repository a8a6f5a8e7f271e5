"""Editing a video file: what `gen1 edit` does, frame by frame, so that memory does not grow with the clip.

Only frames of the model's own size are held; those of the source's size pass through one at a time.
"""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.editing.pipeline import EditSettings, Frames, Gen1Pipeline, Progress, resize, to_uint8
from gen1_jax.errors import UserError
from gen1_jax.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Limits,
    VideoInfo,
    VideoWriter,
    check_output,
    check_writable,
    open_video,
    read_image,
    side_by_side,
    write_image,
)
from gen1_jax.parallel.mesh import MeshConfig

_OUTPUTS = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit of a file.

    Attributes:
        video: a video, a folder of pictures or a picture.
        output: by suffix a video, or a picture if the input is one frame.
        prompt: the content in words.
        image: or the content as a picture file.
        model: name of a model that ships, a model folder, or a training workdir.
        settings: the numbers of the edit.
        start: index of the first frame to edit.
        frames: how many at most, None for all.
        stride: every how many-th.
        save_structure: where to write what the model saw, or None.
        compare: write input, structure and edit side by side instead of the edit alone.
        mesh: devices that share the sampling, or None for one.
        limits: refuses larger files.
    """

    video: str | Path
    output: str | Path
    prompt: str | None = None
    image: str | Path | None = None
    model: str | Path = "nano"
    settings: EditSettings = EditSettings()
    start: int = 0
    frames: int | None = None
    stride: int = 1
    save_structure: str | Path | None = None
    compare: bool = False
    mesh: MeshConfig | None = None
    limits: Limits = Limits()

    def __post_init__(self):
        if (self.prompt is None) == (self.image is None):
            raise UserError("give either --prompt or --image" + ("" if self.prompt is None else ", not both"))
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("--prompt is empty: say what the result should look like")


@dataclasses.dataclass(frozen=True)
class Source:
    """The part of a file that is edited.

    Attributes:
        info: of the whole file.
        frames: at the model's size.
        times: of the frames, seconds.
    """

    info: VideoInfo
    frames: Frames
    times: list[Fraction]


def edit_file(request: EditRequest, progress: Progress = lambda stage, done, total: None) -> dict:
    """Edit a file.

    Args:
        request: what to do.
        progress: called with the stage ("reading", "depth", "structure", "sampling", "decoding"), units done, total.

    Returns:
        A summary of plain values: sizes, settings, seconds in all.

    Raises:
        ValueError: the request, the files (`MediaError`) or the model (`FolderError`, `LayoutError`) are at fault.
            Wrong input leaves nothing behind, and no file is ever half-written.
    """
    began = time.perf_counter()
    outputs = _outputs(request)
    for output in outputs:
        check_output(output, [request.video, *([request.image] if request.image else [])])
        check_writable(output, _OUTPUTS)
    if len(outputs) == 2 and Path(outputs[0]).resolve() == Path(outputs[1]).resolve():
        raise UserError(f"{outputs[0]}: --output and --save-structure are the same file")
    picture = None if request.image is None else read_image(request.image, request.limits)
    pipeline = Gen1Pipeline(open_trained(request.model), mesh=request.mesh)

    part = dict(start=request.start, frames=request.frames, stride=request.stride)
    source = read_source(request.video, pipeline, request.limits, progress, **part)
    if len(source.times) > 1:
        for path in filter(_is_picture, outputs):
            raise UserError(
                f"{path}: a picture holds one frame, not {len(source.times)}; name a video or give --frames 1"
            )
    settings = request.settings.of(pipeline.config)
    content = pipeline.encode_content(request.prompt, picture, settings.seed)
    structure = pipeline.structure(source.frames, settings.structure_blur, progress)
    latents = pipeline.sample(content, structure, settings, progress)

    if request.save_structure is not None:
        views = (np.repeat(frame[..., None], 3, axis=-1) for frame in map(to_uint8, structure))
        write_frames(request.save_structure, views, source, request, audio=False)
    edited = pipeline.decode(latents, progress)
    if request.compare:
        edited = compare_frames(source, structure, edited)
    write_frames(request.output, edited, source, request, audio=True)
    return {
        "output": str(request.output),
        "frames": len(source.times),
        "width": source.info.width,
        "height": source.info.height,
        "working_height": source.frames.shape[1],
        "working_width": source.frames.shape[2],
        "model": pipeline.source.name,
        "trained": pipeline.source.warning is None,
        "prompt": request.prompt,
        "image": None if request.image is None else str(request.image),
        **dataclasses.asdict(settings),
        "seconds": round(time.perf_counter() - began, 3),
    }


def _outputs(request: EditRequest) -> list[str | Path]:
    return [path for path in (request.output, request.save_structure) if path is not None]


def _is_picture(path: str | Path) -> bool:
    return str(path).lower().endswith(tuple(IMAGE_SUFFIXES))


def read_source(
    path: str | Path, pipeline: Gen1Pipeline, limits: Limits, progress: Progress = lambda *_: None, **part: int | None
) -> Source:
    """Frames of a file at the model's size; `part` is `start`, `frames` and `stride` of `open_video`.

    Raises:
        MediaError: the file cannot be read, or is beyond the limits.
    """
    with open_video(path, limits=limits, **part) as reader:
        info = reader.info
        size = pipeline.config.working_size(info.height, info.width)
        small, times = [], []
        for frame in reader:
            small.append(resize(frame.rgb, size))
            times.append(frame.time)
            progress("reading", len(times), max(reader.expected_frames or 0, len(times)))
    return Source(info, np.stack(small), times)


def write_frames(path: str | Path, frames: Iterator[np.ndarray], source: Source, request: EditRequest, *, audio: bool):
    """Frames to a file of the input's size and times (or of their own size, side by side)."""
    scale = (lambda frame: frame) if request.compare else lambda f: resize(f, (source.info.height, source.info.width))
    frames = map(scale, frames)
    if _is_picture(path):
        write_image(path, next(frames))
        return
    first = next(frames)
    info = source.info
    with VideoWriter(
        path,
        width=first.shape[1],
        height=first.shape[0],
        frame_rate=info.frame_rate / request.stride,
        audio_from=request.video if audio and info.has_audio else None,
        sample_aspect_ratio=None if request.compare else info.sample_aspect_ratio,
    ) as writer:
        for frame, at in zip(itertools.chain([first], frames), source.times, strict=True):
            writer.write(frame, at)


def compare_frames(source: Source, structure: np.ndarray, edited: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Input, structure and edit beside each other, frame by frame, at the model's size."""
    for before, depth, after in zip(source.frames, structure, edited, strict=True):
        yield side_by_side([before, np.repeat(to_uint8(depth)[..., None], 3, axis=-1), after])
