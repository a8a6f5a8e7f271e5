import os
import signal
import time
from functools import partial
from types import SimpleNamespace

import pytest
from test_dataset import contents, write

from gen1_jax.data.processes import ProgressLine, pace, run_job


def dying(directory, **where):
    if where["process_index"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
    return write(directory, **where)


def test_processes_of_one_machine_share_a_job(tmp_path):
    with pytest.raises(RuntimeError, match=r"killed.*run again"):
        run_job(partial(dying, tmp_path / "two"), processes=2)
    seen = []
    summary = run_job(
        partial(write, tmp_path / "two"), processes=2, progress=lambda done, total: seen.append((done, total))
    )
    assert summary.complete and summary.written + summary.kept == 5
    assert all(total == 5 for _, total in seen)
    write(tmp_path / "one")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_one_process_stays_here(tmp_path):
    assert run_job(partial(write, tmp_path)).written == 5
    with pytest.raises(ValueError, match="out of range"):
        run_job(partial(write, tmp_path), processes=0)
    with pytest.raises(ValueError, match="out of range"):
        run_job(partial(write, tmp_path), process_index=2, process_count=2)


def test_progress_is_silent_without_a_terminal(capsys):
    with ProgressLine("work", "frames", 8) as progress:
        for done in range(4):
            progress(done, 3)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_pace_is_one_that_can_be_read():
    assert [pace(8, 2, "frames"), pace(3, 60, "methods"), pace(1, 1800, "methods")] == [
        *("4.0 frames/s", "3.0 methods/min", "2.0 methods/h")
    ]
    for steps, seconds in ((0, 1), (-16, 2), (1, 0), (1, -1), (1, 1e9), (1, float("inf"))):
        assert pace(steps, seconds, "methods") == ""


def test_another_count_has_a_pace_of_its_own(monkeypatch):
    """Clips that were rendered are not methods that are done; what has gone back to 0 has no pace below it."""
    clock = iter((0.0, 0.0, 10.0, 20.0, 30.0, 50.0))
    monkeypatch.setattr("gen1_jax.data.processes.time.monotonic", lambda: next(clock))
    told = []
    with ProgressLine("evaluate", "methods", enabled=False) as line:
        line._bar, line._task = SimpleNamespace(update=lambda task, pace, **_: told.append(pace), stop=lambda: None), 0
        for done, total, unit in ((0, 16, "clips"), (16, 16, "clips"), (0, 3, ""), (1, 3, ""), (2, 3, "")):
            line(done, total, "", unit)
    assert told == ["", "1.6 clips/s", "", "0.1 methods/s", "4.0 methods/min"]
