"""Being told to end: SIGTERM from a scheduler, Ctrl-C from a person. The loop asks between steps, saves and leaves."""

import signal
from collections.abc import Callable
from types import FrameType

import jax

from gen1_jax.errors import START_AGAIN

PREEMPTED = START_AGAIN
"""Exit code of a run that was told to end and saved."""

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


class Interruption:
    """Catches the first SIGTERM or Ctrl-C; a second Ctrl-C ends at once. A context manager.

    Args:
        reached_preemption: for runs of several processes, whether all of them are to save at this step: JAX's
            coordination service hears SIGTERM of any process and agrees on a step.
    """

    def __init__(self, reached_preemption: Callable[[int], bool]):
        self._signal: int | None = None
        self._several = jax.process_count() > 1
        self._reached_preemption = reached_preemption

    def __enter__(self) -> "Interruption":
        signals = (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._catch) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def exit_code(self, step: int) -> int | None:
        """After a step: the code to end with, or None to go on."""
        if self._several:
            return PREEMPTED if self._reached_preemption(step) else None
        if self._signal is None:
            return None
        return PREEMPTED if self._signal == signal.SIGTERM else INTERRUPTED

    def _catch(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self._several or self._signal is not None):
            raise KeyboardInterrupt
        self._signal = number
