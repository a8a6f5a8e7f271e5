"""Steps are compiled side by side, before the first batch."""

import threading

import pytest

from gen1_jax.training.compiling import side_by_side


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
