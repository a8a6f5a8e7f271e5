"""Processes that may crash or hang: what is done in one of them can never harm the run.

items ──► idle worker ──begun, getting on──► deadline ──done──► (item, value)
                                               ├ process gone ──────► again in a fresh process, then (item, Lost)
                                               └ deadline passed ───► killed, (item, Lost)
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import Any

from gen1_jax.errors import Failure

_SILENCE = 1.0  # seconds between two words of a child

# Not forked: a child of a process with threads (XLA's, gRPC's) may inherit a lock that nobody will open.
_SPAWN = multiprocessing.get_context("spawn")


class Lost(str):
    """Why an item has no result: its process crashed or hung."""


class Worker:
    """A child process that calls `function(item)`, one item at a time, and is replaced when it fails.

    Args:
        function: picklable; what it returns must be small.
        timeout: seconds for an item, from when it was begun or last told of by `getting_on`.
    """

    def __init__(self, function: Callable[[Any], Any], timeout: float) -> None:
        self._function, self._timeout = function, timeout
        self._process: multiprocessing.process.BaseProcess | None = None
        self._served = 0  # items begun by the present process
        self.item: Any = None
        self.busy = False

    def start(self, item: Any) -> None:
        """Hands over an item."""
        self.item, self.busy = item, True
        if self._process is None:
            self.connection, theirs = _SPAWN.Pipe()
            self._process = _SPAWN.Process(target=_serve, args=(theirs, self._function), daemon=True)
            self._process.start()
            theirs.close()  # so that the end of the process is the end of the connection
            self._served = 0
        self._begun, self.deadline = False, float("inf")
        with contextlib.suppress(BrokenPipeError):  # it died while idle: `receive` will see it
            self.connection.send(item)

    def receive(self) -> tuple[Any] | None:
        """What there is to read, to be called when the connection is ready: (result,), or None if there is none yet.

        Raises:
            Exception: what the function raised.
            RuntimeError: the process cannot start.
        """
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            return self._died()
        if kind in ("begun", "getting on"):
            self._begun, self.deadline = True, time.monotonic() + self._timeout
            self._served += kind == "begun"
            return None
        self.busy = False
        if kind == "raised":
            raise value
        return (value,)

    def expire(self) -> Lost:
        """Ends the process, whose deadline has passed."""
        self.close()
        return Lost(f"no result within {self._timeout:g} s; its decoder hangs, or --timeout is too small")

    def call(self, item: Any) -> Any:
        """The function's result, or Lost; waits for it."""
        self.start(item)
        while True:
            wait = self.deadline - time.monotonic()
            if not connection.wait([self.connection], None if wait == float("inf") else max(0, wait)):
                return self.expire()
            if result := self.receive():
                return result[0]

    def close(self) -> None:
        """Ends the process, whatever it is doing."""
        self.busy = False
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.connection.close()
            self._process = None

    def _died(self) -> tuple[Lost] | None:
        self._process.join()
        code, begun, served = self._process.exitcode, self._begun, self._served
        self.close()
        if not begun and not served:
            raise Failure(f"a worker process cannot start (exit code {code})")
        if not begun or served > 1:  # perhaps by what an item before left behind: the same everywhere if it is fresh
            self.start(self.item)
            return None
        return (Lost(f"its decoder crashed ({_cause(code)})"),)


def getting_on() -> None:
    """Called now and then by what does long work in a `Worker`, so that it is not taken for something that hangs."""
    if _parent is not None:
        _parent.tell()


class _Parent:
    """Where a child's word goes, once a second at most."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe, self._told = pipe, 0.0

    def tell(self) -> None:
        if time.monotonic() - self._told >= _SILENCE:
            self._told = time.monotonic()
            with contextlib.suppress(OSError):  # nobody there: `_end_with_parent` sees to that
                self._pipe.send(("getting on", None))


_parent: _Parent | None = None


def run_isolated(
    function: Callable[[Any], Any], items: Sequence[Any], *, workers: int, timeout: float
) -> Iterator[tuple[Any, Any]]:
    """Calls `function` on all items in child processes; yields (item, result) or (item, Lost) as they come.

    An item whose process crashes is tried once more, in a fresh process.

    Args:
        function: picklable; what it returns must be small.
        items: picklable.
        workers: how many processes.
        timeout: seconds for an item, see `Worker`.

    Raises:
        Exception: what the function raised; all processes are ended.
    """
    waiting = deque(items)
    pool = [Worker(function, timeout) for _ in range(min(workers, len(waiting)))]
    try:
        while True:
            for worker in pool:
                if waiting and not worker.busy:
                    worker.start(waiting.popleft())
            busy = [worker for worker in pool if worker.busy]
            if not busy:
                return
            wait = min(worker.deadline for worker in busy) - time.monotonic()
            ready = connection.wait(
                [worker.connection for worker in busy], None if wait == float("inf") else max(0, wait)
            )
            for worker in busy:
                if worker.connection in ready:
                    if result := worker.receive():
                        yield worker.item, result[0]
                elif worker.deadline <= time.monotonic():
                    yield worker.item, worker.expire()
    finally:
        for worker in pool:
            worker.close()


def _serve(pipe: connection.Connection, function: Callable[[Any], Any]) -> None:
    """The child's whole life."""
    global _parent
    _parent = _Parent(pipe)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(("begun", None))
        try:
            message = ("done", function(item))
        except Exception as error:
            message = ("raised", error)
        pipe.send(message)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its children."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
