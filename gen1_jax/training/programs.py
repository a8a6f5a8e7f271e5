"""A step as it is compiled: gradients, for each shape of batches, and what they do to the state, for all of them.

    state ─┬─► gradients of a batch ──► gradients, at rest ─┬─► update ──► state
           └────────────────────────────────────────────────┘   (donated)

The update is half of what XLA has to look at and the same for all shapes, so that it is compiled once. Between the two,
gradients are in the dtype of what they are of: kernels' in that of the computation, where they are not sums of parts.
"""

import contextvars
import dataclasses
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

import jax

Made = TypeVar("Made")

TRACING = threading.Lock()
"""Held while a program is traced and lowered, which is Python's work: threads that took turns at it, each a few
milliseconds, would need half as long again, and XLA would have nothing to do before all of them are done."""


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """A step for batches of one shape: (state, frozen, inputs) -> (state, metrics); `state` is donated.

    Attributes:
        gradients: (parameters, EMA, number of the step, frozen, inputs) -> (gradients, metrics).
        update: (state, gradients, metrics) -> (state, metrics).
    """

    gradients: jax.stages.Compiled
    update: jax.stages.Compiled

    def __call__(self, state: Any, frozen: Any, inputs: Any) -> tuple[Any, Any]:
        return self.update(state, *self.gradients(state.params, state.ema, state.step, frozen, inputs))

    @property
    def state_bytes(self) -> int:
        """What a device holds of the state, all of which is donated."""
        return self.update.memory_analysis().alias_size_in_bytes

    @property
    def temporary_bytes(self) -> int:
        """The most that a device needs beside it: gradients, and what either program needs meanwhile."""
        programs = (self.gradients, self.update)
        return self._gradient_bytes + max(program.memory_analysis().temp_size_in_bytes for program in programs)

    @property
    def _gradient_bytes(self) -> int:
        return self.gradients.memory_analysis().output_size_in_bytes


class Once:
    """Makes things that several threads ask for, each of them once; who comes later waits. What fails is made anew."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Future] = {}
        self._lock = threading.Lock()

    def __call__(self, key: Hashable, make: Callable[[], Made]) -> Callable[[], Made]:
        """Begins to make it in a thread of its own, if nobody has; what is given back waits for it.

        Args:
            key: what it is.
            make: called once for all that ask for it.
        """
        with self._lock:
            begins = key not in self._made
            made = self._made.setdefault(key, Future())
        if begins:
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._fulfil, key, made, make)).start()
        return made.result

    def _fulfil(self, key: Hashable, made: Future, make: Callable[[], Any]) -> None:
        def make_or_forget() -> Any:
            try:
                return make()
            except BaseException:
                with self._lock:
                    del self._made[key]
                raise

        fulfil(made, make_or_forget)


def fulfil(made: Future, make: Callable[[], Any]) -> None:
    """Gives a future what `make` returns, or raises where it is waited for."""
    try:
        made.set_result(make())
    except BaseException as error:
        made.set_exception(error)
