"""Steps are compiled side by side, before the first batch."""

import threading
import time

import jax.numpy as jnp
import pytest

from gen1_jax.training.compiling import Compilation, StagePrograms, _Job, compile_stages, side_by_side
from gen1_jax.training.step import TrainState


def test_jobs_run_at_the_same_time_and_each_is_told():
    met, told = threading.Barrier(2, timeout=10), []  # either alone would wait for the other in vain
    jobs = {name: lambda name=name: (met.wait(), name.upper())[1] for name in ("a", "b")}
    assert side_by_side(jobs, lambda name, seconds: told.append((name, seconds >= 0))) == {"a": "A", "b": "B"}
    assert sorted(told) == [("a", True), ("b", True)]
    assert side_by_side({}, told.append) == {}


def test_the_first_failure_is_raised_when_all_have_ended():
    ended = []

    def fails():
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        side_by_side({"a": fails, "b": lambda: ended.append("b")}, lambda name, seconds: None)
    assert ended == ["b"]


class Stage(StagePrograms):
    """Of a few programs, without any networks."""

    def __init__(self, name, keys, made, compile=lambda name: f"of {name}", count=lambda: 7):
        self.name, self.keys, self.made, self.compile, self.count = name, keys, made, compile, count

    def compile_when(self, idle):
        idle()
        return self.compile(self.name)

    def missing(self, shapes, state):
        return {
            key: _Job(f"{self.name} {key}", self.made, key, self.compile_when, self.count)
            for key in self.keys
            if key not in self.made
        }


STATE = TrainState({}, {}, (), *[jnp.int32(0)] * 3)


def test_what_stages_share_is_compiled_once_and_counted_when_training_has_begun(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    begun, made, said = threading.Event(), {}, []
    stages = [Stage(name, ["a"], made, count=lambda: begun.wait(10) and 7) for name in ("first", "second")]
    compile_stages([(stage, []) for stage in stages], STATE, said.append)
    begun.set()
    assert said[0] == "compiling   first a ..." and len(said) == 2
    assert made["a"].run == "of first" and made["a"].flops() == 7


@pytest.mark.parametrize(("processors", "ready"), [(1, "ab"), (3, "ab"), (4, "abcd"), (8, "abcde")])
def test_stages_to_come_are_compiled_with_the_first_where_there_are_processors_for_all(monkeypatch, processors, ready):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    made = {}
    stages = [Stage(name, keys, made) for name, keys in (("first", "ab"), ("second", "bcd"), ("third", "ade"))]
    compile_stages([(stage, []) for stage in stages], STATE, lambda line: None)
    assert "".join(sorted(made)) == ready
    compile_stages([(stage, []) for stage in stages[1:]], STATE, lambda line: None)
    assert {"b", "c", "d"} <= made.keys()


def test_several_processes_compile_a_stage_at_a_time_for_they_would_have_to_agree(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    made = {}
    stages = [Stage(name, key, made) for name, key in (("first", "a"), ("second", "b"))]
    compile_stages([(stage, []) for stage in stages], STATE, lambda line: None)
    assert made.keys() == {"a"}


def test_what_is_begun_early_waits_for_the_device_and_can_be_given_up():
    made, said = {}, []
    compilation = Compilation([(Stage("first", "ab", made), [])], STATE, said.append)
    while len(said) < 2:  # it has begun
        time.sleep(0.01)
    assert not made
    compilation.finish()
    assert made.keys() == {"a", "b"}
    given_up = {}
    compilation = Compilation([(Stage("first", "ab", given_up), [])], STATE, said.append)
    compilation.give_up()
    assert not given_up


def test_what_goes_wrong_early_is_raised_where_the_programs_are_waited_for():
    def fails(name):
        raise ValueError("no room")

    compilation = Compilation([(Stage("first", "a", {}, compile=fails), [])], STATE, lambda line: None)
    with pytest.raises(ValueError, match="no room"):
        compilation.finish()
