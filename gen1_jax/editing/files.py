"""Editing a video file: what `gen1 edit` does.

    request ──► source (frames at the model's size) ──► pipeline ──► writing (frames, sound, record)

Only frames of the model's own size are held; those of the source's size pass through one at a time.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.editing.enlarging import check_upscales, spoiled_by
from gen1_jax.editing.known import keyframe_pictures, read_known
from gen1_jax.editing.long import LONGEST, LongEdit
from gen1_jax.editing.maps import ready_maps
from gen1_jax.editing.masks import MaskClip
from gen1_jax.editing.masks.of_files import mask_of, over_source, write_mask
from gen1_jax.editing.masks.regions import Region, regions_of, sample_regions
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.provenance import check_provenance
from gen1_jax.editing.record import make_record
from gen1_jax.editing.request import EditRequest, sidecar_of
from gen1_jax.editing.sampling import Watch
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.source import FrameStream, Source, geometry_of, read_source
from gen1_jax.editing.structures import Maps, Progress
from gen1_jax.editing.telling import Telling
from gen1_jax.editing.work import Work, work_of
from gen1_jax.editing.writing import compare_frames, is_picture, write_frames
from gen1_jax.errors import UserError
from gen1_jax.files import write_text
from gen1_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, check_output, check_writable, side_by_side
from gen1_jax.models.conditions import Conditions
from gen1_jax.pretrained.lora import with_loras
from gen1_jax.pretrained.words import unknown_words

_OUTPUTS = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


def edit_file(
    request: EditRequest,
    progress: Progress = lambda stage, done, total: None,
    pipeline: Gen1Pipeline | None = None,
    upscaler: Gen1Pipeline | None = None,
) -> dict:
    """Edit a file. Its settings travel in the output, see `record`.

    Args:
        request: what to do.
        progress: called with the stage ("reading", "depth", "structure", "compiling", "sampling", "decoding"), units
            done, total.
        pipeline: the model of the request, if it is loaded already.
        upscaler: its upscaler, likewise.

    Returns:
        A summary of plain values: sizes, settings, seconds in all.

    Raises:
        ValueError: the request, the files (`MediaError`) or the model (`FolderError`, `LayoutError`) are at fault.
            Wrong input leaves nothing behind, and no file is ever half-written.
    """
    began = time.perf_counter()
    outputs = request.outputs
    for output in outputs:
        check_output(output, request.inputs)
        check_writable(output, _OUTPUTS)
    if request.sidecar:
        check_writable(sidecar_of(request.output))
    if len({Path(path).resolve() for path in outputs}) < len(outputs):
        raise UserError(f"{outputs[0]}: of --output, --save-structure and --save-mask two are the same file")
    check_provenance(request)
    telling = Telling.of(request)
    pipeline = pipeline or open_pipeline(request)
    upscaler = upscaler or open_upscaler(request, pipeline)
    settings = request.settings.of(pipeline.config)
    content, background = telling.encoded(pipeline, settings)

    in_one_piece = request.is_masked or request.keyframes or settings.keyframe_stride > 1
    in_one_piece = in_one_piece or settings.inverted_noise or settings.propagate or request.upscaler is not None
    source = read_source(
        request.video,
        pipeline,
        request.limits,
        progress,
        part=request.part,
        size=request.size,
        longest=None if in_one_piece else max(LONGEST, pipeline.config.num_frames),
        upscale=request.upscale if request.enlarges else 1,
    )
    settings.check_frames(len(source.times), pipeline.config.num_frames)
    content = telling.with_source(content, pipeline, source)
    if len(source.times) > 1:
        for path in filter(is_picture, outputs):
            raise UserError(
                f"{path}: a picture holds one frame, not {len(source.times)}; name a video or give --frames 1"
            )
    record = make_record(request, settings, pipeline.source, None if upscaler is None else upscaler.source)
    with contextlib.ExitStack() as held:
        job = FileEdit(request, settings, pipeline, upscaler, source, progress)
        if isinstance(source.frames, FrameStream):
            work = held.enter_context(work_of(request, record, len(source.frames), pipeline.latent_size(source.frames)))
            structures, edited, mask = job.swept(content, work)
        else:
            made = job.at_once(content, background)
            structures, mask = made.structures, made.mask
            edited = job.over_source(made, small=request.compare)
        if request.save_structure is not None:
            views = (side_by_side(list(pictures)) for pictures in zip(*structures.values(), strict=True))
            write_frames(request.save_structure, views, source, request, audio=False)
        if request.save_mask is not None:
            write_mask(request.save_mask, mask, source, dataclasses.replace(request, compare=False))
        if request.compare:
            edited = compare_frames(source, structures, edited)
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
        "contents": list(map(str, request.contents)) or None,
        "mask": None if request.mask is None else str(request.mask),
        "background": request.background,
        "upscale": request.upscale,
        "upscaler": None if upscaler is None else upscaler.source.name,
        **dataclasses.asdict(settings),
        "unknown_words": unknown_words(request.prompt or "", getattr(pipeline.source, "words", None)),
        "seconds": round(time.perf_counter() - began, 3),
    }


class Edited(NamedTuple):
    """What was made of a clip that is held in memory.

    Attributes:
        structures: pictures of what the model saw, by kind.
        regions: that were edited.
        edits: frames of each of them, as they are decoded.
        mask: what could change; None is all of it.
    """

    structures: Mapping[str, Any]
    regions: Sequence[Region]
    edits: Sequence[Iterator[np.ndarray]]
    mask: MaskClip | None


@dataclasses.dataclass(frozen=True)
class FileEdit:
    """An edit of what was read.

    Attributes:
        request: what is asked for.
        settings: with the model's own numbers filled in.
        pipeline: the model.
        upscaler: what enlarges what it makes; None for nothing.
        source: the clip.
        progress: called with the stage, units done, units in all.
    """

    request: EditRequest
    settings: EditSettings
    pipeline: Gen1Pipeline
    upscaler: Gen1Pipeline | None
    source: Source
    progress: Progress

    def swept(self, content: Conditions, work: Work) -> tuple[Mapping[str, Any], Iterator, None]:
        """Of a clip that is too long to be held: structures, frames, and no mask."""
        edit = LongEdit(self.pipeline, self.settings, content, self.source.frames, work, self.progress)
        structures = edit.read_structure(self._ready)
        edit.sample()
        return structures, self._enlarged(edit.decoded()), None

    def at_once(
        self,
        content: Conditions | None,
        background: Conditions | None,
        watch: Watch | None = None,
        estimated: Maps | None = None,
    ) -> Edited:
        """Of all frames together.

        Args:
            content: what the mask's inside is told.
            background: what all else is.
            watch: called after each step with the latents under way.
            estimated: maps that were estimated before, which take in those that are now.
        """
        pipeline, settings, progress, frames = self.pipeline, self.settings, self.progress, self.source.frames
        pictures = keyframe_pictures(self.request.keyframes, geometry_of(self.request, self.source))
        known = read_known(pipeline, pictures, len(frames), frames.shape[1:3])
        ready = self._ready()
        estimated = {} if estimated is None else estimated
        estimated |= {kind: x for kind, x in ready.items() if kind == "depth"}
        maps = pipeline.read_structure(frames, settings, ready, progress, estimated)
        mask = mask_of(pipeline, self.request, self.source, maps, settings, progress, estimated, content)
        regions = regions_of(content, background, mask)
        latents = sample_regions(pipeline, regions, maps, settings, progress, watch, frames=frames, given=known)
        edits = [self._enlarged(pipeline.decode(each, progress)) for each in latents]
        return Edited(pipeline.pictures_of(maps), regions, edits, mask)

    def over_source(self, made: Edited, *, small: bool = False) -> Iterator[np.ndarray]:
        """The frames as they are written, or `small` ones; see `masks.of_files.over_source`."""
        feather = self.settings.mask_feather
        return over_source(self.request, self.source, made.regions, made.edits, feather, small=small)

    def _enlarged(self, edited: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Decoded frames as large as they are to be, where something is enlarged."""
        request, source = self.request, self.source
        if self.upscaler is not None:
            how = dict(scale=request.upscale, noise_level=request.noise_level, match_colour=request.match_colour)
            how |= dict(seed=self.settings.seed, shift_windows=self.settings.shift_windows)
            edited = np.stack([*edited])
            yield from self.upscaler.upscale(edited, **how, progress=self.progress).frames
        elif (enlargement := source.fit.enlargement) is not None:
            config, level = self.pipeline.config, self.settings.structure_blur
            spoiled = spoiled_by(config, level, match_colour=request.match_colour)
            yield from enlargement.finished(edited, source.frames, source.fit.size, spoiled=spoiled)
        else:
            yield from edited

    def _ready(self) -> Maps:
        """The maps of `structure_from`, by kind."""
        source, config, ready = self.source, self.pipeline.config, {}
        geometry = geometry_of(self.request, source)
        for name, path in self.request.structure_from:
            kind = config.structure_kind(name or next((use.kind for use in self.settings.structures), "depth"))
            if kind.name in ready:
                raise UserError(f"--structure-from: two files for {kind.name}")
            ready[kind.name] = ready_maps(path, kind, len(source.frames), source.frames.shape[1:3], geometry)
        return ready


def open_pipeline(request: EditRequest) -> Gen1Pipeline:
    """The model of a request, with its LoRA files."""
    model = with_loras(open_trained(request.model), request.loras)
    return Gen1Pipeline(model, mesh=request.mesh, low_memory=request.low_memory)


def open_upscaler(request: EditRequest, pipeline: Gen1Pipeline) -> Gen1Pipeline | None:
    """The model that enlarges what `pipeline` makes; None where there is none, or that one enlarges.

    Raises:
        UserError: the one that is to enlarge does not, or not by the scale that is asked for.
    """
    if request.upscale == 1:
        return None
    upscaler = pipeline
    if request.upscaler is not None:
        upscaler = Gen1Pipeline(open_trained(request.upscaler), low_memory=request.low_memory)
    check_upscales(upscaler.config, upscaler.source.name, request.upscale)
    return None if request.enlarges else upscaler
