import subprocess
import sys

import pytest
from processes_of_a_test import free_port, simulated

from gen1_jax.parallel import distributed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(coordinator_address="a:1"), "num_processes and process_id must be given too"),
        (dict(num_processes=2, process_id=0), "coordinator_address must be given too"),
        (dict(coordinator_address="host", num_processes=2, process_id=0), "not host:port"),
        (dict(coordinator_address="a:1", num_processes=2, process_id=2), "process_id is 2, not in 0 ... 1"),
    ],
)
def test_half_given_arguments_are_one_clear_line(given, message):
    with pytest.raises(ValueError, match=message) as error:
        distributed.initialise(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        ({"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "2"}, "Slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU pod"),
        ({"MEGASCALE_NUM_SLICES": "2"}, "TPU pod"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes job"),
    ],
)
def test_environment_decides(environment, cluster, monkeypatch):
    called = []
    monkeypatch.setattr(distributed.os, "environ", {"TPU_SKIP_MDS_QUERY": "1"} | environment)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda **given: called.append(given))
    monkeypatch.setattr(distributed.jax.config, "update", lambda *args: None)
    assert distributed._cluster() == cluster
    distributed.initialise()
    assert len(called) == (cluster is not None)


PROCESS = """
import sys
import jax, numpy as np
from gen1_jax.parallel.distributed import initialise
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
port, process = map(int, sys.argv[1:])
for _ in range(2):
    initialise(f"localhost:{port}", 2, process)
layout = Layout(make_mesh(MeshConfig(data=2, fsdp=2)), smallest=1)
index, count = layout.process_shard()
rows = np.arange(8.0)[index * 4:][:8 // count]
batch = layout.put_batch({"x": rows})["x"]
weights = layout.put(lambda: np.ones((4, 4)), layout.at_rest({"w": np.ones((4, 4))}, ())["w"])
total = jax.jit(lambda x, w: (x * x).sum() * w.sum(), out_shardings=layout.replicated())(batch, weights)
print(jax.device_count(), index, count, batch.shape, float(total))
jax.distributed.shutdown()
"""


def test_two_processes_make_one_batch():
    port = str(free_port())
    command = [sys.executable, "-c", PROCESS, port]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    both = [subprocess.Popen([*command, str(i)], env=simulated(2), **pipes) for i in range(2)]
    try:
        results = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.kill()
    for i, (out, error) in enumerate(results):
        expected = f"4 {i} 2 (8,) {16 * sum(x * x for x in range(8)):.1f}"
        assert out.splitlines()[-1:] == [expected], error
