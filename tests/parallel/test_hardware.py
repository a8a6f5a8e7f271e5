import jax.numpy as jnp
import pytest

from gen1_jax.parallel.hardware import PEAK_FLOPS, default_dtype, peak_flops


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),  # v5p
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("TPU v6e", 918),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.5),
        ("NVIDIA B200", 2250),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA A10", 125),
        ("Tesla T4", 65),
        ("NVIDIA A10G", None),
        ("cpu", None),
    ],
)
def test_peaks_of_devices_as_jax_names_them(kind, teraflops):
    assert peak_flops(kind) == (None if teraflops is None else teraflops * 1e12)


def test_every_peak_has_a_source():
    assert all(source.startswith("https://") for _, _, source in PEAK_FLOPS)


@pytest.mark.parametrize(
    ("platform", "capability", "dtype"),
    [
        ("cpu", None, jnp.float32),
        ("tpu", None, jnp.bfloat16),
        ("gpu", "7.5", jnp.float16),
        ("gpu", "8.0", jnp.bfloat16),
        ("gpu", "12.0", jnp.bfloat16),
        ("gpu", "gfx942", jnp.bfloat16),
        (None, None, jnp.float32),
    ],
)
def test_each_device_computes_in_what_it_has(platform, capability, dtype):
    assert default_dtype(platform, capability) == dtype
