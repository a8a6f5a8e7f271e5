"""The numbers are worked out by hand from the published figures."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen1_jax.planning.hlo import KINDS, Collective
from gen1_jax.planning.roofline import RooflineAssumptions, collective_seconds, fsdp_collectives, predict
from gen1_jax.planning.topology import parse_topology

V5E, V5P, H200, H200X64 = map(parse_topology, ("v5e:16x16", "v5p:4x4x8", "gpu:h200:8", "gpu:h200:64"))


def exchange(kind, size, group, count=1):
    return Collective(kind=kind, bytes=int(size), group=tuple(group), count=count)


@pytest.mark.parametrize(
    ("topology", "kind", "group", "seconds"),
    [
        # v5e sends 200 GB/s over all links, 100 over those of one of its two dimensions
        (V5E, "all-gather", range(16), 1e9 * 15 / 16 / 100e9),
        (V5E, "reduce-scatter", range(256), 1e9 * 255 / 256 / 200e9),
        (V5E, "all-reduce", range(0, 256, 16), 2 * 1e9 * 15 / 16 / 100e9),
        (V5E, "all-to-all", range(16), 1e9 * 15 / 16 * 4 / 100e9),  # four links on average around a ring of 16
        (V5E, "collective-permute", (0, 1), 1e9 / 100e9),
        (V5P, "all-gather", range(16), 1e9 * 15 / 16 / 400e9),  # 16 chips need two of three dimensions
        (H200, "all-reduce", range(8), 2 * 1e9 * 7 / 8 / 450e9),
        (H200, "all-to-all", range(8), 1e9 * 7 / 8 / 450e9),
        # 50 GB/s a network card: alone between hosts, or all eight of a host together
        (H200X64, "all-reduce", range(0, 64, 8), 2 * 1e9 * 7 / 8 / 50e9),
        (H200X64, "all-gather", range(64), 1e9 * 63 / 64 / 450e9),  # 7/8 / 400 is less: NVLink is the slower
        (H200X64, "all-gather", range(4, 12), 1e9 * 1 / 2 / (4 * 50e9)),
        (H200X64, "collective-permute", (15, 0), 1e9 / 50e9),
        (H200X64, "all-gather", (0,), 0.0),
    ],
)
def test_one_collective(topology, kind, group, seconds):
    assert collective_seconds(exchange(kind, 1e9, group), topology) == pytest.approx(seconds)


def test_prediction_by_hand():
    """H200: 395.8 TFLOP at 40% of 989.5 is 1 s; 2.4 TB at 4.8 TB/s is 0.5 s; an all-reduce of 450 GB is 1.75 s."""
    collectives = [exchange("all-reduce", 45e9, range(8), count=10)]
    assumptions = RooflineAssumptions(compute_efficiency=0.4)
    base = dict(flops=395.8e12, bytes_accessed=2.4e12, collectives=collectives, topology=H200)
    found = predict(**base, assumptions=assumptions)
    assert found.compute_s == pytest.approx(1)
    assert found.memory_s == pytest.approx(0.5)
    assert found.communication_s == pytest.approx(1.75)
    assert found.exposed_communication_s == pytest.approx(0.875)
    assert found.step_s == pytest.approx(1.875)
    assert found.mfu == pytest.approx(0.4 / 1.875)
    hidden = predict(**base, assumptions=dataclasses.replace(assumptions, overlap=1.0))
    assert hidden.exposed_communication_s == pytest.approx(0.75)  # no more than there is computation to hide behind


@given(
    st.floats(1e9, 1e16),
    st.floats(1e6, 1e13),
    st.sampled_from(KINDS),
    st.integers(1, 10**11),
    st.sampled_from([2, 4, 8, 16]),
    st.sampled_from([V5E, V5P, H200X64]),
)
def test_more_of_anything_is_never_faster(flops, accessed, kind, size, n, topology):
    collective = exchange(kind, size, range(n))
    base = dict(flops=flops, bytes_accessed=accessed, collectives=[collective], topology=topology)
    more = [
        base | dict(flops=2 * flops),
        base | dict(bytes_accessed=2 * accessed),
        base | dict(collectives=[dataclasses.replace(collective, bytes=2 * size)]),
        base | dict(collectives=[dataclasses.replace(collective, count=2)]),
        base | dict(assumptions=RooflineAssumptions(overlap=0.25)),
        base | dict(assumptions=RooflineAssumptions(compute_efficiency=0.2)),
    ]
    found = predict(**base)
    assert 0 < found.mfu <= 0.35 + 1e-9 and found.step_s >= max(found.compute_s, found.memory_s)
    assert all(predict(**worse).step_s >= found.step_s * (1 - 1e-12) for worse in more)


def test_exchanges_of_a_sharded_step_without_a_compiler():
    found = fsdp_collectives(
        parameter_bytes=800, mesh={"data": 2, "fsdp": 4, "tensor": 2, "context": 2}, microbatches=3
    )
    assert found == [
        exchange("all-gather", 400, (0, 4, 8, 12)),
        exchange("reduce-scatter", 400, (0, 4, 8, 12), count=3),
        exchange("all-reduce", 100, (0, 1, 16, 17)),
    ]
    assert fsdp_collectives(parameter_bytes=800, mesh={"data": 1, "fsdp": 1}) == []
    assert [c.kind for c in fsdp_collectives(parameter_bytes=800, mesh={"data": 8})] == ["all-reduce"]


@pytest.mark.parametrize("wrong", [dict(compute_efficiency=0.0), dict(compute_efficiency=1.5), dict(overlap=-0.1)])
def test_impossible_assumptions_are_refused(wrong):
    with pytest.raises(ValueError, match="compute_efficiency"):
        RooflineAssumptions(**wrong)
