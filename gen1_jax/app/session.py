"""Everything that the page can do, without the page."""

import contextlib
import dataclasses
import filecmp
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from gen1_jax.app.clips import ClipCache
from gen1_jax.app.command_text import command_text, with_names
from gen1_jax.app.jobs import EditFiles, EditJob, EditQueue
from gen1_jax.app.models import ServedModels
from gen1_jax.editing.contents import ContentUse
from gen1_jax.editing.files import FileEdit
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.provenance import signature_line
from gen1_jax.editing.record import make_record
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.telling import Telling
from gen1_jax.editing.upscale_clip import NOISE_LEVEL, upscale_settings
from gen1_jax.editing.writing import compare_frames, write_frames
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, Part, VideoWriter, open_video, read_image, side_by_side

DEMO_CLIP = Path(__file__).parents[1] / "assets" / "demo.mp4"
_PREVIEWS = 10  # of the running latents in an edit
_KEPT = 8  # edits on disk


@dataclasses.dataclass(frozen=True, kw_only=True)
class AppOptions:
    """What `gen1 app` serves.

    Attributes:
        model: name of a model that ships, a model folder, or a training workdir.
        upscaler: likewise of one that enlarges edits and clips; None for none.
        max_upload_mb: MB (2**20 bytes) of an uploaded file at most.
        max_frames: frames of an edit at most.
        provenance: sign the edits.
        credentials: PEM files of the certificates and the key to sign with; None for an identity of this user.
    """

    model: str = "nano"
    upscaler: str | None = None
    max_upload_mb: int = 64
    max_frames: int = 64
    provenance: bool = True
    credentials: tuple[str | Path, str | Path] | None = None

    def __post_init__(self):
        for name in ("max_upload_mb", "max_frames"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")


class EditSession:
    """A model and the visitors who share it. A context manager, whose files are gone when it ends.

    Args:
        options: what to serve.

    Attributes:
        models: what it shares.
        pipeline: the one of them that edits.
        folder: temporary, for all that is written.
        signed: what is said of the signature of an edit, or None.
        defaults: settings of an edit, the model's own among them.

    Raises:
        FolderError, LayoutError, CheckpointError: there is no such model, or it is damaged.
        UserError: the credentials cannot sign, or a model cannot do what it is there for.
    """

    def __init__(self, options: AppOptions):
        self.options = options
        self.limits = Limits(max_bytes=options.max_upload_mb * 2**20, max_frames=options.max_frames)
        self.signed = signature_line(options.provenance, options.credentials)
        self.models = ServedModels.opened(options.model, options.upscaler)
        self.pipeline = self.models.editor
        self.defaults = EditSettings().of(self.pipeline.config)
        self._clips = self._small = ClipCache(self.pipeline, self.limits)
        if self.models.upscaler is not None:  # what is enlarged is held large
            self._small = ClipCache(self.models.upscaler, self.limits, upscale=self.models.scale, kept=1)
        self._queue = EditQueue(self._edit)
        self._numbers = itertools.count()
        self._temporary = tempfile.TemporaryDirectory(prefix="gen1_app_")
        self.folder = Path(self._temporary.name)

    def __enter__(self) -> "EditSession":
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.close()
        self._temporary.cleanup()

    def structure(
        self,
        video: str | None,
        structure_blur: int,
        frames: int,
        *,
        structure: str | None = None,
        mask: str | None = None,
        start: int = 0,
        stride: int = 1,
    ) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
        """The middle frame beside its structures at t_s, and a description of the clip. Nothing is sampled.

        What lies outside of a mask is dark in the frame.

        Raises:
            ValueError: no clip, or one that cannot be read (`MediaError`); the file is called by its own name.
        """
        settings = EditSettings(structure=structure, structure_blur=structure_blur)
        with _named(video):
            clip = self._clips(_chosen(video), Part(start=start, frames=frames, stride=stride), settings)
            seen = None if mask is None else self._clips.mask(clip, mask, settings, self.limits)
        return self._clips.structure(clip, settings, seen), clip.description

    def small(self, video: str | None, noise_level: int, **part: int) -> tuple[UInt8[np.ndarray, "h w 3"], str]:
        """The same of a clip that the upscaler is to enlarge: what it is told of the middle frame.

        Raises:
            ValueError: see `structure`.
        """
        settings = upscale_settings(noise_level)
        with _named(video):
            clip = self._small(_chosen(video), Part(**part), settings)
        return self._small.structure(clip, settings), clip.description

    def structure_video(
        self, video: str | None, settings: EditSettings, *, mask: str | None = None, **part: int
    ) -> Path:
        """A video of the structures that settings follow, side by side, of the clip's size; black outside of a mask.

        Raises:
            ValueError: see `structure`.
        """
        with _named(video):
            clip = self._clips(_chosen(video), Part(**part), settings)
            seen = None if mask is None else self._clips.mask(clip, mask, settings, self.limits)
        source = clip.source
        width, height = source.info.square_size
        views = map(side_by_side, zip(*self._clips.structures(clip, settings, seen, (height, width)), strict=True))
        path = self._new_folder() / f"{Path(_chosen(video)).stem[:60]}_structure.mp4"
        first = next(views)
        rate = source.info.frame_rate / clip.part.stride
        with VideoWriter(path, width=first.shape[1], height=first.shape[0], frame_rate=rate) as writer:
            for frame, time in zip(itertools.chain([first], views), source.times, strict=True):
                writer.write(frame, time)
        return path

    def label(self, what: str) -> str:
        """Of a field for a file."""
        return f"{what}, at most {self.options.max_upload_mb} MB"

    def picture(self, image: str | None) -> UInt8[np.ndarray, "h w 3"]:
        """The picture that gives the content.

        Raises:
            MediaError: it cannot be read.
        """
        with _named(image):
            return read_image(image, self.limits)

    def request(
        self,
        video: str | None,
        *,
        prompt: str | None,
        image: str | Sequence[str] | None,
        frames: int,
        settings: EditSettings,
        contents: Sequence[ContentUse] = (),
        negative_prompt: str | None = None,
        mask: str | None = None,
        background: str | None = None,
        keyframes: Sequence[tuple[int, str | Path]] = (),
        enlarged: bool = False,
        noise_level: int = NOISE_LEVEL,
        match_colour: bool = True,
        start: int = 0,
        stride: int = 1,
    ) -> EditRequest:
        """What an edit of a clip is to be.

        Raises:
            ValueError: there is no clip, or neither prompt nor image.
        """
        larger = dict(upscale=self.models.checked_scale, upscaler=self.options.upscaler) if enlarged else {}
        return EditRequest(
            **self._asked(video, "edit"),
            prompt=prompt,
            negative_prompt=negative_prompt,
            image=image,
            contents=tuple(contents),
            mask=mask,
            background=background,
            keyframes=tuple(keyframes),
            model=self.options.model,
            settings=settings,
            start=start,
            frames=frames,
            stride=stride,
            noise_level=noise_level,
            match_colour=match_colour,
            **larger,
        )

    def enlarging(
        self,
        video: str | None,
        *,
        noise_level: int = NOISE_LEVEL,
        match_colour: bool = True,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        start: int = 0,
        frames: int | None = None,
        stride: int = 1,
        **numbers: Any,
    ) -> EditRequest:
        """How a clip is to be enlarged that is not edited; `numbers` are others of `upscale_settings`.

        Raises:
            ValueError: there is no clip, or nothing that enlarges it.
        """
        return EditRequest(
            upscale=self.models.checked_scale,
            **self._asked(video, "large"),
            prompt=prompt,
            negative_prompt=negative_prompt,
            model=self.options.upscaler,
            settings=upscale_settings(noise_level, **numbers),
            match_colour=match_colour,
            start=start,
            frames=frames,
            stride=stride,
        )

    def _asked(self, video: str | None, what: str) -> dict[str, Any]:
        """What all requests have."""
        clip = Path(_chosen(video))
        output = f"{os.fsencode(clip.stem)[:200].decode(errors='ignore')}_{what}.mp4"  # names have 255 bytes at most
        options = self.options
        signed = dict(provenance=options.provenance, credentials=options.credentials)
        return dict(video=clip, output=output, limits=self.limits, **signed)

    def structures(self, request: EditRequest) -> tuple[str, ...]:
        """The kinds of structure that a request follows, in the order in which they are shown."""
        return tuple(use.kind for use in request.settings.of(self.models.of(request).config).structures)

    def command(self, request: EditRequest) -> str:
        """The command of a request, for a folder in which uploaded files lie by their names."""
        at = DEMO_CLIP if _is_demo(request.video) else Path(request.video).name
        return command_text(with_names(request, at), self.models.unsaid(request))

    def submit(self, request: EditRequest, visitor: object) -> EditJob:
        """Queue an edit; what the visitor had in the queue is cancelled.

        Raises:
            ValueError: the queue is full.
        """
        return self._queue.submit(request, visitor)

    def before_and_after(
        self, request: EditRequest, files: EditFiles, number: int
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
        """A frame of the input and what has become of it, of one size and with square pixels.

        Args:
            request: an edit that is done.
            files: what it wrote.
            number: of the frame of the edit, counted from 0.

        Raises:
            MediaError: a file is not there any more.
        """
        at = request.start + number * request.stride
        with _named(request.video), _named(files.edit):
            before, after = self._frame(request.video, at), self._frame(files.edit, number)
        return resize(before, after.shape[:2]), after

    def frame(self, video: str | None, number: int) -> UInt8[np.ndarray, "h w 3"]:
        """A frame of a clip, with square pixels.

        Raises:
            ValueError: there is none.
        """
        with _named(video):
            return self._frame(_chosen(video), number)

    def _frame(self, video: str | Path, number: int) -> UInt8[np.ndarray, "h w 3"]:
        with open_video(video, limits=self.limits, start=number, frames=1) as reader:
            return resize(next(iter(reader)).rgb, reader.info.square_size[::-1])

    def cancel(self, visitor: object) -> None:
        """Cancel the edit of a visitor: the device is free after the step that it is at."""
        self._queue.cancel(visitor)

    def _edit(self, job: EditJob, request: EditRequest) -> EditFiles:
        """What `edit_file` does, with the clip's depth from memory and with pictures on the way."""
        pipeline, clips = self.models.of(request), self._small if request.enlarges else self._clips
        upscaler = self.models.upscaler if request.upscaler is not None else None
        settings = request.settings.of(pipeline.config)

        def show(done: int, total: int, latents) -> None:
            if done % max(1, total // _PREVIEWS) == 0 and done < total:
                middle = latents.shape[1] // 2
                job.update(picture=next(pipeline.decode(latents[:, middle : middle + 1])))

        with contextlib.ExitStack() as named:
            for path in request.inputs:
                named.enter_context(_named(path))
            telling = Telling.of(request)
            clip = clips(request.video, request.part, settings, job.report)
            job.report("content", 0, 1)
            content, background = telling.encoded(pipeline, settings)
            content = telling.with_source(content, pipeline, clip.source)
            editing = FileEdit(request, settings, pipeline, upscaler, clip.source, job.report)
            made = editing.at_once(content, background, show, clip.estimated)
            edits = [list(frames) for frames in made.edits]
            over = lambda small: editing.over_source(made._replace(edits=[*map(iter, edits)]), small=small)
            compared = compare_frames(clip.source, made.structures, over(True))
            folder = self._new_folder()
            files = EditFiles(
                edit=folder / request.output, comparison=folder / "comparison.mp4", frames=len(clip.source.times)
            )
            record = make_record(request, settings, pipeline.source, upscaler and upscaler.source)
            write_frames(files.edit, over(False), clip.source, request, audio=True, record=record)
            write_frames(
                files.comparison, compared, clip.source, dataclasses.replace(request, compare=True), audio=True
            )
        return files

    def _new_folder(self) -> Path:
        """For the files of one edit; those of the oldest one go."""
        number = next(self._numbers)
        shutil.rmtree(self.folder / f"edit_{number - _KEPT}", ignore_errors=True)
        folder = self.folder / f"edit_{number}"
        folder.mkdir()
        return folder


def _is_demo(video: str | Path) -> bool:
    """Whether it is the demo clip, or the copy of it that the page serves."""
    path = Path(video)
    return path.name == DEMO_CLIP.name and path.exists() and filecmp.cmp(path, DEMO_CLIP, shallow=False)


def _chosen(video: str | None) -> str:
    if not video:
        raise UserError("choose a clip first")
    return video


@contextlib.contextmanager
def _named(path: str | Path | None) -> Iterator[None]:
    """Errors about a file of a temporary folder call it by its own name."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(f"{path}", Path(path).name) if path else str(error)) from error
