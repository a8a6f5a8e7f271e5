"""The machine that a run is planned for, by name: "v5e:16x16", "gpu:h200:64"; and its compile-only devices."""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from gen1_jax.errors import UserError, counted
from gen1_jax.parallel.hardware import CHIPS, Chip

# libtpu reads these as it loads: do not ask the cloud who we are, let several processes compile at once, and (the last
# three, of any value) do not warn that we are nobody.
_OFFLINE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}


class MissingTpuCompiler(ImportError):
    """libtpu is not installed, so nothing can be compiled for a TPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Chips of one kind, connected: a TPU slice, or GPU hosts of 8.

    Attributes:
        name: canonical, as `parse_topology` takes it.
        chip: figures of one chip.
        shape: TPU: sizes of the torus; GPU: (number of chips,).
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """Number of chips, each one device."""
        return math.prod(self.shape)

    @property
    def platform(self) -> str:
        """What jax calls it when lowering: "tpu" or "cuda"."""
        return {"gpu": "cuda"}.get(self.chip.platform, self.chip.platform)

    @property
    def hosts(self) -> int:
        """Number of hosts (jax processes)."""
        return math.ceil(self.chips / self.chip.chips_per_host)


def parse_topology(text: str) -> Topology:
    """Reads "v5e:16x16", "v6e:16x16" (two sizes), "v4:2x2x4", "v5p:4x4x8" (three) or "gpu:h200:64".

    Raises:
        ValueError: unknown chip, wrong number of sizes, or sizes that no slice has; the message names the forms.
    """
    gpus = [name for name, chip in CHIPS.items() if chip.platform == "gpu"]
    forms = f"v4:2x2x4, v5e:16x16, v5p:4x4x8, v6e:16x16 (any sizes) or gpu:{'|'.join(gpus)}:COUNT"
    match = re.fullmatch(r"(?:(gpu):)?([a-z0-9]+):([1-9]\d*(?:x[1-9]\d*)*)", text.strip().lower())
    chip = CHIPS.get(match[2]) if match else None
    if match is None or chip is None or (chip.platform == "gpu") != bool(match[1]):
        raise UserError(f"topology {text!r} is not known: expected {forms}")
    shape = tuple(int(size) for size in match[3].split("x"))
    if len(shape) != (chip.torus_dimensions or 1):
        raise UserError(f"topology {text!r} has {counted(len(shape), 'size')}: expected {forms}")
    topology = Topology(name=match[0], chip=chip, shape=shape)
    if chip.platform == "gpu" and topology.hosts > 1 and topology.chips % chip.chips_per_host:
        raise UserError(f"topology {text!r}: more than one host of {chip.chips_per_host} takes a multiple of them")
    if chip.platform == "tpu" and topology.chips > 1 and any(size % 2 for size in shape[:2]):
        raise UserError(f"topology {text!r}: the first two sizes are even, or all are 1 (a host holds 2x2 chips)")
    if chip.largest_slice and topology.chips > chip.largest_slice:
        raise UserError(
            f"topology {text!r} has {counted(topology.chips, 'chip')}: "
            f"the largest {chip.name} slice has {chip.largest_slice}"
        )
    return topology


def tpu_devices(topology: Topology) -> list[Any]:
    """Compile-only jax devices of a TPU slice that need not exist, one a chip, for a `Mesh` to lower and compile on.

    Call it in a process where JAX_PLATFORMS is "cpu" (set before jax starts), so that arrays made on the way live on
    the host. `jax.experimental.mesh_utils.create_device_mesh` lays mesh axes on the torus; axes that split one of its
    dimensions (8x16x2 on 16x16) need `allow_split_physical_axes=True`.

    Raises:
        MissingTpuCompiler: libtpu is not installed.
        ValueError: the topology is not a TPU's, or libtpu does not know its sizes.
    """
    if topology.chip.platform != "tpu":
        raise UserError(f"{topology.name} has no TPU devices")
    if importlib.util.find_spec("libtpu") is None:
        raise MissingTpuCompiler(f"compiling for {topology.name} needs libtpu: install gen1-jax[tpu]")
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # else libtpu gives two devices a chip, as no jax run on v4 has
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except JaxRuntimeError as error:
        raise UserError(f"libtpu has no topology {topology.name}: {str(error).splitlines()[0]}") from error
    return list(description.devices)
