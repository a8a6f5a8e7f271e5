"""Two real processes, joined by gloo, train one run; one process takes it up."""

import os
import signal

import numpy as np
import pytest
from training_runs import STEPS, checkpoint_steps, log, record, state

END = 2 * STEPS


def test_killed_together_and_taken_up_by_one(prior, tmp_path):
    gentle = "--config.optimizer.epsilon=1e-2"
    both = prior.start_two(tmp_path, gentle)
    assert both[0].until(lambda: STEPS + 1 in checkpoint_steps(tmp_path))
    for run in both:
        run.process.kill()
    assert [run.wait() for run in both] == [-signal.SIGKILL] * 2
    assert checkpoint_steps(tmp_path)[-1] < END
    prior.finish(tmp_path, gentle)
    assert [entry["step"] for entry in log(tmp_path)] == list(range(1, END + 1))


def test_one_is_told_to_end_and_both_save(trainer_of, tmp_path):
    trainer = trainer_of("prior", steps=2000)
    both = trainer.start_two(tmp_path, "--config.checkpoint.every=1000")
    assert both[0].until(lambda: (tmp_path / "log.jsonl").exists() and (tmp_path / "log.jsonl").read_text().count("\n") > 2)
    os.kill(both[1].pid, signal.SIGTERM)
    codes = [run.wait(60) for run in both]
    print(codes, checkpoint_steps(tmp_path), [r.text for r in both])
    assert 0
