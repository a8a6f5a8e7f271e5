"""Processes that crash and hang."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gen1_jax.data.prepare_pool import Lost, Worker, getting_on, run_isolated

_seen = []


def work(item):
    """Does what its argument says, in the child."""
    _seen.append(item)
    match item:
        case "abort":
            os.abort()
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "raise":
            raise OSError("no space")
        case "long":
            for _ in range(5):
                time.sleep(0.5)
                getting_on()
        case "hang":
            time.sleep(1000)
        case "after poison" if "poison" in _seen:
            os.abort()
        case "die later":
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        case Path():
            item.write_text(str(os.getpid()))
            time.sleep(1000)
    return f"{item} done"


def results(items, workers=1, timeout=60.0):
    return dict(run_isolated(work, items, workers=workers, timeout=timeout))


@pytest.mark.parametrize("workers", [1, 2])
def test_crashes_and_hangs_harm_nothing_else(workers):
    found = results(["a", "abort", "b", "segfault", "exit", "hang", "c"], workers, timeout=2.0)
    assert {item: found[item] for item in "abc"} == {item: f"{item} done" for item in "abc"}
    reasons = {item: found[item] for item in ("abort", "segfault", "exit", "hang")}
    assert all(isinstance(reason, Lost) for reason in reasons.values())
    words = {"abort": "SIGABRT", "segfault": "SIGSEGV", "exit": "exit code 3", "hang": "within 2 s"}
    assert all(words[item] in reason for item, reason in reasons.items())


def test_long_work_that_tells_of_itself_does_not_hang():
    getting_on()  # outside of a worker it does nothing
    assert results(["long"], timeout=1.5) == {"long": "long done"}


def test_a_crash_that_an_item_before_prepared_is_none():
    assert results(["poison", "after poison"]) == {"poison": "poison done", "after poison": "after poison done"}


def test_an_error_of_the_function_ends_the_run():
    with pytest.raises(OSError, match="no space"):
        results(["a", "raise", "b"])


def test_no_items_start_no_process():
    assert results([]) == {}


def test_a_worker_that_dies_idle_is_replaced():
    worker = Worker(work, timeout=60.0)
    try:
        assert worker.call("die later") == "die later done"
        time.sleep(0.5)
        assert worker.call("a") == "a done"
        assert worker.call("exit") == Lost("its decoder crashed (exit code 3)")
        assert worker.call("b") == "b done"
    finally:
        worker.close()


def test_a_function_that_cannot_be_found_is_no_fault_of_the_item():
    class Unpicklable:
        def __call__(self, item):
            return item

    with pytest.raises((AttributeError, TypeError)):
        list(run_isolated(Unpicklable(), ["a"], workers=1, timeout=60.0))


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    pid_file = tmp_path / "pid"
    code = (
        "import sys; from pathlib import Path; from gen1_jax.data.prepare_pool import run_isolated\n"
        "sys.path.insert(0, sys.argv[2]); from test_prepare_pool import work\n"
        "if __name__ == '__main__': list(run_isolated(work, [Path(sys.argv[1])], workers=1, timeout=1000.0))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, pid_file, Path(__file__).parent])
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text())
        child = int(pid_file.read_text())
        assert is_running(child)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not is_running(child))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid):
    """Neither gone, nor dead and waiting for somebody to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
