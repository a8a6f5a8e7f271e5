"""Progress bars of an edit, on stderr and only where a person looks."""

import contextlib
import sys
from collections.abc import Iterator

from gen1_jax.editing.pipeline import Progress

_LABELS = {
    "reading": "read frames",
    "depth": "estimate depth",
    "structure": "encode structure",
    "sampling": "sample",
    "decoding": "decode and write",
}


@contextlib.contextmanager
def progress_bars(enabled: bool = True) -> Iterator[Progress]:
    """A callback that draws one bar for each stage, with the time of a step beside it."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda stage, done, total: None
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
