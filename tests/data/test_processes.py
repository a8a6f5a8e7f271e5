import os
import signal
import time
from functools import partial

import pytest
from test_dataset import contents, write

from gen1_jax.data.processes import ProgressLine, run_job


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
