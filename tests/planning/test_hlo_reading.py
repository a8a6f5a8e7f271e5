"""Collectives from HLO text: real programs of both compilers, and single lines of every form."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from gen1_jax.planning.hlo import read_collectives

PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from gen1_jax.planning.hlo import read_collectives
from gen1_jax.planning.topology import parse_topology, tpu_devices

tpu = sys.argv[1] == "tpu"
devices = tpu_devices(parse_topology("v5e:2x4")) if tpu else jax.devices()
mesh = Mesh(np.array(devices).reshape(2, 4), ("data", "fsdp"))
place = lambda *axes: NamedSharding(mesh, P(*axes))
array = lambda shape, *axes: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place(*axes))

def show(function, *arrays):
    text = jax.jit(function).trace(*arrays).lower(lowering_platforms=("tpu" if tpu else "cpu",)).compile().as_text()
    sizes = {"data": 2, "fsdp": 4}
    found = read_collectives(text)
    print(json.dumps([[c.kind, c.bytes, c.group_size, c.axes(sizes), c.count, c.trip_count_known] for c in found]))

def scanned(ws, x):
    # one set of weights an iteration, so that the gathers must stay in the loop
    rows = place(("data", "fsdp"))
    def layer(x, w):
        return jax.lax.with_sharding_constraint(jnp.tanh(x @ w), rows), None
    return jax.lax.scan(layer, x, ws)[0]

show(scanned, array((5, 256, 256), None, "fsdp"), array((64, 256), ("data", "fsdp")))

def moved(x):
    return (
        jax.lax.all_to_all(x, "fsdp", 1, 0, tiled=True),
        jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]),
        jax.lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True),
        jax.lax.psum(x, ("data", "fsdp")),
    )
specs = (P(("data", "fsdp")), P("data", "fsdp"), P(None, ("fsdp", "data")), P())
exchange = jax.shard_map(moved, mesh=mesh, in_specs=P("data", "fsdp"), out_specs=specs, check_vma=False)
show(exchange, array((16, 64), "data", "fsdp"))
"""


def compile_and_read(platform):
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, platform], env=os.environ | flags, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return [json.loads(line) for line in run.stdout.splitlines()[-2:]]


@pytest.mark.parametrize(
    "platform",
    [
        "cpu",
        pytest.param("tpu", marks=pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")),
    ],
)
def test_compiled_programs(platform):
    scanned, moved = compile_and_read(platform)
    # every iteration gathers one (256, 256) float32 from its 4 shards (TPU's compiler may make it bfloat16)
    size = sum(bytes_ * count for kind, bytes_, *_, count, _ in scanned if kind == "all-gather")
    assert size in (5 * 256 * 256 * 4, 5 * 256 * 256 * 2)
    assert all(known and axes == ["fsdp"] for _, _, _, axes, _, known in scanned)
    local = 8 * 16 * 4
    expected = [
        ["all-reduce", local, 8, ["data", "fsdp"], 1, True],
        ["all-to-all", local, 4, ["fsdp"], 1, True],
        ["collective-permute", local, 2, ["data"], 1, True],
        # TPU's compiler makes an all-reduce and a slice of so small a reduce-scatter
        ["reduce-scatter" if platform == "cpu" else "all-reduce", local, 2, ["data"], 1, True],
    ]
    assert sorted(moved) == sorted(expected)


def one(line, *, entry="", computations="", partitions=8):
    text = f"HloModule m, num_partitions={partitions}\n\n{computations}\nENTRY %main (x: f32[4]) -> f32[4] {{\n{entry}"
    return read_collectives(f"{text}  {line}\n}}\n")


@pytest.mark.parametrize(
    ("line", "kind", "size", "group"),
    [
        (
            "%a = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%x), replica_groups={{0,1},{2,3}}, dimensions={0}",
            "all-gather", 64, (0, 1),
        ),
        (
            "ROOT %a = f32[8]{0} reduce-scatter(%x), replica_groups=[4,2]<=[8], dimensions={0}, to_apply=%add",
            "reduce-scatter", 64, (0, 1),
        ),
        ("%a = f32[8] all-reduce(%x), replica_groups=[2,4]<=[4,2]T(1,0)", "all-reduce", 32, (0, 2, 4, 6)),
        ("%a = f32[8] all-reduce(%x), replica_groups={}, to_apply=%add", "all-reduce", 32, tuple(range(8))),
        (
            "%a = (f32[8]{0}, /*index=1*/bf16[2,2]{1,0}) all-reduce(%x, %y), replica_groups={{0,4}}, to_apply=%add",
            "all-reduce", 40, (0, 4),
        ),
        (
            "%a = f32[8] all-gather(%x), replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2], "
            "device_ids=([2,4]T(1,0)) {'axis_0'}, dimensions={0}",
            "all-gather", 32, (0, 1, 2, 3),
        ),
        ("%a = f32[8] all-gather(%x), replica_groups=mesh['a'=8] {'a':(2)2}, dimensions={0}", "all-gather", 32, (0, 2)),
        (
            "%a = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups={{0,1,2,3}}, dimensions={0}",
            "all-gather", 32, (0, 1, 2, 3),
        ),
        (
            "%a = ((f32[2], f32[4]), (f32[8], f32[16])) all-gather-start(%x, %y), replica_groups={{0,1,2,3}}",
            "all-gather", 96, (0, 1, 2, 3),
        ),
        ("%a = f32[8] all-reduce-start(%x), replica_groups={{0,1}}, to_apply=%add", "all-reduce", 32, (0, 1)),
        (
            "%a = ((f32[8]{0}), f32[4]{0}, u32[], u32[]) reduce-scatter-start(%x), replica_groups={{0,1}}",
            "reduce-scatter", 32, (0, 1),
        ),
        (
            "%a = (bf16[8], bf16[8], u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), "
            "source_target_pairs={{0,1},{1,2},{2,0}}",
            "collective-permute", 16, (2, 0),
        ),
        ("%a = (f32[4], f32[4]) all-to-all(%x, %y), replica_groups={{0,4},{1,5}}", "all-to-all", 32, (0, 4)),
    ],
)  # fmt: skip
def test_single_lines(line, kind, size, group):
    (found,) = one(line)
    assert (found.kind, found.bytes, found.group, found.count) == (kind, size, group, 1)


@pytest.mark.parametrize(
    "line",
    [
        "%b = f32[8] all-gather-done(%a)",
        "%b = f32[8] get-tuple-element(%all-gather.1), index=0",
        '%b = f32[8] fusion(%all-reduce.1), kind=kLoop, calls=%none, metadata={op_name="all-reduce("}',
    ],
)
def test_what_is_no_collective(line):
    assert one(line, computations="%none (p: f32[8]) -> f32[8] {\n  ROOT %p = f32[8] parameter(0)\n}\n") == []


def test_tpu_parts_of_one_async_collective_count_once():
    part = (
        "%{name} (p: f32[2]) -> f32[8] {{\n"
        '  %g.{name} = f32[8] all-gather(%p), replica_groups={{{{0,1,2,3}}}}, frontend_attributes={{chain_id="0"}}\n'
        '  ROOT %c.{name} = f32[8] custom-call(%g.{name}), custom_call_target="{target}"\n}}\n\n'
    )
    targets = {"start": "AsyncCollectiveStart", "hidden": "Other", "done": "AsyncCollectiveDone"}
    computations = "".join(part.format(name=name, target=target) for name, target in targets.items())
    entry = "".join(f"  %{name}.1 = f32[8] fusion(%x), kind=kCustom, calls=%{name}\n" for name in targets)
    (found,) = one("ROOT %r = f32[8] copy(%done.1)", entry=entry, computations=computations)
    assert (found.kind, found.bytes, found.count) == ("all-gather", 32, 1)


def test_tpu_all_reduce_that_is_scattered_is_a_reduce_scatter():
    computations = (
        "%all-reduce-scatter.1 (i: f32[8]) -> f32[2] {\n"
        "  %r = f32[8] all-reduce(%i), replica_groups={{0,1,2,3}}, to_apply=%add\n"
        "  ROOT %d = f32[2] dynamic-slice(%r, %at), dynamic_slice_sizes={2}\n}\n"
    )
    (found,) = one("ROOT %f = f32[2] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1", computations=computations)
    assert (found.kind, found.bytes) == ("reduce-scatter", 32)


LOOP = """%body (s: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %r = f32[8] all-reduce(%v), replica_groups={{{{0,1}}}}, to_apply=%add
  ROOT %t = (s32[], f32[8]) tuple(%i, %r)
}}

%condition (s: (s32[], f32[8])) -> pred[] {{
  %n = s32[]{{:T(128)}} constant(7)
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=0
  ROOT %lt = pred[] compare(%i, %n), direction={direction}
}}
"""


@pytest.mark.parametrize(
    ("direction", "start", "stated", "count", "known"),
    [
        ("LT", 0, "", 7, True),
        ("LT", 3, "", 4, True),
        ("NE", 0, "", 1, False),
        ("NE", 0, ', backend_config={"known_trip_count":{"n":"5"}}', 5, True),
    ],
)
def test_loops(direction, start, stated, count, known):
    entry = (
        f"  %zero = s32[] constant({start})\n  %z = s32[] copy(%zero)\n  %state = (s32[], f32[8]) tuple(%z, %x)\n"
        f"  %w = (s32[], f32[8]) while(%state), condition=%condition, body=%body{stated}\n"
    )
    (found,) = one("ROOT %o = f32[8] copy(%x)", entry=entry, computations=LOOP.format(direction=direction))
    assert (found.count, found.trip_count_known) == (count, known)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        read_collectives("module @jit_f {}")
