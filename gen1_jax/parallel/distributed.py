"""Several processes as one: `initialise` before anything else touches a device."""

import glob
import os

import jax


def initialise(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Join the other processes of this run, if there are any.

    Without arguments the environment decides: Slurm, Open MPI, an indexed Kubernetes job, a TPU pod. One process
    alone is left alone, and so is one that has joined.

    Args:
        coordinator_address: host:port of process 0; give all three or none.
        num_processes: how many there are.
        process_id: which one this is, from 0.

    Raises:
        ValueError: some but not all arguments, numbers out of range, or a cluster that JAX cannot read.
    """
    given = {"coordinator_address": coordinator_address, "num_processes": num_processes, "process_id": process_id}
    if lacking := [name for name, value in given.items() if value is None]:
        if len(lacking) < len(given):
            raise ValueError(f"{' and '.join(lacking)} must be given too: several processes need {', '.join(given)}")
        cluster = _cluster()
        if cluster is None:
            return
    else:
        cluster = "explicit"
        _check(coordinator_address, num_processes, process_id)
        if num_processes == 1:
            return
    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**given)
    except ValueError as error:
        if cluster == _TPU_HOST:  # its metadata knows of no pod
            return
        reason = " ".join(str(error).split())
        raise ValueError(f"processes could not be joined ({cluster}): {reason} Give {', '.join(given)}") from None


def _check(coordinator_address: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator_address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"coordinator_address is {coordinator_address!r}, not host:port")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"process_id is {process_id}, not in 0 ... {num_processes - 1} (num_processes - 1)")


_TPU_HOST = "TPU host"


def _cluster() -> str | None:
    """What the environment shows of several processes.

    Decided here rather than by asking JAX, which answers only by failing, and only before devices are in use.
    """
    env = os.environ
    count = lambda name: int(env.get(name, "1"))
    workers = env.get("TPU_PROCESS_ADDRESSES", env.get("TPU_WORKER_HOSTNAMES", ""))
    if "SLURM_STEP_NODELIST" in env and count("SLURM_NTASKS") > 1:
        return "Slurm"
    if count("OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if "," in workers or count("MEGASCALE_NUM_SLICES") > 1:
        return "TPU pod"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env and not workers:
        return "Kubernetes job"
    has_chips = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
    asks_metadata = not workers and "TPU_SKIP_MDS_QUERY" not in env
    return _TPU_HOST if has_chips and asks_metadata else None
