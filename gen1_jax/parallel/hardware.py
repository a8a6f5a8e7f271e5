"""Published figures of the chips that a run can be planned for: dense bfloat16, per chip."""

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator chip (of TPU v4 and v5p both cores together), in SI units.

    Attributes:
        name: as in a topology: "v5e", "h200".
        platform: "tpu" or "gpu".
        peak_flops: dense bfloat16 FLOP/s.
        hbm_bytes: memory that a program can use. TPU: the limit that libtpu's compiler states when a program does not
            fit (published: 32, 16, 95 and 32 GB, of which some is reserved). GPU: as published.
        hbm_bandwidth: bytes/s.
        interconnect_bandwidth: bytes/s that a chip can send over all its ICI or NVLink links together, one direction
            (half of what data sheets state, which is both directions).
        torus_dimensions: of the TPU's torus, each with an equal share of the links. 0: a switch (NVLink), through
            which any two chips have the whole bandwidth.
        network_bandwidth: bytes/s to other hosts (GPU) or slices (TPU), one chip's share, one direction.
        chips_per_host: TPU: of a worker in a slice of several hosts. GPU: of an NVLink domain.
        largest_slice: chips of the largest machine that can be had (TPU); None: no limit.
        sources: figure -> where it was published.
    """

    name: str
    platform: str
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    interconnect_bandwidth: float
    torus_dimensions: int
    network_bandwidth: float
    chips_per_host: int
    largest_slice: int | None
    sources: Mapping[str, str]


_BOOK = "https://jax-ml.github.io/scaling-book/tpus/"
_DGX = "https://docs.nvidia.com/dgx-basepod/reference-architecture-infrastructure-foundation-enterprise-ai/latest/"
_A100 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"

# peak TFLOP/s, HBM GiB, HBM GB/s, ICI GB/s (both directions), torus dimensions, network Gbit/s, largest slice
_TPUS = {
    "v4": (275, 30.75, 1200, 6 * 90, 3, 200 / 4, 4096),  # ICI: six links; network: a host's
    "v5e": (197, 15.75, 819, 400, 2, 6400 / 256, 256),  # network: a pod's
    "v5p": (459, 95.74, 2765, 1200, 3, 50, 6144),
    "v6e": (918, 31.25, 1638, 800, 2, 25600 / 256, 256),
}
_TPU_ELSEWHERE = {"v4": {"interconnect_bandwidth": _BOOK, "network_bandwidth": _BOOK}}

# peak TFLOP/s, HBM GB, HBM GB/s, NVLink GB/s (both directions), network Gbit/s, page, page of the host; all SXM
_GPUS = {
    "a100": (312, 80, 2039, 600, 200, _A100 + "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
             "https://docs.nvidia.com/dgx/dgxa100-user-guide/introduction-to-dgxa100.html"),
    "h100": (1979 / 2, 80, 3350, 900, 400, "https://www.nvidia.com/en-us/data-center/h100/", _DGX),  # 2: sparsity
    "h200": (1979 / 2, 141, 4800, 900, 400, "https://www.nvidia.com/en-us/data-center/h200/", _DGX),
    "b200": (72e3 / 8 / 4, 1440 / 8, 64e3 / 8, 14.4e3 / 8, 400, "https://www.nvidia.com/en-us/data-center/dgx-b200/",
             _DGX),  # of eight; from FP8 with sparsity
}  # fmt: skip


def _tpu(name: str) -> Chip:
    peak, hbm, hbm_speed, ici, dimensions, network, largest = _TPUS[name]
    page = f"https://docs.cloud.google.com/tpu/docs/{name}"
    sources = {field.name: page for field in dataclasses.fields(Chip)[2:-1]}
    return _chip(name, "tpu", peak, hbm * 2**30, hbm_speed, ici, dimensions, network, 4, largest,
                 sources | {"hbm_bytes": "libtpu"} | _TPU_ELSEWHERE.get(name, {}))  # fmt: skip


def _gpu(name: str) -> Chip:
    peak, hbm, hbm_speed, nvlink, network, page, host = _GPUS[name]
    sources = dict.fromkeys(("peak_flops", "hbm_bytes", "hbm_bandwidth", "interconnect_bandwidth"), page)
    sources |= dict.fromkeys(("torus_dimensions", "network_bandwidth", "chips_per_host"), host)
    return _chip(name, "gpu", peak, hbm * 1e9, hbm_speed, nvlink, 0, network, 8, None, sources)


def _chip(
    name, platform, teraflops, hbm_bytes, hbm_gigabytes, links_gigabytes, dimensions, gigabits, host, largest, sources
):
    return Chip(
        name=name,
        platform=platform,
        peak_flops=teraflops * 1e12,
        hbm_bytes=hbm_bytes,
        hbm_bandwidth=hbm_gigabytes * 1e9,
        interconnect_bandwidth=links_gigabytes * 1e9 / 2,
        torus_dimensions=dimensions,
        network_bandwidth=gigabits * 1e9 / 8,
        chips_per_host=host,
        largest_slice=largest,
        sources=MappingProxyType(sources),
    )


CHIPS: Mapping[str, Chip] = MappingProxyType(
    {name: _tpu(name) for name in _TPUS} | {name: _gpu(name) for name in _GPUS}
)


_TESLA = "https://www.nvidia.com/content/dam/en-zz/Solutions/"

PEAK_FLOPS: tuple[tuple[str, float, str], ...] = (
    (r"tpu v4$", CHIPS["v4"].peak_flops, CHIPS["v4"].sources["peak_flops"]),
    (r"tpu v5( lite|e)", CHIPS["v5e"].peak_flops, CHIPS["v5e"].sources["peak_flops"]),
    (r"tpu v5p?$", CHIPS["v5p"].peak_flops, CHIPS["v5p"].sources["peak_flops"]),
    (r"tpu v6( lite|e)", CHIPS["v6e"].peak_flops, CHIPS["v6e"].sources["peak_flops"]),
    (r"h100 pcie", 756e12, _TESLA + "gtcs22/data-center/h100/PB-11133-001_v01.pdf"),
    (r"h[12]00 nvl", 1671e12 / 2, "https://www.nvidia.com/en-us/data-center/h200/"),  # 2: sparsity, here and below
    (r"\bh100\b", CHIPS["h100"].peak_flops, CHIPS["h100"].sources["peak_flops"]),
    (r"\bg?h200\b", CHIPS["h200"].peak_flops, CHIPS["h200"].sources["peak_flops"]),
    (r"\bb200\b", CHIPS["b200"].peak_flops, CHIPS["b200"].sources["peak_flops"]),
    (r"\ba100\b", CHIPS["a100"].peak_flops, CHIPS["a100"].sources["peak_flops"]),
    (r"\bl4\b", 242e12 / 2, "https://www.nvidia.com/en-us/data-center/l4/"),
    (r"\bl40s\b", 362.05e12, "https://www.nvidia.com/en-us/data-center/l40s/"),
    (r"\ba10\b", 125e12, "https://www.nvidia.com/en-us/data-center/products/a10-gpu/"),
    (r"\bt4\b", 65e12, "https://www.nvidia.com/en-us/data-center/tesla-t4/"),  # float16: it has no bfloat16
)
"""What JAX calls a device (lower case; the first pattern found counts), FLOP/s, and where they are published."""


def peak_flops(device_kind: str) -> float | None:
    """Dense FLOP/s in half precision of a device as JAX names its kind ("TPU v5 lite", "NVIDIA H100 PCIe"), or None.

    Of TPU v4 and later a device is a chip. JAX calls v5p "TPU v5", v5e "TPU v5 lite" and v6e "TPU v6 lite".
    """
    kind = device_kind.lower()
    return next((peak for pattern, peak, _ in PEAK_FLOPS if re.search(pattern, kind)), None)


def default_dtype(platform: str | None = None, compute_capability: str | None = None) -> jnp.dtype:
    """What a device computes fast and well in: bfloat16, float16 where a GPU has no bfloat16 (T4), float32 on CPUs.

    Args:
        platform: "cpu", "gpu" or "tpu"; None for the default device, whose capability is then read too.
        compute_capability: of an NVIDIA GPU, as "7.5"; bfloat16 from 8.0 on. None, or AMD's "gfx942": bfloat16.
    """
    if platform is None:
        platform = jax.default_backend()
        compute_capability = getattr(jax.devices()[0], "compute_capability", None)
    if platform == "cpu":
        return jnp.dtype(jnp.float32)
    old = platform == "gpu" and re.fullmatch(r"[0-7]\.\d", compute_capability or "")
    return jnp.dtype(jnp.float16 if old else jnp.bfloat16)
