"""Several processes as one: `initialise` before anything else touches a device."""

import concurrent.futures
import glob
import os
import threading
import time
from collections.abc import Callable
from functools import partial

import jax
from jax._src import distributed as _internals  # nothing public tells the address before all have come

from gen1_jax.errors import UserError, counted

JOIN_SECONDS = 600.0
"""How long processes wait for each other, unless told otherwise: images are pulled, nodes boot."""

_FIRST_WORD, _FURTHER_WORDS = 10.0, 60.0  # seconds of waiting


def initialise(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float | int = JOIN_SECONDS,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Join the other processes of this run, if there are any.

    Without arguments the environment decides: Slurm, Open MPI, an indexed Kubernetes job, a TPU pod. Given arguments
    are taken as they are. One process alone is left alone, and so is one that has joined.

    Where Slurm or Open MPI start several processes a node, each takes the GPU of its number there, unless it sees
    only one (CUDA_VISIBLE_DEVICES); in all other cases a process takes all that it sees.

    Args:
        coordinator_address: host:port of process 0; give all three or none.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        timeout: seconds to wait for the others.
        say: called with a line about whom it waits for, after a while and then every minute.

    Raises:
        ValueError: some but not all arguments, numbers out of range, or a cluster that JAX cannot read.
        TimeoutError: not all have come.
    """
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    if lacking := [name for name, value in given.items() if value is None]:
        if len(lacking) < len(given):
            raise UserError(f"{' and '.join(lacking)} must be given too: several processes need {', '.join(given)}")
        cluster = _cluster()
        if cluster is None:
            return
    else:
        cluster = _EXPLICIT
        _check(coordinator_address, num_processes, process_id)
        if num_processes == 1:
            return
    if timeout <= 0:
        raise UserError(f"processes cannot be waited for {timeout} seconds")
    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    detection = "deactivate" if cluster == _EXPLICIT else None
    # JAX would end the process with a stack trace: so that it never comes to that, its own patience is greater.
    patience = int(timeout) + 300
    join = partial(jax.distributed.initialize, cluster_detection_method=detection, initialization_timeout=patience)
    try:
        _wait(partial(join, **given), timeout, say)
    except (ValueError, RuntimeError) as error:
        if cluster == _TPU_HOST and isinstance(error, ValueError):  # its metadata knows of no pod
            return
        reason = " ".join(str(error).split())
        raise UserError(
            f"processes could not be joined ({cluster}): {reason} {_MENDS.get(cluster, 'Give')} {', '.join(given)}"
        ) from None
    if cluster in (_SLURM, _OPEN_MPI) and not _shares_gpus():
        for name in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
            jax.config.update(name, "all")


def leave() -> None:
    """Waits until all processes of this run have come to the same end: process 0 would take the others with it."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def _check(coordinator_address: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator_address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"coordinator_address is {coordinator_address!r}, not host:port")
    if not 0 <= process_id < num_processes:
        raise UserError(f"process_id is {process_id}, not in 0 ... {num_processes - 1} (num_processes - 1)")


def _wait(join: Callable[[], None], timeout: float | int, say: Callable[[str], None]) -> None:
    """Calls `join` aside, so that time and Ctrl-C still count: it blocks in C++ until all processes have come."""
    outcome: concurrent.futures.Future = concurrent.futures.Future()

    def run() -> None:
        try:
            outcome.set_result(join())
        except BaseException as error:
            outcome.set_exception(error)

    began, word = time.monotonic(), _FIRST_WORD
    threading.Thread(target=run, daemon=True).start()
    while True:
        waited = time.monotonic() - began
        if concurrent.futures.wait([outcome], max(0.0, min(word, timeout) - waited)).done:
            return outcome.result()
        if word >= timeout:
            raise TimeoutError(f"gave up after {timeout:g} s of {_waiting()}; the log of one that is missing says why")
        say(f"{_waiting()}, {word:g} s so far")
        word = (0 if word == _FIRST_WORD else word) + _FURTHER_WORDS


def _waiting() -> str:
    state = _internals.global_state
    if not (address := getattr(state, "coordinator_address", None)):
        return "waiting for the address of process 0"
    processes = counted(state.num_processes, "process", "processes")
    return f"waiting for {processes} at {address} (this is process {state.process_id})"


_EXPLICIT = "as told"
_SLURM, _OPEN_MPI = "Slurm", "Open MPI"
_TPU_HOST = "TPU host"
_KUBERNETES = "Kubernetes job"
_MENDS = {_KUBERNETES: "It takes the package kubernetes and the right to read pods and jobs; or give"}


def _cluster() -> str | None:
    """What the environment shows of several processes.

    Decided here rather than by asking JAX, which answers only by failing, and only before devices are in use.
    """
    env = os.environ
    count = lambda name: int(env.get(name, "1"))
    workers = env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES", ""))
    if "SLURM_STEP_NODELIST" in env and count("SLURM_NTASKS") > 1:
        return _SLURM
    if count("OMPI_COMM_WORLD_SIZE") > 1:
        return _OPEN_MPI
    if "," in workers or count("MEGASCALE_NUM_SLICES") > 1:
        return "TPU pod"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env and not workers:
        return _KUBERNETES
    has_chips = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
    asks_metadata = not workers and "TPU_SKIP_MDS_QUERY" not in env
    return _TPU_HOST if has_chips and asks_metadata else None


def _shares_gpus() -> bool:
    """Whether this process sees GPUs of others on its node, so that it takes one by its number, as JAX lets it."""
    env = os.environ
    tasks = int(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", env.get("SLURM_NTASKS", "2")))
    nodes = 1 if "OMPI_COMM_WORLD_LOCAL_SIZE" in env else int(env.get("SLURM_STEP_NUM_NODES", "1"))
    sees_several = "," in env.get("CUDA_VISIBLE_DEVICES", ",")
    return "JAX_LOCAL_DEVICE_IDS" in env or (tasks > nodes and sees_several)
