"""Steps are compiled side by side, before the first batch."""

import threading

import jax.numpy as jnp
import pytest

from gen1_jax.training.compiling import StagePrograms, _Job, compile_stages, side_by_side
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


def test_what_stages_share_is_compiled_once_and_counted_when_training_has_begun():
    begun, made, said, compiled = threading.Event(), {}, [], []
    state = TrainState({}, {}, (), *[jnp.int32(0)] * 3)

    class Stage(StagePrograms):
        def __init__(self, name):
            self.name = name

        def missing(self, shapes, state):
            compile = lambda: compiled.append(self.name) or "program"
            return {"key": _Job(self.name, made, "key", compile, lambda: begun.wait(10) and 7)}

    compile_stages([(Stage("first"), []), (Stage("second"), [])], state, said.append)
    begun.set()
    assert compiled == ["first"] and said[0] == "compiling   first ..." and len(said) == 2
    assert made["key"].run == "program" and made["key"].flops() == 7
