"""Checksums: any change shows, one of order too, wherever the arrays lie."""

import json
from typing import NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from gen1_jax.checkpoints import checksum, store
from gen1_jax.checkpoints.checksum import PLAIN, digest
from gen1_jax.checkpoints.config import CheckpointConfig
from gen1_jax.checkpoints.store import CheckpointError, Checkpoints


class State(NamedTuple):
    params: dict
    ema: dict
    step: jnp.ndarray


def numbers(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(ml_dtypes.bfloat16).astype(dtype)


def moved(x):
    """The same numbers in other places, as a wrong shard or a reversed axis puts them."""
    upper, lower = np.split(x, 2)
    swapped = x.copy()
    swapped[[0, -1]] = swapped[[-1, 0]]
    return [x[::-1], x[:, ::-1], np.concatenate([lower, upper]), np.roll(x, 1), swapped, x.T.reshape(x.shape)]


@pytest.fixture
def accelerator(monkeypatch):
    """Arrays of JAX are summed where they lie, as on any device but the CPU."""
    monkeypatch.setattr(checksum, "_on_host", lambda leaf: False)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("on", [jnp.asarray, np.asarray], ids=["device", "host"])
def test_order_matters(on):
    x = numbers(256, 64)  # from bfloat16, halves 2^13 places apart: products of bits and place would agree
    assert len({digest({"a": on(each)}) for each in [x, *moved(x)]}) == 7
    assert {digest({"a": on(each)}, PLAIN) for each in moved(x)} == {digest({"a": on(x)}, PLAIN)}


def test_on_a_cpu_nothing_is_compiled(monkeypatch):
    x = numbers(3, 5, 7)
    expected = digest([x])
    monkeypatch.setattr(checksum, "_device_sums", None)
    assert digest([jnp.asarray(x)]) == expected


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("dtype", [np.float32, np.int32, ml_dtypes.bfloat16, np.float16, np.int8])
def test_the_host_finds_what_the_device_finds(dtype):
    for x in (numbers(3, 5, 7, dtype=dtype), numbers(700, 400, dtype=dtype), np.ones((), dtype)):
        assert digest([x]) == digest([jnp.asarray(x)])
        flipped = x.copy()
        flipped.reshape(-1).view(np.uint8)[-1] ^= 1
        assert digest([flipped]) != digest([x])


def test_what_was_saved_is_checked_in_order_and_older_checkpoints_as_they_were_saved(tmp_path):
    x = jnp.asarray(numbers(8, 4))
    state = State({"w": x}, {"w": x + 1}, jnp.int32(3))
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(3, state, {"data": None})
    path = tmp_path / "checkpoints" / "3" / "record" / "metadata"
    record = json.loads(path.read_text())

    def restore(record):
        record["checksums"]["record"] = store._record_checksum(record)
        path.write_text(json.dumps(record))
        with Checkpoints(tmp_path) as checkpoints:
            return checkpoints.restore(3, state), checkpoints.weights(3, state.ema)

    backwards = State({"w": x[::-1]}, state.ema, state.step)
    wrong = record | {"checksums": record["checksums"] | store.checksums(backwards)}
    with pytest.raises(CheckpointError, match="params are not what was saved"):
        restore(wrong)

    older = record | {"checksums": record["checksums"] | store.checksums(state, PLAIN)}
    del older["checksum"]
    restored, ema = restore(older)
    np.testing.assert_array_equal(restored.params["w"], x)
    np.testing.assert_array_equal(ema["w"], state.ema["w"])
    older["checksums"]["ema"] = digest({"w": x}, PLAIN)
    with pytest.raises(CheckpointError, match="ema are not what was saved"):
        restore(older)
