"""Progress of an edit, and on stderr: bars where a person looks, lines where nobody does."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from gen1_jax.editing.structures import Progress

_LABELS = {
    "reading": "read frames",
    "depth": "estimate depth",
    "structure": "encode structure",
    "mask": "find the mask",
    "compiling": "compile",
    "sampling": "sample",
    "decoding": "decode and write",
}


_SECONDS = 5.0  # between two lines


class _Lines:
    """What is done, now and then: a job's log should tell work from a hang, and not be a bar's debris."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        label, now = _LABELS.get(stage, stage), time.monotonic()
        if stage == "compiling":
            if done < total:
                self._told = now
                print(f"{label} ...", file=sys.stderr, flush=True)
        elif now - self._told >= _SECONDS:
            self._told = now
            print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress_bars(enabled: bool = True) -> Iterator[Progress]:
    """A callback that draws one bar for each stage, or without a terminal writes a line every few seconds."""
    if not enabled:
        yield lambda stage, done, total: None
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        TextColumn("{task.description:18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[pace]}"),
        console=Console(stderr=True),
    )
    tasks = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(_LABELS.get(stage, stage), total=total, pace="")
        task = bars.tasks[tasks[stage]]
        pace = f"{1000 / task.speed:.0f} ms a step" if stage == "sampling" and task.speed else ""
        bars.update(tasks[stage], completed=done, total=total, pace=pace)

    with bars:
        yield report


def sampling_reporter(progress: Progress, compiling: Sequence[int]) -> Callable[[int, int], None]:
    """Reports steps of the sampler; to compile, as some of them do first, is a stage of its own."""
    if 0 in compiling:
        progress("compiling", 0, 1)

    def report(done: int, total: int) -> None:
        if done - 1 in compiling:
            progress("compiling", 1, 1)
        progress("sampling", done, total)
        if done in compiling:
            progress("compiling", 0, 1)

    return report
