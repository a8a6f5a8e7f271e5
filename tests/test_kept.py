"""Programs that are kept between processes: what is found again, what is made anew, and that both compute the same."""

import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax import kept
from gen1_jax.diffusion import SamplerState
from gen1_jax.kept import KeptProgram, keeping
from gen1_jax.result_trees import put_together


class Counted:
    """A function of arrays that counts how often it is traced, as a program of a process that begins.

    Args:
        identity: of the program.
    """

    def __init__(self, identity="counted", **settings):
        self.traced = 0
        self.program = KeptProgram(self._function, lambda: identity, **settings)

    def _function(self, x, times):
        self.traced += 1
        return {"state": SamplerState(x * times, x + 1, x > 0, None), "list": [x.sum(), None], "pair": (x, x)}


def run(folder, x=None, *, identity="counted", session="a test"):
    """What a new program of that identity returns, and how often it was traced."""
    counted = Counted(identity)
    with keeping(folder, session):
        results = counted.program(jnp.arange(6.0) if x is None else x, 3)
    return jax.tree.map(np.asarray, results), counted.traced


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_a_second_process_does_not_trace(tmp_path):
    expected = jax.tree.map(np.asarray, jax.jit(Counted()._function)(jnp.arange(6.0), 3))
    for traced in (1, 0, 0):
        results, count = run(tmp_path)
        assert count == traced
        assert_same(results, expected)


@pytest.mark.parametrize(
    "other",
    [
        dict(identity="another"),
        dict(x=jnp.arange(7.0)),
        dict(x=jnp.arange(6)),
        dict(x=np.arange(6.0, dtype=np.float16)),
    ],
    ids=["identity", "shape", "type", "type of the host"],
)
def test_something_else_is_another_program(tmp_path, other):
    run(tmp_path)
    assert run(tmp_path, **other)[1] == 1
    assert run(tmp_path)[1] == 0


def test_a_program_is_kept_in_every_folder_that_it_runs_with(tmp_path):
    counted = Counted()
    for name in ("one", "two"):
        with keeping(tmp_path / name, "a test"):
            counted.program(jnp.arange(6.0), 3)
        assert list((tmp_path / name).glob("*.program"))


def test_another_setting_of_jax_is_another_program(tmp_path):
    run(tmp_path)
    with jax.default_matmul_precision("float32"):
        assert run(tmp_path)[1] == 1


def test_another_source_is_lowered_again_but_not_compiled_again(tmp_path, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(kept, "_source", lambda: "another")
    monkeypatch.setattr(kept, "_no_other_cache", lambda: pytest.fail("compiled"))
    assert run(tmp_path)[1] == 1
    assert run(tmp_path)[1] == 0


@pytest.mark.parametrize("damage", [lambda x: x[:-9], lambda x: b"", lambda x: x[:-9] + bytes(9), lambda x: x[9:]])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    expected, _ = run(tmp_path)
    for file in tmp_path.glob("*.program"):
        file.write_bytes(damage(file.read_bytes()))
    results, count = run(tmp_path)
    assert count == 1
    assert_same(results, expected)
    assert run(tmp_path)[1] == 0


def test_a_file_names_tuples_of_this_package_alone():
    for node in ("os:system", "builtins:eval", "gen1_jax.cli:main", "gen1_jaxed.evil:Tuple"):
        with pytest.raises((TypeError, KeyError, AttributeError)):
            put_together({"node": node, "keys": [], "of": []}, iter(()))


def test_what_a_session_used_is_loaded_on_a_thread_at_once(tmp_path, monkeypatch):
    run(tmp_path)
    threads, read = [], kept._Executable.read
    note = lambda path: (threads.append(threading.current_thread().name), read(path))[1]
    monkeypatch.setattr(kept._Executable, "read", note)
    counted = Counted()
    with keeping(tmp_path, "a test"):
        while not threads:
            time.sleep(0.01)
        counted.program(jnp.arange(6.0), 3)
    assert counted.traced == 0 and [name[:8] for name in threads] == ["programs"]
    assert run(tmp_path, session="another")[1] == 0
    assert threads[1:] == [threading.current_thread().name]


def test_keys_and_donated_buffers(tmp_path):
    def draw(key, x):
        key, own = jax.random.split(key)
        return key, x + jax.random.normal(own, x.shape)

    expected = jax.jit(draw)(jax.random.key(5), jnp.ones(4))
    for _ in range(2):
        program = KeptProgram(draw, lambda: "draw", donated=[1])
        with keeping(tmp_path, "draw"):
            x = jnp.ones(4)
            key, drawn = program(jax.random.key(5), x)
        assert x.is_deleted() and np.array_equal(drawn, expected[1])
        assert key.dtype == expected[0].dtype and np.array_equal(*map(jax.random.key_data, (key, expected[0])))


def test_what_cannot_be_kept_runs_all_the_same(tmp_path):
    def calls(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x) + 1

    other = KeptProgram(lambda x: jax.tree_util.Partial(jnp.add, x), lambda: "partial")
    with keeping(tmp_path, "a test"):
        assert np.array_equal(KeptProgram(calls, lambda: "calls")(jnp.ones(3)), [2, 2, 2])
        assert other(jnp.ones(3))(1).tolist() == [2, 2, 2]
        assert KeptProgram(lambda x: x + 1, lambda: None)(jnp.ones(3)).tolist() == [2, 2, 2]
        assert jax.jit(KeptProgram(lambda x: x + 1, lambda: "traced"))(jnp.ones(3)).tolist() == [2, 2, 2]
    assert not list(tmp_path.glob("*.program"))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "programs")[1] == 1
    assert run(None)[1] == 1


def test_a_full_folder_loses_what_was_not_used(tmp_path, monkeypatch):
    run(tmp_path)
    held = sum(file.stat().st_size for file in tmp_path.iterdir())
    monkeypatch.setattr(kept, "LARGEST", held + 500)  # the other is no larger than this one and that
    assert run(tmp_path, identity="another", x=jnp.arange(7.0))[1] == 1
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= held + 500
    assert run(tmp_path, identity="another", x=jnp.arange(7.0))[1] == 0


_PROCESS = """
import sys
import jax.numpy as jnp
from gen1_jax.kept import KeptProgram, keeping
traced = []
program = KeptProgram(lambda x: (traced.append(1), x @ x)[1], lambda: "a process")
with keeping(sys.argv[1], "a process"):
    print(float(program(jnp.eye(3)).sum()), len(traced))
"""


def test_two_processes_at_once(tmp_path):
    start = lambda: subprocess.Popen([sys.executable, "-c", _PROCESS, tmp_path], stdout=subprocess.PIPE, text=True)
    both = [start(), start()]
    assert [process.communicate()[0].split()[0] for process in both] == ["3.0", "3.0"]
    assert start().communicate()[0].split() == ["3.0", "0"]
    assert not list(tmp_path.glob(".*"))
