"""Initial values: drawn in parts, the same as whole."""

import copy
import gc
import pickle
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.models import module as modules
from gen1_jax.models.layers import KERNEL, ONES, Conv, Linear, TimestepMLP, timestep_embedding
from gen1_jax.models.module import Bound, InitialValue, cast_kernels, flatten, initial_values, initialise


@pytest.mark.parametrize("shape", [(), (7,), (40, 6), (3, 3, 5, 4)])
def test_a_slice_is_that_slice_of_the_whole(shape, monkeypatch):
    monkeypatch.setattr(modules, "_BLOCK", 24)  # several blocks
    value = InitialValue(shape, KERNEL if len(shape) > 1 else ONES, (0, 1))
    whole = np.asarray(value)
    assert whole.shape == shape and whole.dtype == np.float32
    for part in ((slice(None),) * len(shape), tuple(slice(size // 3, size // 3 + 2) for size in shape)):
        np.testing.assert_array_equal(value[part], whole[part])
    if len(shape) > 1:
        np.testing.assert_array_equal(value[1:2], whole[1:2])  # fewer indices than axes
        assert len(np.unique(whole)) == whole.size  # no two blocks are the same


def test_kernels_are_scaled_by_what_they_sum():
    for layer, inputs in ((Linear(400, 300), 400), (Conv(50, 60, 3), 450)):
        kernel = initialise(layer, 0)["kernel"]
        assert np.abs(kernel).max() <= 1 / np.sqrt(inputs)
        assert kernel.std() == pytest.approx(1 / np.sqrt(3 * inputs), rel=0.02)


def test_values_depend_on_seed_and_path():
    one, same, other = (flatten(initial_values(Linear(4, 4), seed))["kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_measured_statistics_are_never_rounded():
    params = {"prior": {"clip_mean": np.ones((1, 4), np.float32), "proj": {"kernel": np.ones((2, 2), np.float32)}}}
    params["prior"]["norm"] = {"scale": np.ones(4, np.float32)}
    dtypes = {name: str(x.dtype) for name, x in flatten(cast_kernels(params, "bfloat16")).items()}
    assert dtypes == {
        "prior.clip_mean": "float32",
        "prior.proj.kernel": "bfloat16",
        "prior.norm.scale": "float32",
    }


def test_a_bound_network_is_copied_and_stored():
    module = TimestepMLP(4, 2)
    module.config = None
    bound = Bound(module, initialise(module, 0))
    steps = np.arange(3)
    for other in (copy.copy(bound), copy.deepcopy(bound), pickle.loads(pickle.dumps(bound))):
        np.testing.assert_array_equal(other(steps), bound(steps))


def test_networks_of_a_module_share_its_programs_and_hold_no_weights_of_others():
    module, steps = TimestepMLP(4, 2), np.arange(3)
    module.config = None
    first, second = (Bound(module, initialise(module, seed)) for seed in (0, 1))
    assert (first(steps) != second(steps)).any()
    (program,) = second._programs.values()
    assert program.jitted._cache_size() == 1
    held = weakref.ref(first)
    del first
    gc.collect()
    assert held() is None


def test_the_diffusion_step_is_embedded_in_float32():
    module = TimestepMLP(8, 4)
    module.config = None
    params = cast_kernels(initialise(module, 0), "bfloat16")
    assert Bound(module, params)(np.arange(3)).dtype == np.float32


def test_a_short_period_tells_a_few_steps_apart():
    """Of t_s, 0 ... 7, a period for 1000 steps leaves one channel of four all but constant."""
    spread = lambda period: np.asarray(timestep_embedding(jnp.arange(8), 4, period)).std(0).min()
    assert spread(10_000.0) < 0.03 and spread(16.0) > 0.3
