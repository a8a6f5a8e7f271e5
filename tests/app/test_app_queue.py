"""The queue of edits, around work that is no model's."""

import threading
from pathlib import Path

import pytest

from gen1_jax.app.jobs import EditFiles, EditQueue

FILES = EditFiles(edit=Path("edit.mp4"), comparison=Path("comparison.mp4"))


class Device:
    """Work that goes on until it is let go, a step a millisecond, and counts who has it."""

    def __init__(self):
        self.users, self.most, self.order, self.go = 0, 0, [], threading.Event()

    def __call__(self, job, request):
        self.users += 1
        self.most = max(self.most, self.users)
        self.order.append(request)
        try:
            if isinstance(request, Exception):
                raise request
            while not self.go.wait(0.001):
                job.report("sampling", 1, 9)
            return FILES
        finally:
            self.users -= 1


@pytest.fixture
def queue():
    device = Device()
    queue = EditQueue(device)
    yield queue, device
    device.go.set()
    queue.close()


def wait_for(job, reached):
    return next(state for state in job.states() if reached(state))


def test_edits_run_one_at_a_time_in_their_order_and_know_their_place(queue):
    queue, device = queue
    jobs = [queue.submit(name, name) for name in "abc"]
    wait_for(jobs[0], lambda state: state.stage == "sampling")
    assert [(job.state.stage, job.state.done) for job in jobs[1:]] == [("waiting", 1), ("waiting", 2)]
    queue.cancel("b")
    assert jobs[2].state.done == 1
    device.go.set()
    assert [list(job.states())[-1].stage for job in jobs] == ["done", "cancelled", "done"]
    assert device.order == ["a", "c"] and device.most == 1
    assert jobs[0].state.files == FILES


def test_a_cancelled_edit_frees_the_device(queue):
    queue, device = queue
    first, second = queue.submit("a", "a"), queue.submit("b", "b")
    wait_for(first, lambda state: state.stage == "sampling")
    queue.cancel("a")
    assert first.state.stage == "cancelled"
    assert wait_for(second, lambda state: state.stage == "sampling")
    device.go.set()
    assert list(first.states())[-1].stage == "cancelled" and list(second.states())[-1].stage == "done"


def test_a_second_edit_of_a_visitor_takes_the_place_of_the_first(queue):
    queue, _ = queue
    first, second = queue.submit("old", "visitor"), queue.submit("new", "visitor")
    assert first.state.stage == "cancelled"
    assert wait_for(second, lambda state: state.stage == "sampling")


def test_failures_are_one_line_and_the_next_edit_runs(queue):
    queue, device = queue
    device.go.set()
    wrong, fault, fine = (queue.submit(x, i) for i, x in enumerate([ValueError("a.mp4:\n cut"), KeyError("x"), "ok"]))
    states = [list(job.states())[-1] for job in (wrong, fault, fine)]
    assert [state.stage for state in states] == ["failed", "failed", "done"]
    assert states[0].message == "a.mp4: cut"
    assert "KeyError" in states[1].message and "\n" not in states[1].message


def test_a_full_queue_says_so(queue):
    queue, _ = queue
    for visitor in range(16):
        queue.submit("x", visitor)
    with pytest.raises(ValueError, match="try again later"):
        queue.submit("x", "one more")
