"""Many videos into one data set of clips: what `gen1 prepare` does.

videos ──► list ──► prepare_video in a process pool, or in Beam ──► spool ──► OUT/clips-SPLIT.array_record-*
                      (a bad file, a crash, a hang: quarantine)       └─────► OUT/videos_SPLIT.jsonl, quarantine.jsonl
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gen1_jax.data.dataset import CLIP_FEATURES, Example, open_dataset, read_recipe, write_dataset
from gen1_jax.data.prepare import NO_LIMIT, PreparedClip, PrepareOptions, prepare_video
from gen1_jax.data.prepare_listing import VideoEntry, list_videos
from gen1_jax.data.prepare_pool import Lost, run_isolated
from gen1_jax.data.prepare_report import QUARANTINE, PrepareSummary, is_reported, summarise, write_report
from gen1_jax.data.prepare_spool import (
    Outcome,
    PrepareFunction,
    SpoolTask,
    is_finished,
    read_clips,
    read_outcome,
    save_error,
)
from gen1_jax.data.storage import local_folder
from gen1_jax.errors import UserError, counted
from gen1_jax.files import write_text
from gen1_jax.media.errors import shown

Progress = Callable[[int, int], None]
"""Called with how many videos are done, and how many there are."""

_NAME = "clips"  # of the data set
_SHARD_BYTES = 256 * 2**20  # of a shard, about, unless their number is given
_RUNNERS = ("local", "beam")
_MAX_FRAMES_BEFORE = 20_000  # of a video, where none was given, before there was no limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareRequest:
    """What `gen1 prepare` is asked for.

    Args:
        videos: a folder, a pattern or a CSV file (see `list_videos`).
        out: folder of the data set; other splits of it may be there already.
        captions: a CSV file.
        options: what a clip is.
        split: name of the split.
        shards: files of the split; None for one in 256 MiB.
        runner: "local", processes of this machine, or "beam", an Apache Beam pipeline. The bytes are the same.
        workers: processes of the local runner; None for one a core.
        timeout: seconds without a further frame after which a video is taken for one that hangs.
        beam_options: arguments of the pipeline, such as "--runner=FlinkRunner".

    Raises:
        ValueError: a value out of its range.
    """

    videos: str
    out: str
    captions: str | None = None
    options: PrepareOptions = PrepareOptions()
    split: str = "train"
    shards: int | None = None
    runner: str = "local"
    workers: int | None = None
    timeout: float | int = 1800
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.runner not in _RUNNERS:
            raise UserError(f"runner must be one of {', '.join(_RUNNERS)}, not {self.runner!r}.")
        if not (self.split.isascii() and self.split.isidentifier()):
            raise UserError(f"split must be letters, digits and underscores, not {self.split!r}.")
        for name in ("shards", "workers", "timeout"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"{name} must be positive, not {value}.")


def prepare_dataset(
    request: PrepareRequest,
    progress: Progress | None = None,
    *,
    prepare: PrepareFunction = prepare_video,
    videos: Sequence[VideoEntry] | None = None,
) -> PrepareSummary:
    """Makes a split of clips (`CLIP_FEATURES`) of all videos; called again after any interruption, it goes on.

    The same videos, captions and options give the same bytes, whatever the runner and the number of workers.

    Args:
        request: what is asked for.
        progress: called with how many videos are done, and how many there are.
        prepare: what is done with each video; picklable.
        videos: what `list_videos` gave for the request, if that was asked before.

    Raises:
        ValueError: nothing to prepare, not one usable clip, or a folder that was begun with something else.
        OSError: the output cannot be written.
    """
    began = time.monotonic()
    entries = list_videos(request.videos, request.captions) if videos is None else videos
    recipe = _recipe(request, entries)
    out = local_folder(request.out)
    spool = out / f".prepare_{request.split}"
    prepared = 0
    with _alone(out):
        if not _is_whole(out, request.split, recipe):
            _claim(spool, recipe)
            task = SpoolTask(folder=spool, options=request.options, prepare=prepare)
            prepared = _fill(task, entries, request, progress)
            outcomes = [read_outcome(spool, index) for index in range(len(entries))]
            write_report(out, request.split, entries, outcomes)
            _write(out, spool, entries, outcomes, request, recipe)
        shutil.rmtree(spool, ignore_errors=True)
        return summarise(out, request.split, prepared=prepared, seconds=time.monotonic() - began)


def _recipe(request: PrepareRequest, entries: Sequence[VideoEntry]) -> dict[str, Any]:
    """What decides the bytes of the split."""
    digest = hashlib.sha256()
    for entry in entries:
        size = entry.path.stat().st_size if entry.path.is_file() else None
        digest.update(json.dumps([entry.source, entry.caption, size]).encode())
    videos = f"{len(entries)} files of names, sizes and captions {digest.hexdigest()[:16]}"
    recipe = {"videos": videos, "shards": request.shards, **dataclasses.asdict(request.options)}
    del recipe["limits"]["options"]  # which is about messages
    if not request.options.include_opted_out:
        del recipe["include_opted_out"]  # so that sets of before, when nobody was asked, go on
    return json.loads(json.dumps(recipe))  # as it will be read


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Two runs must not work at one folder. The lock on it ends with the process, however that ends."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that has no locks does without
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{shown(out)}: another gen1 prepare is at work there; wait for it.") from None
        yield
    finally:
        os.close(folder)


def _is_whole(out: Path, split: str, recipe: dict[str, Any]) -> bool:
    """Whether the split is there already, in all its parts; ValueError if the folder is not for these clips."""
    for path in out.glob("recipe_*.json"):
        if (name := json.loads(path.read_text())["name"]) != _NAME:
            raise UserError(f"{shown(out)}: holds another data set ({name!r}); choose another folder.")
    try:
        made = read_recipe(out, split)
    except ValueError:
        return False
    _check_same(out, split, made, recipe)
    try:
        open_dataset(out, split)
    except ValueError:
        return False
    return is_reported(out, split)


def _claim(spool: Path, recipe: dict[str, Any]) -> None:
    """Begins a spool, or goes on with one that was begun with the same recipe."""
    path = spool / "recipe.json"
    if path.exists():
        _check_same(spool.parent, spool.name.removeprefix(".prepare_"), json.loads(path.read_text()), recipe)
    else:
        spool.mkdir(exist_ok=True)
        write_text(path, json.dumps(recipe))


def _check_same(out: Path, split: str, made: dict[str, Any], recipe: dict[str, Any]) -> None:
    made, limits = dict(made), made.get("limits")
    if limits and limits["max_frames"] == _MAX_FRAMES_BEFORE and recipe["limits"]["max_frames"] == NO_LIMIT:
        made["limits"] = {**limits, "max_frames": NO_LIMIT}
    for name in sorted(made.keys() | recipe.keys()):
        if made.get(name) != recipe.get(name):
            raise UserError(
                f"{shown(out)}: split {split!r} was begun with other {name} ({made.get(name)}, not"
                f" {recipe.get(name)}); choose another folder or split, or remove this folder."
            )


def _fill(task: SpoolTask, entries: Sequence[VideoEntry], request: PrepareRequest, progress: Progress | None) -> int:
    """Prepares the videos that the spool lacks; how many these were."""
    missing = [(index, entry.path) for index, entry in enumerate(entries) if not is_finished(task.folder, index)]
    if request.runner == "beam":
        from gen1_jax.data.prepare_beam import run_beam

        run_beam(task, missing, timeout=float(request.timeout), arguments=request.beam_options)
        return len(missing)
    done = len(entries) - len(missing)
    if progress:
        progress(done, len(entries))
    workers = request.workers or os.cpu_count() or 1
    for (index, _), result in run_isolated(task, missing, workers=workers, timeout=float(request.timeout)):
        if isinstance(result, Lost):
            save_error(task.folder, index, result)
        done += 1
        if progress:
            progress(done, len(entries))
    return len(missing)


def _write(
    out: Path,
    spool: Path,
    entries: Sequence[VideoEntry],
    outcomes: Sequence[Outcome],
    request: PrepareRequest,
    recipe: dict[str, Any],
) -> None:
    """The data set, from the spool: shards of equally many clips, in the order of the videos."""
    total = sum(outcome.clips for outcome in outcomes)
    if not total:
        reasons = Counter(reason for outcome in outcomes for reason in outcome.rejected)
        why = [*reasons, *([f"see {QUARANTINE}"] if any(outcome.error for outcome in outcomes) else [])]
        raise UserError(f"{shown(out)}: not one usable clip in {counted(len(entries), 'video')} ({', '.join(why)}).")
    shards = request.shards or -(-sum(outcome.size for outcome in outcomes) // _SHARD_BYTES)
    write_dataset(
        out,
        name=_NAME,
        split=request.split,
        features=CLIP_FEATURES,
        num_shards=shards,
        examples=lambda shard: _examples(
            spool, entries, outcomes, range(total * shard // shards, total * (shard + 1) // shards)
        ),
        info=recipe,
    )


def _examples(
    spool: Path, entries: Sequence[VideoEntry], outcomes: Sequence[Outcome], wanted: range
) -> Iterator[Example]:
    """The clips of these numbers, counted over all videos."""
    number = 0
    for index, (entry, outcome) in enumerate(zip(entries, outcomes, strict=True)):
        if number < wanted.stop and number + outcome.clips > wanted.start:
            for own, clip in enumerate(read_clips(spool, index), number):
                if own in wanted:
                    yield _example(entry, clip)
        number += outcome.clips


def _example(entry: VideoEntry, clip: PreparedClip) -> Example:
    return {
        "id": f"{entry.source}#{clip.start:06d}",
        "video": clip.video,
        "caption": entry.caption,
        "frame_rate": clip.frame_rate,
        "source": entry.source,
        "frames": clip.frames,
        "height": clip.height,
        "width": clip.width,
    }
