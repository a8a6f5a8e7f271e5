"""How much a compiled TPU program moves to and from HBM, read from its HLO text (`compiled.as_text()`).

`cost_analysis` counts loops once, on-chip memory like HBM, and of a prefetched slice the whole array.
"""

import re
from collections.abc import Iterator, Mapping

from gen1_jax.planning.hlo import Instruction, Module, type_bytes

_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "partition-id")
_CALLS = ("while", "call", "conditional")
_ARRAY = re.compile(r"[a-z]+\d*[a-z0-9]*\[[\d,]*\](?:\{[^}]*\})?")
_ON_CHIP = re.compile(r"\b[a-z]+\d*[a-z0-9]*\[[\d,]*\]\{[^}]*S\([1-9]\d*\)[^}]*\}")


def read_hbm_bytes(text: str, unknown_trip_count: int = 1) -> int:
    """Bytes that one device reads from and writes to HBM.

    What an instruction takes and gives counts, unless it lies on chip; of slices, what is cut out; async pairs count
    once. Padding to tiles does not count. All branches of a conditional count.

    Args:
        text: of an optimised HLO module.
        unknown_trip_count: how often loops run whose length the text does not tell.

    Raises:
        ValueError: the text is not an HLO module.
    """
    module = Module(text)
    return sum(
        times * unknown_trip_count ** (not known) * _traffic(instruction, body)
        for body, instruction, times, known in _executed(module, module.entry, 1, True)
    )


def _executed(
    module: Module, name: str, times: int, known: bool
) -> Iterator[tuple[Mapping[str, Instruction], Instruction, int, bool]]:
    """Instructions of a computation and of the control flow in it, with how often each is done."""
    body = module.computations[name]
    for instruction in body.values():
        if instruction.opcode not in _CALLS:
            yield body, instruction, times, known
        elif instruction.opcode == "while":
            trips = module.trip_count(instruction, body)
            loop = instruction.attribute("body")
            yield from _executed(module, loop, times * (trips or 1), known and trips is not None)
        else:
            for called in instruction.called():
                yield from _executed(module, called, times, known)


def _traffic(instruction: Instruction, body: Mapping[str, Instruction]) -> int:
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    sources = [body[name].type for name in instruction.operands() if name in body]
    if opcode == "slice-start":  # the type lists source, result, handle
        result = _ARRAY.findall(instruction.type)[1]
        return type_bytes(result) * (_hbm(sources[0]) > 0) + _hbm(result)
    if opcode.endswith("-start"):  # the type lists both sides
        return _hbm(instruction.type)
    if opcode in ("slice", "dynamic-slice"):
        return type_bytes(instruction.type) * (_hbm(sources[0]) > 0) + _hbm(instruction.type)
    if opcode == "dynamic-update-slice":  # in place
        return 2 * _hbm(sources[1])
    return sum(map(_hbm, sources)) + _hbm(instruction.type)


def _hbm(type_text: str) -> int:
    """Bytes of a type that do not lie on chip."""
    return type_bytes(_ON_CHIP.sub("", type_text))
