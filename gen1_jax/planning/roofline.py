"""How long a step should take: a roofline for one chip and ring formulas for what chips exchange.

    compute       = FLOPs / (peak · compute_efficiency)
    memory        = bytes accessed / HBM bandwidth
    communication = Σ count · time of one collective (`collective_seconds`)
    exposed       = communication - min(overlap · communication, max(compute, memory))
    step          = max(compute, memory) + exposed
    MFU           = FLOPs / (peak · step)

All of it for one chip, in seconds, bytes and FLOP/s. Latency, stragglers and input are left out.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Set

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.planning.hlo import Collective
from gen1_jax.planning.topology import Topology


@dataclasses.dataclass(frozen=True, kw_only=True)
class RooflineAssumptions:
    """What the model takes for granted: change it where you have measured better.

    Attributes:
        compute_efficiency: part of the published peak that convolutions and matrix products reach. 0.35: one H200
            (peak 989 TFLOP/s) ran forward, backward, AdamW and EMA of the full-size network on 16 clips of latents
            without recomputation in 530.9 ms, 343.6 TFLOP/s (0.347). For other chips it is a guess.
        overlap: part of the communication that the compiler hides behind computation, never more than there is of
            that. A guess.
    """

    compute_efficiency: float | int = 0.35
    overlap: float | int = 0.5

    def __post_init__(self):
        if not (0 < self.compute_efficiency <= 1 and 0 <= self.overlap <= 1):
            raise UserError(f"compute_efficiency must be in (0, 1] and overlap in [0, 1]: {self}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Seconds of one step on every chip, and the part of the published peak that it uses (MFU, 0 to 1)."""

    compute_s: float
    memory_s: float
    communication_s: float
    exposed_communication_s: float
    step_s: float
    mfu: float


def predict(
    *,
    flops: float | int,
    bytes_accessed: float | int,
    collectives: Iterable[Collective],
    topology: Topology,
    assumptions: RooflineAssumptions = RooflineAssumptions(),
) -> Prediction:
    """The formulas at the head of this file; `flops`, `bytes_accessed` and `collectives` are one chip's of one step."""
    chip = topology.chip
    compute = flops / (chip.peak_flops * assumptions.compute_efficiency)
    memory = bytes_accessed / chip.hbm_bandwidth
    communication = math.fsum(c.count * collective_seconds(c, topology) for c in collectives)
    busy = max(compute, memory)
    exposed = communication - min(assumptions.overlap * communication, busy)
    step = busy + exposed
    return Prediction(
        compute_s=compute,
        memory_s=memory,
        communication_s=communication,
        exposed_communication_s=exposed,
        step_s=step,
        mfu=flops / (chip.peak_flops * step) if step else 0.0,
    )


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """Seconds of one collective of `bytes` b among n chips (bandwidth-bound algorithms, one direction).

        all-gather, reduce-scatter   b · (n-1)/n / W
        all-reduce                   both of them
        all-to-all                   b · (n-1)/n · hops / W
        collective-permute           b / W

    TPU: W is the share of a chip's links in as many dimensions of the torus as a group of n needs, so a ring over one
    of two dimensions has half; links are taken to wrap around. An all-to-all crosses max(1, k·s/4) links on average
    in k dimensions of s = n^(1/k) chips each (https://jax-ml.github.io/scaling-book/sharding/).
    GPU: W is NVLink's. A group on m hosts with g chips on each is as slow as the slower of NVLink and network; its g
    network cards share the b · (m-1)/m that all-gather, reduce-scatter and (twice) all-reduce bring to a host, while
    in an all-to-all or permute every chip sends its own.
    """
    n, chip = collective.group_size, topology.chip
    if n < 2:
        return 0.0
    used = _torus_dimensions(topology, n)
    bandwidth = chip.interconnect_bandwidth * (used / chip.torus_dimensions if used else 1)
    hops = max(1.0, used * n ** (1 / used) / 4) if used else 1.0
    inside = _traffic(collective.kind, n, hops) * collective.bytes / bandwidth
    if chip.platform == "tpu":
        return inside
    hosts = len({device // chip.chips_per_host for device in collective.group})
    if hosts == 1:
        return inside
    sharing = 1 if collective.kind in ("all-to-all", "collective-permute") else n / hosts
    across = _traffic(collective.kind, hosts, 1.0) * collective.bytes / (chip.network_bandwidth * sharing)
    return max(inside, across)


def _traffic(kind: str, n: int, hops: float) -> float:
    """Bytes through the links of one of n members for every byte of the array."""
    share = (n - 1) / n
    factors = {
        "all-gather": share,
        "reduce-scatter": share,
        "all-reduce": 2 * share,
        "all-to-all": share * hops,
        "collective-permute": 1.0,
    }
    return factors[kind]


def _torus_dimensions(topology: Topology, n: int) -> int:
    """The fewest dimensions of the torus that hold n chips; 0 where chips hang on a switch."""
    if not topology.chip.torus_dimensions:
        return 0
    largest = sorted(topology.shape, reverse=True)
    return next((k for k in range(1, len(largest)) if math.prod(largest[:k]) >= n), len(largest))


def fsdp_collectives(
    *, parameter_bytes: int, mesh: Mapping[str, int], microbatches: int = 1, gathers: int = 1, sums: int = 1
) -> list[Collective]:
    """What a sharded training step must exchange, for want of a compiler: an estimate from the weights alone.

    `gathers` all-gathers of the weights over "fsdp" a step (2 where rematerialisation drops and fetches them again), a
    reduce-scatter of their gradients over "fsdp" a microbatch, `sums` all-reduces of the gradient shards over the
    axes that hold copies. Activations exchanged over "tensor" and "context" are not in it.

    Args:
        parameter_bytes: of all weights, in the type in which they travel (bfloat16: 2 a parameter).
        mesh: axis -> size in the mesh's order. "fsdp" and "tensor" split the weights, every other axis holds copies.
        microbatches: backward passes a step (gradient accumulation).
        gathers: all-gathers of the weights a step.
        sums: over copies a step, see `Layout.sums_once`.
    """
    whole = parameter_bytes // mesh.get("tensor", 1)
    fsdp = _group(mesh, {"fsdp"} & set(mesh))
    copies = _group(mesh, set(mesh) - {"fsdp", "tensor"})
    exchanges = [
        Collective(kind="all-gather", bytes=whole, group=fsdp, count=gathers),
        Collective(kind="reduce-scatter", bytes=whole, group=fsdp, count=microbatches),
        Collective(kind="all-reduce", bytes=whole // len(fsdp), group=copies, count=sums),
    ]
    return [exchange for exchange in exchanges if exchange.group_size > 1]


def _group(mesh: Mapping[str, int], axes: Set[str]) -> tuple[int, ...]:
    """Row-major numbers of the devices at 0 of every other axis."""
    devices = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    return tuple(devices[tuple(slice(None) if name in axes else 0 for name in mesh)].flatten().tolist())
