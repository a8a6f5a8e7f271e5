from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gen1_jax.parallel.mesh import AXES, MeshConfig, device_grid, make_mesh


def test_the_rest_goes_where_minus_one_is():
    assert MeshConfig().sizes(8) == (8, 1, 1, 1)
    assert MeshConfig(data=2, fsdp=-1, tensor=2).sizes(16) == (2, 4, 2, 1)
    assert MeshConfig(data=1, context=4).sizes(4) == (1, 1, 1, 4)


@pytest.mark.parametrize(
    ("config", "devices", "message"),
    [
        (dict(data=3), 8, "mesh data=3,fsdp=1,tensor=1,context=1 is for 3 devices, but there are 8"),
        (dict(fsdp=3), 8, "mesh data=-1,fsdp=3,tensor=1,context=1 is for multiples of 3 devices, but there are 8"),
        (dict(fsdp=16), 8, "multiples of 16 devices, but there are 8"),
        (dict(fsdp=-1), 8, "at most one of them -1"),
        (dict(tensor=0), 8, "positive sizes"),
    ],
)
def test_impossible_sizes_are_one_clear_line(config, devices, message):
    with pytest.raises(ValueError, match=message) as error:
        MeshConfig(**config).sizes(devices)
    assert "\n" not in str(error.value)


def test_one_device():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == dict.fromkeys(AXES, 1)


def slices(count, each):
    return [
        SimpleNamespace(id=i, slice_index=i // each, platform="gpu", device_kind="gpu", process_index=i)
        for i in range(count * each)
    ]


def slices_of(grid):
    return np.vectorize(lambda device: device.slice_index)(grid)


def test_slices_lie_along_data_and_then_along_fsdp():
    along_data = slices_of(device_grid((4, 2, 2, 1), slices(2, 8)))
    assert (along_data[:2] == 0).all() and (along_data[2:] == 1).all()
    along_fsdp = slices_of(device_grid((1, 4, 2, 1), slices(2, 4)))
    assert (along_fsdp[:, :2] == 0).all() and (along_fsdp[:, 2:] == 1).all()
    both = slices_of(device_grid((2, 4, 1, 1), slices(4, 2)))
    assert [[len(set(pair)) for pair in row.reshape(2, 2)] for row in both] == [[1, 1], [1, 1]]
    with pytest.raises(ValueError, match="2 slices can be divided along neither data=1 nor fsdp=1"):
        device_grid((1, 1, 4, 2), slices(2, 4))
