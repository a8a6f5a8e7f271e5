"""Which parameters a batch can teach, read from the computation itself."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core
from jax.extend.core import primitives

_CALL = primitives.jit_p


def learning(gradients: jax.stages.Wrapped, *args) -> tuple[Any, Any]:
    """For each parameter whether its gradient depends on anything at all; nothing is computed.

    Where it does not it is the zero that JAX puts in for a parameter that the loss does not reach: temporal layers
    and a batch of images, queries and keys of a cross-attention to a single token.

    Args:
        gradients: jitted, which keeps what is traced here; gives (a tree of gradients, whatever else).
        args: of it, arrays or abstract ones.

    Returns:
        A tree of bools like the gradients, and the shapes of all that `gradients` gives.
    """
    traced = gradients.trace(*args)
    jaxpr, shapes = traced.jaxpr.jaxpr, traced.out_info
    leaves, tree = jax.tree.flatten(shapes[0])
    reached = _reached(jaxpr, [True] * len(jaxpr.invars))
    return jax.tree.unflatten(tree, reached[: len(leaves)]), shapes


def _reached(jaxpr: core.Jaxpr, inputs: Sequence[bool]) -> list[bool]:
    """Which outputs depend on the inputs that are marked; calls of jitted functions are looked into."""
    known = {variable for variable, yes in zip(jaxpr.invars, inputs, strict=True) if yes}
    depends = lambda variables: [isinstance(variable, core.Var) and variable in known for variable in variables]
    for equation in jaxpr.eqns:
        reads = depends(equation.invars)
        if equation.primitive is _CALL:
            writes = _reached(equation.params["jaxpr"].jaxpr, reads)
        else:
            writes = [any(reads)] * len(equation.outvars)
        known |= {variable for variable, yes in zip(equation.outvars, writes, strict=True) if yes}
    return depends(jaxpr.outvars)
