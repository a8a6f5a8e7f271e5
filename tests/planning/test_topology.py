import importlib.util
import json
import os
import subprocess
import sys

import pytest

from gen1_jax.parallel.hardware import CHIPS
from gen1_jax.planning import topology as topology_module
from gen1_jax.planning.topology import MissingTpuCompiler, parse_topology, tpu_devices

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


def test_every_figure_is_positive_and_has_a_source():
    figures = ("peak_flops", "hbm_bytes", "hbm_bandwidth", "interconnect_bandwidth", "network_bandwidth")
    assert {"v4", "v5e", "v5p", "v6e", "h100", "h200"} <= set(CHIPS)
    for chip in CHIPS.values():
        for name in (*figures, "chips_per_host"):
            assert getattr(chip, name) > 0
            assert chip.sources[name].startswith("https://") or chip.sources[name] == "libtpu"
        assert chip.network_bandwidth < chip.interconnect_bandwidth < chip.hbm_bandwidth < chip.peak_flops


def test_units_of_the_figures():
    """By hand: v5e 400 GB/s both ways, 6.4 Tbit/s a pod of 256; H200 1,979 TFLOP/s with sparsity, 400 Gbit/s."""
    v5e, h200 = CHIPS["v5e"], CHIPS["h200"]
    assert (v5e.interconnect_bandwidth, v5e.network_bandwidth) == (200e9, 3.125e9)
    assert (h200.peak_flops, h200.interconnect_bandwidth, h200.network_bandwidth) == (989.5e12, 450e9, 50e9)


@pytest.mark.parametrize(
    ("text", "shape", "chips", "platform", "hosts"),
    [
        ("v5e:16x16", (16, 16), 256, "tpu", 64),
        ("v5p:4x4x8", (4, 4, 8), 128, "tpu", 32),
        (" V6E:16x16 ", (16, 16), 256, "tpu", 64),
        ("v4:2x2x4", (2, 2, 4), 16, "tpu", 4),
        ("v5e:1x1", (1, 1), 1, "tpu", 1),
        ("gpu:h200:8", (8,), 8, "cuda", 1),
        ("gpu:h200:64", (64,), 64, "cuda", 8),
        ("gpu:h100:2", (2,), 2, "cuda", 1),
    ],
)
def test_names(text, shape, chips, platform, hosts):
    topology = parse_topology(text)
    assert (topology.shape, topology.chips, topology.platform, topology.hosts) == (shape, chips, platform, hosts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v9:4x4", "v5e:16x16"),
        ("h200:8", "gpu:"),
        ("gpu:v5e:8", "gpu:"),
        ("v5e:16", "sizes"),
        ("v5p:4x4", "sizes"),
        ("gpu:h200:4x2", "sizes"),
        ("v5e:0x4", "v5e:16x16"),
        ("v5e:3x3", "even"),
        ("v5e:32x32", "256"),
        ("gpu:h200:12", "multiple"),
        ("", "v5e:16x16"),
    ],
)
def test_wrong_names_are_one_line_that_says_what_to_write(text, says):
    with pytest.raises(ValueError, match=r".") as error:
        parse_topology(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_missing_libtpu_names_the_extra(monkeypatch):
    monkeypatch.setattr(topology_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingTpuCompiler, match=r"install gen1-jax\[tpu\]"):
        tpu_devices(parse_topology("v5e:2x4"))
    with pytest.raises(ValueError, match="no TPU"):
        tpu_devices(parse_topology("gpu:h200:8"))


@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
def test_libtpu_knows_the_topologies():
    """One device a chip (also on v4, where libtpu's default is one a core), and as many hosts as we say."""
    names = ["v4:2x2x4", "v5e:1x1", "v5e:2x4", "v5e:16x16", "v5p:4x4x8", "v6e:16x16"]
    code = (
        "import json, sys\n"
        "from gen1_jax.planning.topology import parse_topology, tpu_devices\n"
        "for name in sys.argv[1:]:\n"
        "    devices = tpu_devices(parse_topology(name))\n"
        "    print(json.dumps([len(devices), len({d.process_index for d in devices})]))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *names],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [tuple(json.loads(line)) for line in run.stdout.splitlines()[-len(names) :]]
    assert found == [(t.chips, t.hosts) for t in map(parse_topology, names)]
