"""Memory and traffic of a program where there is no compiler for the machine: stated formulas, not measurements.

kept         RESIDUALS · Σ outputs of matrix products and convolutions; fused attention (GPU) keeps no scores;
             of recomputed blocks what enters them, and the largest one, which is recomputed at a time
temporaries  gathered weights + max(kept, gradients) + float32 sums of gradients if the batch has parts
             sampler: LIVE times the largest output, twice the largest scores, of which no more than a chunk is written
traffic      state read and written; in each part weights 3 times, kept values 4 times
             sampler: in each step weights once, all outputs twice
exchanged    weights gathered, gradients scattered and summed; over tensor and context: left out
"""

from collections.abc import Mapping

from jax.extend import core

from gen1_jax.models.attention import SCORES_BYTES, attention_platform
from gen1_jax.models.flops import inner_jaxprs
from gen1_jax.planning.compiled import Measures
from gen1_jax.planning.programs import Program
from gen1_jax.planning.roofline import fsdp_collectives

RESIDUALS = 1.43
"""Bytes kept a byte that products put out; the rest are inputs of norms and activations. One H200, full size, no
recomputation: 79.8 GiB of temporaries at 16 clips and 41.0 at 8, so 4.85 a clip, of which 3.40 are such outputs."""

LIVE = 24
"""Arrays as large as the largest that are there at once in a forward pass: on one H200, full size, sampling a clip
took 4.0 GiB, 1.6 more than the weights, and the largest output is 70 MiB."""


def estimate(
    program: Program, *, parameters: int, itemsize: int, mesh: Mapping[str, int], fused_attention: bool, sums_once: bool
) -> Measures:
    """The formulas above, for one chip.

    Args:
        program: nothing of it is compiled.
        parameters: number of weights of the network.
        itemsize: bytes of a number in the computation.
        mesh: axis -> size.
        fused_attention: scores of attention are never written.
        sums_once: gradients are summed over copies of the weights once a step, and not once a microbatch.
    """
    with attention_platform("cpu", scores_bytes=None):
        jaxpr = program.forward().jaxpr
    outputs = _Outputs(fused_attention)
    outputs.read(jaxpr)
    at_rest, weights = program.argument_bytes, itemsize * parameters // mesh["tensor"]
    examples = program.batch / program.groups  # of one chip
    if program.keeps:
        kept = int((RESIDUALS * (outputs.total + outputs.largest_block) + outputs.entering) * examples / program.parts)
        sums = 4 * parameters // (mesh["tensor"] * mesh["fsdp"])
        temporary = weights + max(kept, weights + sums) + (sums if program.parts > 1 else 0)
        accessed = 2 * at_rest + program.parts * (3 * weights + 4 * kept)
        sums = 1 if sums_once else program.parts
        exchanged = fsdp_collectives(
            parameter_bytes=itemsize * parameters, mesh=mesh, microbatches=program.parts, sums=sums
        )
    else:
        scores = min(outputs.largest_scores * examples, SCORES_BYTES)
        temporary = int(LIVE * outputs.largest * examples + 2 * scores)
        accessed, exchanged = int(program.parts * (weights + 2 * outputs.total * examples)), []
    return Measures(
        source="estimated",
        argument_bytes=at_rest,
        temporary_bytes=temporary,
        peak_bytes=at_rest + temporary,
        bytes_accessed=accessed,
        collectives=tuple(exchanged),
    )


class _Outputs:
    """Bytes that the matrix products and convolutions of a forward pass put out.

    Attributes:
        total: of all, but for those inside recomputed blocks.
        largest: of one that is not attention's scores.
        largest_scores: of one that is.
        entering: of what enters recomputed blocks, weights not counted.
        largest_block: of all inside one recomputed block.
    """

    def __init__(self, fused_attention: bool):
        self._fused_attention = fused_attention
        self.total = self.largest = self.largest_scores = self.entering = self.largest_block = 0

    def read(self, jaxpr: core.Jaxpr) -> None:
        """Adds those of a function; its own arguments are taken for weights."""
        entered = set(jaxpr.invars) | set(jaxpr.constvars)
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                size, scores = _bytes(equation.outvars[0]), _is_scores(equation)
                self.total += 0 if scores and self._fused_attention else size
                if not scores:
                    self.largest = max(self.largest, size)
                elif not self._fused_attention:
                    self.largest_scores = max(self.largest_scores, size)
            elif equation.primitive.name in ("remat2", "checkpoint"):
                block = _Outputs(self._fused_attention)
                for inner in inner_jaxprs(equation):
                    block.read(inner)
                if block.total:
                    new = {v for v in equation.invars if not isinstance(v, core.Literal)} - entered
                    entered |= new
                    self.entering += sum(map(_bytes, new))
                    self.largest_block = max(self.largest_block, block.total)
            else:
                before = self.total
                for inner in inner_jaxprs(equation):
                    self.read(inner)
                if equation.primitive.name == "scan":
                    self.total += (equation.params["length"] - 1) * (self.total - before)


def _is_scores(equation: core.JaxprEqn) -> bool:
    """Attention's first product: batched, and larger than what it is made of."""
    if equation.primitive.name != "dot_general":
        return False
    _, (batch, _) = equation.params["dimension_numbers"]
    return bool(batch) and _bytes(equation.outvars[0]) > max(map(_bytes, equation.invars))


def _bytes(variable: core.Var) -> int:
    return variable.aval.size * variable.aval.dtype.itemsize
