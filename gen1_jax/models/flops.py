"""Floating point operations of a function, counted from its shapes alone.

XLA's own count leaves out fused attention kernels and counts the body of a loop once, so it cannot give TFLOP/s.
"""

import math
from collections.abc import Callable

import jax
from jax.extend import core

from gen1_jax.models.attention import attention_platform


def count_flops(function: Callable, *args) -> int:
    """Multiplications and additions of the matrix products and convolutions in function(*args).

    Args:
        function: traced, never run. Attention is counted as its two products.
        args: arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        Two operations a multiply-add. The body of a scan counts once an iteration, that of a loop of unknown
        length once; of the branches of a condition the dearest counts.
    """
    with attention_platform("cpu", scores_bytes=None):  # chunks would count what they compute again
        return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(equation: core.JaxprEqn) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * depth * equation.outvars[0].aval.size
    if name == "conv_general_dilated":
        return _convolution(equation)
    inner = [_count(jaxpr) for jaxpr in inner_jaxprs(equation)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (parameters["length"] if name == "scan" else 1)


def inner_jaxprs(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The functions that an operation calls."""
    parameters = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr)
    return [getattr(x, "jaxpr", x) for x in parameters if _is_jaxpr(x)]


def _convolution(equation: core.JaxprEqn) -> int:
    """Each output value sums kernel size * input channels products, less where the input is dilated by zeros."""
    kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
    out_channels = kernel.shape[numbers.rhs_spec[0]]
    dilation = math.prod(equation.params["lhs_dilation"])
    return 2 * equation.outvars[0].aval.size * (kernel.size // out_channels) // dilation


def _is_jaxpr(x) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)
