"""Editing a video file: what `gen1 edit` does, frame by frame, so that memory does not grow with the clip.

Only frames of the model's own size are held; those of the source's size pass through one at a time.
"""

import dataclasses
import itertools
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.data.prepare_geometry import cover
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.maps import ready_maps
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.record import make_record
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, Maps, Progress
from gen1_jax.errors import UserError
from gen1_jax.files import write_text
from gen1_jax.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Limits,
    Part,
    VideoInfo,
    VideoWriter,
    check_output,
    check_writable,
    keeps_pixel_aspect,
    needs_even_size,
    open_video,
    read_image,
    side_by_side,
    write_image,
)
from gen1_jax.parallel.mesh import MeshConfig
from gen1_jax.pretrained.lora import with_loras
from gen1_jax.pretrained.words import unknown_words

_OUTPUTS = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit of a file.

    Attributes:
        video: a video, a folder of pictures or a picture.
        output: by suffix a video, or a picture if the input is one frame.
        prompt: the content in words, or None.
        image: the content as a picture file, or several; beside a prompt for models with an adapter for pictures.
        negative_prompt: what the result should not look like.
        structure_from: ready maps in place of estimates: (kind, file), or (None, file) for the edit's first kind.
        loras: LoRA files and their strengths, merged into the model.
        low_memory: let every network go when it has done its part.
        model: name of a model that ships, a model folder, or a training workdir.
        settings: the numbers of the edit.
        start: index of the first frame to edit (int), or seconds (Fraction).
        duration: frames of the video (int) or seconds (Fraction) from there on, None to its end.
        frames: how many frames at most, None for all.
        stride: every how many-th.
        fps: frames a second of the result, the video's own if None: some are left out, or the last one is shown
            again. Of a folder of pictures, how fast they follow each other (8).
        size: (width, height) of the result, pixels; the video's own if None. What does not fit into that shape is
            cut off at both sides.
        save_structure: where to write what the model saw, or None.
        compare: write input, structure and edit side by side instead of the edit alone.
        sidecar: write the settings to OUTPUT.json, too.
        mesh: devices that share the sampling, or None for one.
        limits: refuses larger files.
    """

    video: str | Path
    output: str | Path
    prompt: str | None = None
    image: str | Path | Sequence[str | Path] | None = None
    negative_prompt: str | None = None
    structure_from: tuple[tuple[str | None, str | Path], ...] = ()
    loras: tuple[tuple[str | Path, float], ...] = ()
    low_memory: bool = False
    model: str | Path = "nano"
    settings: EditSettings = EditSettings()
    start: int | Fraction = 0
    duration: int | Fraction | None = None
    frames: int | None = None
    stride: int = 1
    fps: Fraction | None = None
    size: tuple[int, int] | None = None
    save_structure: str | Path | None = None
    compare: bool = False
    sidecar: bool = False
    mesh: MeshConfig | None = None
    limits: Limits = Limits()

    def __post_init__(self):
        if self.prompt is None and not self.images:
            raise UserError("give either --prompt or --image, or both to a model that reads both")
        if self.prompt is not None and not self.prompt.strip():
            raise UserError("--prompt is empty: say what the result should look like")
        self._check_size()
        _ = self.part

    @property
    def images(self) -> tuple[str | Path, ...]:
        """The picture files of `image`."""
        if self.image is None:
            return ()
        return (self.image,) if isinstance(self.image, str | Path) else tuple(self.image)

    @property
    def part(self) -> Part:
        """The part of the video."""
        return Part(start=self.start, duration=self.duration, frames=self.frames, stride=self.stride, rate=self.fps)

    def _check_size(self) -> None:
        if self.size is None:
            return
        width, height = self.size
        if width < 1 or height < 1:
            raise UserError(f"--size {width}x{height}: both must be positive")
        if width * height > self.limits.max_pixels:
            raise UserError(f"--size {width}x{height}: more than {self.limits.max_pixels} pixels; raise --max-pixels")
        for path in _outputs(self):
            if not self.compare and (width % 2 or height % 2) and needs_even_size(path):
                even = f"{width + width % 2}x{height + height % 2}"
                raise UserError(f"--size {width}x{height}: {path} needs even numbers, such as {even}")


@dataclasses.dataclass(frozen=True)
class Source:
    """The part of a file that is edited.

    Attributes:
        info: of the whole file.
        frames: at the model's size.
        times: of the frames, seconds.
        end: when the last of them ceases to be shown, seconds.
        sound: the part of the sound that belongs to them (`VideoReader.sound`).
    """

    info: VideoInfo
    frames: Frames
    times: list[Fraction]
    end: Fraction
    sound: tuple[Fraction | None, Fraction | None]


def edit_file(
    request: EditRequest,
    progress: Progress = lambda stage, done, total: None,
    pipeline: Gen1Pipeline | None = None,
) -> dict:
    """Edit a file. Its settings travel in the output, see `record`.

    Args:
        request: what to do.
        progress: called with the stage ("reading", "depth", "structure", "compiling", "sampling", "decoding"), units
            done, total.
        pipeline: the model of the request, if it is loaded already.

    Returns:
        A summary of plain values: sizes, settings, seconds in all.

    Raises:
        ValueError: the request, the files (`MediaError`) or the model (`FolderError`, `LayoutError`) are at fault.
            Wrong input leaves nothing behind, and no file is ever half-written.
    """
    began = time.perf_counter()
    outputs = _outputs(request)
    for output in outputs:
        check_output(output, [request.video, *request.images, *(path for _, path in request.structure_from)])
        check_writable(output, _OUTPUTS)
    if request.sidecar:
        check_writable(sidecar_of(request.output))
    if len(outputs) == 2 and Path(outputs[0]).resolve() == Path(outputs[1]).resolve():
        raise UserError(f"{outputs[0]}: --output and --save-structure are the same file")
    pictures = [read_image(image, request.limits) for image in request.images]
    pipeline = pipeline or open_pipeline(request)
    settings = request.settings.of(pipeline.config)
    content = pipeline.encode_content(request.prompt, pictures, settings, request.negative_prompt)

    source = read_source(request.video, pipeline, request.limits, progress, part=request.part, size=request.size)
    if len(source.times) > 1:
        for path in filter(_is_picture, outputs):
            raise UserError(
                f"{path}: a picture holds one frame, not {len(source.times)}; name a video or give --frames 1"
            )
    ready = _ready_maps(request, settings, pipeline, source)
    maps = pipeline.read_structure(source.frames, settings, ready, progress)
    structures = pipeline.pictures_of(maps)
    latents = pipeline.sample(content, maps, settings, progress, frames=source.frames)

    if request.save_structure is not None:
        views = (side_by_side(list(pictures)) for pictures in zip(*structures.values(), strict=True))
        write_frames(request.save_structure, views, source, request, audio=False)
    edited = pipeline.decode(latents, progress)
    if request.compare:
        edited = compare_frames(source, structures, edited)
    record = make_record(request, settings, pipeline.source)
    width, height, count = write_frames(request.output, edited, source, request, audio=True, record=record)
    if request.sidecar:
        write_text(sidecar_of(request.output), json.dumps(record, indent=2) + "\n")
    return {
        "output": str(request.output),
        "frames": count,
        "width": width,
        "height": height,
        "working_height": source.frames.shape[1],
        "working_width": source.frames.shape[2],
        "model": pipeline.source.name,
        "trained": pipeline.source.warning is None,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "image": ", ".join(map(str, request.images)) or None,
        **dataclasses.asdict(settings),
        "unknown_words": unknown_words(request.prompt or "", getattr(pipeline.source, "words", None)),
        "seconds": round(time.perf_counter() - began, 3),
    }


def open_pipeline(request: EditRequest) -> Gen1Pipeline:
    """The model of a request, with its LoRA files."""
    model = with_loras(open_trained(request.model), request.loras)
    return Gen1Pipeline(model, mesh=request.mesh, low_memory=request.low_memory)


def _ready_maps(request: EditRequest, settings: EditSettings, pipeline: Gen1Pipeline, source: Source) -> Maps:
    """The maps of `structure_from`, by kind."""
    ready: Maps = {}
    width, height = source.info.square_size
    for name, path in request.structure_from:
        kind = pipeline.config.structure_kind(name or next((use.kind for use in settings.structures), "depth"))
        if kind.name in ready:
            raise UserError(f"--structure-from: two files for {kind.name}")
        ready[kind.name] = ready_maps(
            path,
            kind,
            len(source.frames),
            source.frames.shape[1:3],
            shape=(height, width),
            crop=request.size,
            part=request.part,
            frame_rate=source.info.frame_rate,
            limits=request.limits,
        )
    return ready


def sidecar_of(output: str | Path) -> Path:
    """Where the settings of an output lie beside it: mars.mp4.json."""
    output = Path(output)
    return output.with_name(f"{output.name}.json")


def _outputs(request: EditRequest) -> list[str | Path]:
    return [path for path in (request.output, request.save_structure) if path is not None]


def _is_picture(path: str | Path) -> bool:
    return str(path).lower().endswith(tuple(IMAGE_SUFFIXES))


def read_source(
    path: str | Path,
    pipeline: Gen1Pipeline,
    limits: Limits,
    progress: Progress = lambda *_: None,
    part: Part | None = None,
    size: tuple[int, int] | None = None,
) -> Source:
    """Frames of a file at the model's size, in square pixels; `size` (width, height) gives them its shape.

    Raises:
        MediaError: the file cannot be read, or is beyond the limits.
    """
    with open_video(path, limits=limits, **dataclasses.asdict(part or Part())) as reader:
        info = reader.info
        width, height = size or info.square_size
        working = pipeline.config.working_size(height, width)
        whole = (0, 0, info.width, info.height)
        box = None if size is None else cover(whole, (height, width), info.sample_aspect_ratio)
        small, times = [], []
        for frame in reader:
            small.append(resize(frame.rgb, working, box))
            times.append(frame.time)
            progress("reading", len(times), max(reader.expected_frames or 0, len(times)))
    if part is not None and part.rate is not None and (reader.end - times[0]) * part.rate > limits.max_frames:
        raise UserError(
            f"--fps {float(part.rate):g}: of {path} it makes more than {limits.max_frames} frames;"
            " choose a --duration or raise --max-frames"
        )
    return Source(info, np.stack(small), times, reader.end, reader.sound)


def write_frames(
    path: str | Path,
    frames: Iterator[np.ndarray],
    source: Source,
    request: EditRequest,
    *,
    audio: bool,
    record: Mapping[str, Any] | None = None,
) -> tuple[int, int, int]:
    """Frames to a file of the input's size and times (or of their own size, side by side), `record` in it.

    Returns:
        Width and height of what was written, and its number of frames.
    """
    info, note = source.info, None if record is None else json.dumps(record)
    # Only a video says what shape its pixels are; a picture is looked at in square ones.
    keeps_aspect = request.size is None and not request.compare and keeps_pixel_aspect(path)
    width, height = request.size or ((info.width, info.height) if keeps_aspect else info.square_size)
    if not request.compare:
        frames = (resize(frame, (height, width)) for frame in frames)
    first = next(frames)
    height, width, _ = first.shape
    if _is_picture(path):
        write_image(path, first, note=note)
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


def _ticks(start: Fraction, end: Fraction, fps: Fraction | None) -> Iterator[Fraction]:
    """When a frame is shown that is on the screen from `start` to `end`: again at each tick, if there is a rate."""
    yield start
    if fps is not None:
        for tick in itertools.count(1):
            if end - (start + tick / fps) <= 1 / fps / 2:  # an end that is rounded is no tick
                return
            yield start + tick / fps


def compare_frames(
    source: Source, structures: Mapping[str, Frames], edited: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """Input, structures and edit beside each other, frame by frame, at the model's size."""
    for views in zip(source.frames, *structures.values(), edited, strict=True):
        yield side_by_side(list(views))
