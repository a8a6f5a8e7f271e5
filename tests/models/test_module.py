"""Initial values: drawn in parts, the same as whole."""

import numpy as np
import pytest

from gen1_jax.models import module as modules
from gen1_jax.models.layers import KERNEL, ONES, Conv, Linear
from gen1_jax.models.module import InitialValue, flatten, initial_values, initialise


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
