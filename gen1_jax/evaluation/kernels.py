"""Where the time of a compiled program goes: what JAX's profiler saw of each of its operations, by kind."""

import collections
import csv
import dataclasses
import io
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from gen1_jax.files import write_text

KINDS = {
    "attention": r"fmha|flash|cudnn::fusion|dot_product_attention",
    "convolutions": r"conv(?!ert)|fprop|dgrad|wgrad",
    "products": r"gemm|dot|nvjet|cublas|cutlass",
    "reductions": r"reduc",
    "transposes": r"transpose|tensorTransform|nchwToNhwc|nhwcToNchw",
    "copies": r"copy|concatenate|slice|pad|gather|scatter|memcpy|memset",
}
"""Of what a kind is known by, first fit: the target of the call, the operation, the kernel. Anything else passes over
memory element by element."""

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_CONTAINER = re.compile(r" (while|conditional|call)\(")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
    """What a program does with one instruction.

    Attributes:
        name: of the instruction, or of the kernel where the profiler did not tell.
        kind: one of `KINDS`, or "elementwise".
        milliseconds: of a run of the program, on all devices together.
        kernels: that a run starts.
        kernel: the longest of their names.
        shape: of what it gives, as XLA writes it.
        source: where in the traced function it comes from.
    """

    name: str
    kind: str
    milliseconds: float
    kernels: float
    kernel: str
    shape: str
    source: str


def traced(run: Callable[[], Any], program: jax.stages.Compiled, runs: int = 3) -> list[Operation]:
    """Operations of a program, dearest first.

    Args:
        run: runs it once; what it returns is waited for. It should have run before.
        program: whose text says what its instructions are.
        runs: to take the mean of.
    """
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(runs):
                result = run()
            jax.block_until_ready(result)
        found = max(Path(folder).rglob("*.xplane.pb"))
        data = jax.profiler.ProfileData.from_file(str(found))
    return _operations(_events(data), _instructions(program.as_text()), runs)


def _events(data: jax.profiler.ProfileData) -> Iterable[tuple[str, str, float]]:
    """Of each kernel its instruction, its name, and nanoseconds.

    What a GPU replays as one graph is told of as one instruction: there the kernel's name has to do.
    """
    planes = list(data.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for plane in devices or planes:  # on a CPU the host is the device
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):  # other lines tell of the same kernels again
                continue
            for event in line.events:
                instruction = dict(event.stats).get("hlo_op")
                if instruction is None and not devices:
                    continue
                if instruction is None or str(instruction).startswith("command_buffer"):
                    instruction = _instruction_of(event.name)
                yield str(instruction), event.name, event.duration_ns


def _instruction_of(kernel: str) -> str:
    """Kernels that XLA makes itself are named after their instruction, with _ for a dot."""
    return re.sub(r"_(\d+)$", r".\1", kernel)


def _instructions(text: str) -> dict[str, str]:
    """What a program's text says of each instruction."""
    return {match[1]: match[2] for match in map(_INSTRUCTION.match, text.splitlines()) if match}


def _operations(
    events: Iterable[tuple[str, str, float]], instructions: Mapping[str, str], runs: int
) -> list[Operation]:
    nanoseconds, kernels, names = collections.Counter(), collections.Counter(), collections.defaultdict(set)
    for instruction, kernel, duration in events:
        nanoseconds[instruction] += duration
        kernels[instruction] += 1
        names[instruction].add(kernel)
    operations = []
    for name, duration in nanoseconds.most_common():
        says = instructions.get(name, "")
        if _CONTAINER.search(says):  # what is inside has been seen, too
            continue
        kernel = max(names[name], key=len)
        operations.append(
            Operation(
                name=name,
                kind=kind_of(" ".join((*_TARGET.findall(says), name)), kernel),
                milliseconds=duration / runs / 1e6,
                kernels=kernels[name] / runs,
                kernel=kernel,
                shape=says.partition(" ")[0],
                source=next(iter(_SOURCE.findall(says)), ""),
            )
        )
    return operations


def kind_of(*names: str) -> str:
    """By the first of the names that tells."""
    for name in names:
        for kind, pattern in KINDS.items():
            if re.search(pattern, name, re.IGNORECASE):
                return kind
    return "elementwise"


def render_kinds(operations: Sequence[Operation]) -> list[str]:
    """Lines of a table: of each kind milliseconds, share, and kernels. None of no operations."""
    if not operations:
        return []
    total = sum(o.milliseconds for o in operations)
    lines = [f"{'':>12} {'ms':>9} {'share':>6} {'kernels':>8}"]
    by_kind = collections.defaultdict(list)
    for operation in operations:
        by_kind[operation.kind].append(operation)
    for kind, members in sorted(by_kind.items(), key=lambda item: -sum(o.milliseconds for o in item[1])):
        spent = sum(o.milliseconds for o in members)
        lines.append(f"{kind:>12} {spent:9.2f} {spent / total:6.1%} {sum(o.kernels for o in members):8.0f}")
    return lines


def write_operations(path: Path, programs: Mapping[str, Iterable[Operation]]) -> None:
    """A CSV with a line for each operation of each program."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["program", *(field.name for field in dataclasses.fields(Operation))])
    writer.writerows([name, *dataclasses.astuple(o)] for name, operations in programs.items() for o in operations)
    write_text(path, text.getvalue())
