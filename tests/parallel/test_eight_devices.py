"""Eight simulated devices, in one process of their own for all tests here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from processes_of_a_test import simulated


@pytest.fixture(scope="module")
def measured():
    script = Path(__file__).with_name("eight_devices.py")
    out = subprocess.run([sys.executable, script], env=simulated(8), capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr[-3000:]
    return json.loads(out.stdout.splitlines()[-1])


def test_loss_and_gradients_equal_one_device_on_every_mesh(measured):
    assert len(measured["numerics"]) == 6 + 4 + 1
    for mesh, (loss, gradients) in measured["numerics"].items():
        assert loss < 1e-5, mesh
        assert gradients < 1e-5, mesh


def test_one_clip_is_sampled_by_eight_devices(measured):
    for name, difference in measured["sampled"].items():
        assert difference < 1e-4, name


def test_frames_and_positions_change_places_by_all_to_all(measured):
    found = measured["collectives"]
    # a clip comes whole, or by frames: there is one way back from positions, and for the transformer one to them
    assert found["temporal convolution"] == ["all-to-all"]
    assert found["temporal transformer"] == ["all-to-all", "all-to-all"]
    assert set(found["its gradient"]) == {"all-to-all", "all-reduce"}
    assert found["its gradient"].count("all-to-all") == 4


def test_frames_and_heads_change_places_by_all_to_all(measured):
    """Queries, keys and values to whole clips of some heads, and what they saw back to frames."""
    assert measured["collectives"]["full attention"] == ["all-to-all"] * 4


def test_features_need_one_sum_a_layer(measured):
    """Two attentions and a feed-forward; the all-to-all is of the feed-forward's weights, whose halves interleave."""
    assert measured["collectives"]["tensor"] == ["all-to-all", "all-reduce", "all-reduce", "all-reduce"]


def test_gradients_are_summed_over_data_once_whatever_the_parts(measured):
    found = measured["summed"]
    assert found["exchanged"]["1"] == found["exchanged"]["2"] == [["all-reduce", ["data"], 1]]
    assert found["difference"] < 1e-5


def test_arrays_are_read_in_parts(measured):
    assert measured["loaded"] == {"asked": [[128, 64]] * 8, "equal": True, "shard": [64, 128]}
