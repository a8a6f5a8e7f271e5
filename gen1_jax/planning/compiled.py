"""What one chip needs for a program, as the compiler of an absent TPU states it."""

import dataclasses
import re
import time
from typing import Literal

from jax.errors import JaxRuntimeError

from gen1_jax.planning.hlo import Collective, read_collectives
from gen1_jax.planning.hlo_traffic import read_hbm_bytes
from gen1_jax.planning.programs import Program

_NEEDED = re.compile(r"(?:[Uu]sed |\()([\d.]+)([KMGT]?)(?= of [\d.]+[KMGT]? hbm|\) exceeds available HBM)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """Memory and traffic of one chip in one run of a program.

    Attributes:
        source: "compiled" by the machine's compiler, or "estimated" by formulas.
        argument_bytes: state (or weights) and inputs at rest.
        temporary_bytes: of what is held beside them; None where a program that does not fit has no such figure.
        peak_bytes: all that a chip holds at most.
        bytes_accessed: to and from HBM; None likewise.
        collectives: what is exchanged.
        compile_seconds: how long the compiler took.
    """

    source: Literal["compiled", "estimated"]
    argument_bytes: int
    temporary_bytes: int | None
    peak_bytes: int
    bytes_accessed: int | None
    collectives: tuple[Collective, ...]
    compile_seconds: float | None = None


def compile_program(program: Program) -> Measures:
    """Lowers and compiles. A program that does not fit the machine gives what it would need.

    A loop of unknown length, the sampler's, is taken to run as often as the program has parts.

    Raises:
        JaxRuntimeError: the compiler fails for another reason.
    """
    began = time.perf_counter()
    lowered = program.lower()
    try:
        compiled = lowered.compile()
    except JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        return Measures(
            source="compiled",
            argument_bytes=program.argument_bytes,
            temporary_bytes=None,
            peak_bytes=needed,
            bytes_accessed=None,
            collectives=(),
            compile_seconds=time.perf_counter() - began,
        )
    seconds, memory, text = time.perf_counter() - began, compiled.memory_analysis(), compiled.as_text()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    held = memory.temp_size_in_bytes + new + memory.generated_code_size_in_bytes
    return Measures(
        source="compiled",
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=held,
        peak_bytes=memory.argument_size_in_bytes + held,
        bytes_accessed=read_hbm_bytes(text, program.parts),
        collectives=tuple(_in_all(c, program.parts) for c in read_collectives(text)),
        compile_seconds=seconds,
    )


def needed_bytes(message: str) -> int | None:
    """HBM that a program would need, in either of libtpu's wordings; None if it says something else.

    "... memory required for HLO temporaries (26.84G) exceeds available HBM (15.75G)" leaves it open whether arguments
    are among them: it is at least that.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    used = _NEEDED.search(message)
    return int(float(used[1]) * _UNITS[used[2]]) if used else None


def _in_all(collective: Collective, parts: int) -> Collective:
    if collective.trip_count_known:
        return collective
    return dataclasses.replace(collective, count=collective.count * parts)
