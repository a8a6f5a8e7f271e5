"""One job divided among processes of this machine, with one progress; and among threads, in order."""

import collections
import dataclasses
import functools
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import jax

from gen1_jax.data.dataset import WriteSummary
from gen1_jax.errors import Failure, UserError

S, T = TypeVar("S"), TypeVar("T")
Job = Callable[..., WriteSummary]
"""Called with `process_index`, `process_count` and `progress`, as `write_dataset` is."""

_POLL_SECONDS = 0.2
_UNKNOWN = -1


def run_job(
    job: Job,
    *,
    processes: int = 1,
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> WriteSummary:
    """Runs this machine's share of `job`, itself divided among `processes` processes.

    Args:
        job: must be picklable if `processes` is more than 1.
        processes: of this machine; 1 runs the job in this process.
        process_index: of this machine, among all machines that run the job.
        process_count: how many machines there are; each has the same number of processes.
        progress: called with the sums of what the processes report.

    Raises:
        RuntimeError: a process was killed; running again continues.
        ValueError: numbers out of range, or from the job.
    """
    if processes < 1 or not 0 <= process_index < process_count:
        raise UserError(f"{processes} processes, process {process_index} of {process_count}: out of range")
    if processes == 1:
        return job(process_index=process_index, process_count=process_count, progress=progress)
    context = multiprocessing.get_context("spawn")  # forking a process that has threads, as JAX has, hangs
    counters = context.Array("q", [0, _UNKNOWN] * processes)  # done and total of each process
    settings = {name: getattr(jax.config, name) for name in _INHERITED}
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, context, _start, (counters, settings)) as pool:
        futures = {
            pool.submit(_run, job, local, process_index * processes + local, process_count * processes)
            for local in range(processes)
        }
        try:
            while (states := wait(futures, _POLL_SECONDS, "FIRST_EXCEPTION")).not_done:
                if progress and _UNKNOWN not in counters[1::2]:
                    progress(sum(counters[::2]), sum(counters[1::2]))
                for future in states.done:
                    future.result()
            summaries = [future.result() for future in futures]
            if progress:
                progress(sum(counters[::2]), sum(counters[1::2]))
            return functools.reduce(_sum, summaries)
        except BrokenProcessPool:
            raise Failure("a worker process was killed, perhaps for want of memory; run again to go on") from None
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def map_ahead(pool: Executor, function: Callable[[S], T], items: Iterable[S], *, ahead: int) -> Iterator[T]:
    """Like `pool.map`, but only `ahead` items are taken before their turn, so that items may be many and large."""
    pending: collections.deque[Future[T]] = collections.deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


_INHERITED = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
_counters: Any = None


def _start(counters: Any, settings: dict[str, Any]) -> None:
    global _counters
    _counters = counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    for name, value in settings.items():
        jax.config.update(name, value)


def _run(job: Job, local: int, process_index: int, process_count: int) -> WriteSummary:
    def progress(done: int, total: int) -> None:
        _counters[2 * local], _counters[2 * local + 1] = done, total

    return job(process_index=process_index, process_count=process_count, progress=progress)


def _sum(one: WriteSummary, other: WriteSummary) -> WriteSummary:
    return dataclasses.replace(
        one,
        written=one.written + other.written,
        kept=one.kept + other.kept,
        examples=one.examples + other.examples,
        complete=one.complete or other.complete,
    )


class ProgressLine:
    """Draws a bar where a person looks, and a line every half minute where nobody does; a context manager.

    Args:
        label: what is done.
        unit: of the pace.
        units: how many of these one step is, say frames of a clip.
    """

    def __init__(self, label: str, unit: str, units: int = 1, *, enabled: bool = True) -> None:
        self._label, self._unit, self._units, self._enabled = label, unit, units, enabled
        self._start: tuple[float, int] | None = None  # when work began, after what had been done before
        self._counted = unit
        self._told = time.monotonic()
        self._bar = self._task = None

    def __enter__(self) -> "ProgressLine":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        if self._enabled and self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
            text = TextColumn("{task.description}")
            self._bar = Progress(text, *columns, TextColumn("{task.fields[pace]}"), console=self._console)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=None, pace="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, line: str) -> None:
        """A line that stays, above the bar."""
        if self._enabled:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __call__(self, done: int, total: int, note: str = "", unit: str = "") -> None:
        """How far it is; `unit` where something else is counted for a while, which has a pace of its own."""
        now, unit = time.monotonic(), unit or self._unit
        if self._start is None or self._counted != unit or done < self._start[1]:
            self._start, self._counted = (now, done), unit
        text = pace((done - self._start[1]) * self._units, now - self._start[0], unit)
        text = "  ".join(filter(None, (text, note)))
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, pace=text)
        elif self._enabled and now - self._told > 30:
            self._told = now
            self._console.print(f"{self._label}: {done} of {total} {text}".rstrip(), highlight=False)


def pace(steps: int | float, seconds: int | float, unit: str) -> str:
    """Steps in a second, a minute or an hour, whichever can be read; nothing where there is no pace yet."""
    if not (steps > 0 and seconds > 0):
        return ""
    each = steps / seconds
    for name, length in (("s", 1), ("min", 60), ("h", 3600)):
        if 0.1 <= each * length < math.inf:
            return f"{each * length:,.1f} {unit}/{name}"
    return ""
