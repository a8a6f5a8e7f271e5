"""Which parameters a batch can teach, read from the computation itself."""

from typing import Any

import jax
from jax.extend import core


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
    reached = set(jaxpr.invars)
    for equation in jaxpr.eqns:
        if any(isinstance(variable, core.Var) and variable in reached for variable in equation.invars):
            reached |= set(equation.outvars)
    leaves, tree = jax.tree.flatten(shapes[0])
    outputs = jaxpr.outvars[: len(leaves)]
    learns = [isinstance(variable, core.Var) and variable in reached for variable in outputs]
    return jax.tree.unflatten(tree, learns), shapes
