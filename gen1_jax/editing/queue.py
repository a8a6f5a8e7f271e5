"""Several edits by one model, one after the other; what fails does not stop the others."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gen1_jax.editing.files import edit_file, open_pipeline, open_upscaler
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.structures import Progress
from gen1_jax.errors import UserError
from gen1_jax.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES

Done = Callable[[dict[str, Any]], None]
Failed = Callable[[EditRequest, Exception], None]


def edit_files(requests: Sequence[EditRequest], progress: Progress, done: Done, failed: Failed) -> None:
    """Edits files with the model of the first request, and its upscaler, loaded once.

    Args:
        requests: at least one, all of one model, upscaler and mesh.
        progress: see `edit_file`.
        done: called with the summary of each edit.
        failed: called with each request that could not be carried out, and why.

    Raises:
        UserError: the model is at fault, and so all of them.
    """
    pipeline = open_pipeline(requests[0])
    upscaler = open_upscaler(requests[0], pipeline)
    folders = {Path(path).parent for r in requests for path in (r.output, r.save_structure) if path is not None}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for request in requests:
        try:
            summary = edit_file(request, progress, pipeline, upscaler)
        except Exception as error:  # whatever a file does to a decoder or to memory, the next may be well
            failed(request, error)
        else:
            done(summary)


def outputs_in(folder: str | Path, videos: Sequence[str | Path]) -> list[Path]:
    """A name in a folder for the edit of each video: its own, with a number where two have the same.

    A suffix that cannot be written becomes .mp4.

    Raises:
        UserError: the folder is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; several outputs need a folder")
    taken: set[str] = set()
    outputs = []
    for video in map(Path, videos):
        suffix = video.suffix.lower()
        suffix = suffix if suffix in (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES) and not video.is_dir() else ".mp4"
        stem = video.stem if not video.is_dir() else video.resolve().name
        names = (f"{stem}{suffix}", *(f"{stem}-{n}{suffix}" for n in range(2, len(videos) + 2)))
        name = next(name for name in names if name.lower() not in taken)
        taken.add(name.lower())
        outputs.append(folder / name)
    return outputs
