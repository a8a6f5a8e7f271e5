"""Edits in a queue: one at a time has the device, those that wait know their place, each can be cancelled.

submit ──► waiting ──► running: depth, structure, sampling, decoding ──► done | failed
              └───────────────────┴── cancel ──► cancelled
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gen1_jax.errors import UserError

_HEARTBEAT, _PAUSE = 0.4, 0.1  # seconds
_LONGEST_QUEUE = 16
_FINAL = ("done", "failed", "cancelled")


class EditCancelled(Exception):
    """Raised inside an edit that nobody wants any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditFiles:
    """What an edit has written.

    Attributes:
        edit: the edit, of the size of the input.
        comparison: a video of input, structure and edit side by side.
        frames: how many the edit has.
    """

    edit: Path
    comparison: Path
    frames: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditState:
    """How far an edit is.

    Attributes:
        stage: "waiting", a stage of the pipeline, "done", "failed" or "cancelled".
        done: units of the stage that are done; of "waiting", edits that come before this one.
        total: units in all.
        picture: the latest view of the running latents (h, w, 3), or None.
        files: of an edit that is done.
        message: of one that failed: one line.
    """

    stage: str = "waiting"
    done: int = 0
    total: int = 0
    picture: np.ndarray | None = None
    files: EditFiles | None = None
    message: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing comes after it."""
        return self.stage in _FINAL


class EditJob:
    """One edit, from its submission on: watched by one thread, worked on by another."""

    def __init__(self):
        self._state, self._changed = EditState(), threading.Condition()

    @property
    def state(self) -> EditState:
        """The latest `EditState`."""
        return self._state

    def update(self, **changes: object) -> None:
        """Change the state. A final one stays."""
        with self._changed:
            if not self._state.final:
                self._state = dataclasses.replace(self._state, **changes)
                self._changed.notify_all()

    def cancel(self) -> None:
        """Ends it: at once for who watches, at the next `check` for the device."""
        self.update(stage="cancelled")

    def check(self) -> None:
        """Raises EditCancelled if it has been cancelled."""
        if self._state.stage == "cancelled":
            raise EditCancelled

    def report(self, stage: str, done: int, total: int) -> None:
        """A `Progress` of the pipeline that ends it when the job is cancelled."""
        self.check()
        self.update(stage=stage, done=done, total=total)

    def states(self) -> Iterator[EditState]:
        """The latest state, up to the final one: ten a second at most, two at least."""
        state = None
        while state is None or not state.final:
            with self._changed:
                self._changed.wait_for(lambda seen=state: self._state is not seen, timeout=_HEARTBEAT)
                state = self._state
            yield state
            if not state.final:
                time.sleep(_PAUSE)


class EditQueue:
    """Runs jobs one after the other in a thread of its own.

    Args:
        work: does an edit, and gives its files. ValueError and OSError blame the input.
    """

    def __init__(self, work: Callable[[EditJob, object], EditFiles]):
        self._work, self._lock = work, threading.Lock()
        self._jobs: list[tuple[object, EditJob]] = []  # with their owners, the running one first
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edit")

    def submit(self, request: object, owner: object) -> EditJob:
        """Queue an edit. One that the same owner has in the queue is cancelled.

        Raises:
            ValueError: the queue is full.
        """
        self.cancel(owner)
        job = EditJob()
        with self._lock:
            if sum(not job.state.final for _, job in self._jobs) >= _LONGEST_QUEUE:
                raise UserError(f"{_LONGEST_QUEUE} edits are waiting already: try again later")
            self._jobs.append((owner, job))
            self._announce()
        self._worker.submit(self._run, job, request)
        return job

    def cancel(self, owner: object) -> None:
        """Cancel what an owner has in the queue."""
        with self._lock:
            for other, job in self._jobs:
                if other == owner:
                    job.cancel()
            self._announce()

    def close(self) -> None:
        """Cancel everything, and wait until the device is free."""
        with self._lock:
            for _, job in self._jobs:
                job.cancel()
        self._worker.shutdown(cancel_futures=True)

    def _announce(self) -> None:
        """Tell those that wait how many come before them."""
        alive = [job for _, job in self._jobs if not job.state.final]
        for before, job in enumerate(alive):
            if job.state.stage == "waiting":
                job.update(done=before)

    def _run(self, job: EditJob, request: object) -> None:
        try:
            job.check()
            job.update(stage="done", files=self._work(job, request))
        except EditCancelled:
            pass
        except Exception as error:  # whatever it is, the page goes on
            text = " ".join(str(error).split()) or type(error).__name__
            if not isinstance(error, ValueError | OSError):
                logging.getLogger(__name__).exception("an edit failed")
                text = f"the edit failed, {type(error).__name__}: {text[:300]}"
            job.update(stage="failed", message=text)
        finally:
            with self._lock:
                self._jobs = [(owner, other) for owner, other in self._jobs if other is not job]
                self._announce()
