"""Layers that are built alike are traced once: a network has dozens that differ in nothing but their weights.

    alike = Alike()                       # of one evaluation of a network
    x = alike(layer, x, given)            # layer(x, given)

Tracing, differentiating and lowering is Python's work, one program at a time. XLA sees calls of one function, and puts
it in the place of each before it looks at anything else.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax
from flax import nnx

from gen1_jax.models.attended import attending


class Alike:
    """Runs layers of one evaluation of a network, each as it would run by itself.

    What is said around a trace (`partition`, `attention`) is the same for all of its layers. An `Attending` may do
    something else in each, so that under one nothing is shared; nor is anything outside of a trace, where layers would
    be compiled one by one.
    """

    def __init__(self) -> None:
        self._functions: dict[Hashable, Callable] = {}

    def __call__(self, layer: nnx.Module, *args: Any, **settings: Hashable) -> Any:
        """layer(*args, **settings).

        Args:
            layer: with its parameters.
            args: pytrees of arrays.
            settings: what it is told beside them, not traced.
        """
        if attending() is not None or not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
            return layer(*args, **settings)
        graph, state = nnx.split(layer)
        key = graph, *sorted(settings.items())
        if key not in self._functions:

            def run(state, *args):
                return nnx.merge(graph, state)(*args, **settings)

            run.__name__ = type(layer).__name__  # of profiles
            self._functions[key] = jax.jit(run)
        return self._functions[key](state, *args)
