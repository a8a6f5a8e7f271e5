"""Two real processes, joined by gloo, train one run; they are told to end, killed, and one goes on alone."""

import os
import signal

from training_runs import STEPS, assert_close, checkpoint_steps

END = 2 * STEPS


def test_two_processes_are_told_to_end_killed_and_taken_up_by_one(prior, unbroken, tmp_path):
    seldom, ended = "--config.checkpoint.every=100", []
    for told in (1, 0):  # one of them, while both compile
        before = _logs_opened(tmp_path)
        both = prior.start_two(tmp_path, seldom)
        assert both[0].until(lambda before=before: _logs_opened(tmp_path) > before)
        os.kill(both[told].pid, signal.SIGTERM)
        assert [run.wait() for run in both] == [75, 75], (told, ended, [run.text for run in both])
        ended.append(checkpoint_steps(tmp_path)[-1])
        line = f"gen1: told to end; saved at step {ended[-1]}, the same command goes on"
        assert [run.said for run in both] == [[line]] * 2
    assert 0 < ended[0] < ended[1] < END - 1

    both = prior.start_two(tmp_path)
    assert both[0].until(lambda: checkpoint_steps(tmp_path)[-1] > ended[1])
    for run in both:
        run.process.kill()
    assert [run.wait() for run in both] == [-signal.SIGKILL] * 2
    assert checkpoint_steps(tmp_path)[-1] < END

    prior.finish(tmp_path)
    assert_close(tmp_path, unbroken, END)


def _logs_opened(workdir):
    return len(list((workdir / "tensorboard").glob("*")))
