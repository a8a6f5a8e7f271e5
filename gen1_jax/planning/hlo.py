"""Collectives of a compiled program, read from its HLO text (`compiled.as_text()`)."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One exchange among devices, as often as one run of the program does it.

    Attributes:
        kind: one of `KINDS`.
        bytes: of the whole array on one device: what all-gather gives, what reduce-scatter takes, what the others
            take and give. Ring formulas start from it.
        group: logical device numbers (row-major in the mesh) of one group; of a collective-permute its farthest pair.
        count: how many times, loops included.
        trip_count_known: False where it is in a loop of unknown length, of which one pass is counted.
    """

    kind: str
    bytes: int
    group: tuple[int, ...]
    count: int = 1
    trip_count_known: bool = True

    @property
    def group_size(self) -> int:
        """Devices that exchange with each other."""
        return len(self.group)

    def axes(self, mesh: Mapping[str, int]) -> tuple[str, ...]:
        """Names of the mesh axes (name -> size, in the mesh's order) along which devices of a group differ."""
        places = np.unravel_index(np.array(self.group), tuple(mesh.values()))
        return tuple(name for name, place in zip(mesh, places, strict=True) if len(set(place.tolist())) > 1)


def read_collectives(text: str) -> list[Collective]:
    """All collectives of an optimised HLO module, equal ones together, the most bytes first.

    An async pair counts once, also where TPU's compiler cuts it into a start, fusions that hide it and an end; an
    all-reduce whose result TPU's compiler scatters at once is a reduce-scatter; a variadic one is the sum of its
    arrays. What is in a loop counts as often as the loop runs: XLA's `known_trip_count`, or the constant that the
    counter is compared with. All branches of a conditional count.

    Raises:
        ValueError: the text is not an HLO module.
    """
    module = Module(text)
    found = Counter()
    for collective, count in module.walk(module.entry, 1, True):
        found[collective] += count
    every = (dataclasses.replace(collective, count=count) for collective, count in found.items())
    return sorted(every, key=lambda c: (-c.bytes * c.count, c.kind, c.group))


_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_CALLED = re.compile(
    r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    type: str
    opcode: str
    rest: str  # operands and attributes

    def called(self) -> list[str]:
        """Names of the computations that it calls, those of a loop apart."""
        found = _CALLED.findall(self.rest)
        return [name for one, several in found for name in re.findall(r"[\w.\-]+", one or several)]

    def operands(self) -> list[str]:
        """Names of what it takes."""
        return re.findall(r"%([\w.\-]+)", self.rest.split(")", 1)[0])

    def attribute(self, name: str) -> str:
        """The name that stands after `name`=."""
        match = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return match[1] if match else ""


class Module:
    """A parsed module.

    Attributes:
        computations: name -> instructions by name.
        entry: name of the one that is run.
        devices: that run it together.

    Raises:
        ValueError: the text is not an HLO module.
    """

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        partitions = re.search(r"num_partitions=(\d+)", text)
        self.devices = int(partitions[1]) if partitions else 1
        current: dict[str, Instruction] = {}
        for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
            if header := _COMPUTATION.match(line):
                current = self.computations[header[2]] = {}
                self.entry = header[2] if header[1] else self.entry
            elif instruction := _INSTRUCTION.match(line):
                current[instruction[1]] = Instruction(*instruction.groups()[1:])
        if not self.entry:
            raise ValueError("not the text of an HLO module: no ENTRY computation")

    def walk(self, name: str, times: int, known: bool) -> Iterator[tuple[Collective, int]]:
        """Collectives of a computation and of all it calls, with how often each is done."""
        body = self.computations[name]
        starts_async = any("AsyncCollectiveStart" in instruction.rest for instruction in body.values())
        for instruction in body.values():
            kind = instruction.opcode.removesuffix("-start")
            if kind in KINDS:
                if "chain_id=" in instruction.rest and not starts_async:
                    continue  # a later part of an async collective that was counted at its start
                if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
                    kind = "reduce-scatter"
                yield self._collective(kind, instruction, known), times
            elif instruction.opcode == "while":
                trips = self.trip_count(instruction, body)
                loop = instruction.attribute("body")
                yield from self.walk(loop, times * (trips or 1), known and trips is not None)
            elif instruction.opcode in ("fusion", "call", "conditional", "async-start"):
                for called in instruction.called():
                    yield from self.walk(called, times, known)

    def _collective(self, kind: str, instruction: Instruction, known: bool) -> Collective:
        group = _group(instruction.rest, self.devices)
        size, n = type_bytes(instruction.type), len(group)
        if instruction.opcode.endswith("-start") and kind != "all-reduce":  # the type lists operands and results
            scattered = kind in ("all-gather", "reduce-scatter")
            size = size * n // (n + 1) if scattered else size // 2
        elif instruction.opcode == "reduce-scatter":
            size *= n
        return Collective(kind=kind, bytes=size, group=group, trip_count_known=known)

    def trip_count(self, loop: Instruction, caller: Mapping[str, Instruction]) -> int | None:
        """How often a loop in the body `caller` runs; None if that cannot be told."""
        if stated := re.search(r'known_trip_count\\?":\{\\?"n\\?":\\?"(\d+)', loop.rest):
            return int(stated[1])
        condition = self.computations[loop.attribute("condition")]
        test = next((i for i in condition.values() if i.opcode == "compare"), None)
        if test is None or "direction=LT" not in test.rest:
            return None
        counter, bound = (condition.get(name) for name in test.operands())
        if counter is None or bound is None or counter.opcode != "get-tuple-element" or bound.opcode != "constant":
            return None
        return int(bound.rest.split(")")[0]) - self._start(loop, caller, int(counter.attribute("index")))

    def _start(self, loop: Instruction, caller: Mapping[str, Instruction], index: int) -> int:
        """First value of a loop's counter; where it cannot be seen, 0, as that of every `lax.scan`."""
        state = caller.get(loop.operands()[0])
        source = caller.get(state.operands()[index]) if state and state.opcode == "tuple" else None
        while source and source.opcode == "copy":
            source = caller.get(source.operands()[0])
        return int(source.rest.split(")")[0]) if source and source.opcode == "constant" else 0


def type_bytes(type_text: str) -> int:
    """Bytes of an HLO type such as "(bf16[8,4]{1,0:T(8,128)}, u32[])", without the handles of async operations."""
    total = 0.0
    for dtype, dims in re.findall(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]", type_text):
        if (dtype, dims) == ("u32", ""):
            continue
        bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0]) if dtype != "token" else 0
        total += bits / 8 * np.prod([int(d) for d in dims.split(",") if d], dtype=np.int64)
    return int(total)


def _group(attributes: str, devices: int) -> tuple[int, ...]:
    """One group of a collective, from any of the ways in which HLO writes them."""
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        moves = [tuple(map(int, pair)) for pair in re.findall(r"(\d+),(\d+)", pairs[1])]
        return max(moves, key=lambda move: abs(move[0] - move[1]))
    if explicit := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return tuple(map(int, explicit[1].split(",")))
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes):
        return tuple(_iota(iota[2]).reshape(_numbers(iota[1]))[0].tolist())
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}", attributes):
        return _mesh_group(*mesh.groups(), devices=devices)
    return tuple(range(devices))  # replica_groups={}


def _mesh_group(axes: str, device_ids: str | None, over: str, *, devices: int) -> tuple[int, ...]:
    """mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}: devices that differ in 'a' (or a part 'a':(before)size)."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    ids = _iota(device_ids or f"[{devices}]").reshape(tuple(sizes.values()))
    chosen = {}
    for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", over):
        parts = np.arange(sizes[name]).reshape(int(before or 1), int(size or sizes[name]), -1)
        chosen[name] = parts[0, :, 0]
    return tuple(ids[np.ix_(*(chosen.get(name, np.zeros(1, int)) for name in sizes))].flatten().tolist())


def _iota(text: str) -> np.ndarray:
    """ "[2,4]T(1,0)": the numbers 0 … 7 in that shape, transposed; "0,2,1,3": as they stand."""
    if not (form := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)):
        return np.array(_numbers(text))
    shape = _numbers(form[1])
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return numbers.transpose(_numbers(form[2])) if form[2] else numbers


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))
