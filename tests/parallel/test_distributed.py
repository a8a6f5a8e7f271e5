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
    if called:
        assert called[0]["num_processes"] is None and called[0]["cluster_detection_method"] is None


SLURM = {"SLURM_STEP_NODELIST": "a[1-2]", "SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "given", "all_gpus"),
    [
        (SLURM | {"SLURM_STEP_NUM_NODES": "2"}, {}, False),  # two a node: JAX gives each the GPU of its number
        (SLURM | {"SLURM_STEP_NUM_NODES": "4"}, {}, True),  # alone on its node
        (SLURM | {"SLURM_STEP_NUM_NODES": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, {}, False),
        (SLURM | {"SLURM_STEP_NUM_NODES": "2", "CUDA_VISIBLE_DEVICES": "1"}, {}, True),  # --gpus-per-task=1
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, {}, False),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, {}, True),
        (SLURM, dict(coordinator_address="h:1", num_processes=2, process_id=1), False),  # JAX leaves all to it
    ],
)
def test_a_process_takes_all_gpus_that_it_shares_with_none(environment, given, all_gpus, monkeypatch):
    """And what is given by hand is not mixed with what Slurm says."""
    called, updated = [], {}
    monkeypatch.setattr(distributed.os, "environ", {"TPU_SKIP_MDS_QUERY": "1"} | environment)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", lambda **arguments: called.append(arguments))
    monkeypatch.setattr(distributed.jax.config, "update", updated.__setitem__)
    distributed.initialise(**given)
    assert updated.get("jax_cuda_visible_devices") == ("all" if all_gpus else None)
    if given:
        assert called[0].items() >= (given | {"cluster_detection_method": "deactivate"}).items()


def test_what_jax_needs_of_kubernetes_is_one_clear_line(monkeypatch):
    def refuse(**given):
        raise RuntimeError("Kubernetes API Error: 403\nForbidden")

    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0", "TPU_SKIP_MDS_QUERY": "1"}
    monkeypatch.setattr(distributed.os, "environ", environment)
    monkeypatch.setattr(distributed.jax.distributed, "initialize", refuse)
    monkeypatch.setattr(distributed.jax.config, "update", lambda *args: None)
    message = (
        "Kubernetes job.: Kubernetes API Error: 403 Forbidden It takes the package kubernetes .* coordinator_address"
    )
    with pytest.raises(ValueError, match=message):
        distributed.initialise()


STRAGGLER = """
import sys
from gen1_jax.cli import main
from gen1_jax.parallel import distributed
distributed._FIRST_WORD, distributed._FURTHER_WORDS = 0.5, 1
port, process = sys.argv[1:]
joined = ["--coordinator-address", f"localhost:{port}", "--num-processes", "3", "--process-id", process]
sys.exit(main(["train", "--config", "a.py", "--workdir", "b", "--join-timeout", "2", *joined]))
"""


@pytest.mark.parametrize("process", [0, 2])
def test_stragglers_are_waited_for_with_a_word_and_given_up_in_one_line(process):
    port = free_port()
    command = [sys.executable, "-c", STRAGGLER, str(port), str(process)]
    done = subprocess.run(command, env=simulated(1), capture_output=True, text=True, timeout=60)
    waiting = f"waiting for 3 processes at localhost:{port} (this is process {process})"
    assert done.stderr.splitlines() == [
        f"gen1: {waiting}, 0.5 s so far",
        f"gen1: {waiting}, 1 s so far",
        f"gen1: gave up after 2 s of {waiting}; the log of one that is missing says why",
    ]
    assert done.returncode == 2 and not done.stdout


PROCESS = """
import sys
import jax, numpy as np
from gen1_jax.parallel.distributed import initialise, leave
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
leave()
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
