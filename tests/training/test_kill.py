"""What can happen to a run: kill -9 at any moment, damaged checkpoints, a full disk, gradients that are not finite."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from training_runs import STEPS, assert_same_run, checkpoint_steps, log, saving

END = 2 * STEPS


def test_killed_in_the_middle_of_a_save(prior, unbroken, tmp_path):
    for _ in range(3):
        run = prior.start(tmp_path)
        if run.until(lambda: saving(tmp_path)):
            run.process.kill()
        if run.wait() == 0:
            raise AssertionError("it finished before it could be killed")
        if torn := saving(tmp_path):
            break
    assert torn and checkpoint_steps(tmp_path) != list(range(1, END + 1))
    prior.finish(tmp_path)
    assert not saving(tmp_path)
    assert_same_run(tmp_path, unbroken, END)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(trainer_of, tmp_path_factory, kills):
    steps = 4 * kills
    trainer, draw = trainer_of("prior", steps=steps), random.Random(kills)
    unbroken, workdir = tmp_path_factory.mktemp("unbroken"), tmp_path_factory.mktemp("killed")
    began = time.monotonic()
    trainer.finish(unbroken)
    longest, starts, killed = time.monotonic() - began, 0, 0
    while killed < kills:
        run = trainer.start(workdir)
        run.process.join(draw.uniform(0, longest))
        run.process.kill()
        killed += run.wait() == -signal.SIGKILL
        starts += 1
        print(starts, killed, checkpoint_steps(workdir)[-1:])
        if checkpoint_steps(workdir)[-1:] == [2 * steps]:
            assert_same_run(workdir, unbroken, 2 * steps)
            workdir = tmp_path_factory.mktemp("killed")
    trainer.finish(workdir)
    assert_same_run(workdir, unbroken, 2 * steps)


def test_full_disk(prior, unbroken, tmp_path):
    prior.finish(tmp_path, "--stage", "1")
    run = prior.run(tmp_path, largest_file=500_000)
    print(run.wait(), run.text, checkpoint_steps(tmp_path))
    before = (tmp_path / "log.jsonl").read_bytes()
    run = prior.run(tmp_path, largest_file=100)
    print(run.wait(), run.text, checkpoint_steps(tmp_path))
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert 0


def test_gradients_that_are_not_finite(prior, tmp_path):
    run = prior.run(tmp_path, "--config.optimizer.learning_rate=1e30", "--config.max_skipped=3")
    print(run.wait(), run.text, checkpoint_steps(tmp_path), [(e["step"], e["loss"], e["skipped"], e["skipped_in_a_row"]) for e in log(tmp_path)])
    assert 0


FILES_DAMAGE = {}


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_damaged_newest_checkpoint(prior, unbroken, tmp_path, damage):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken, workdir)
    for i in (1, 2, 3):
        shutil.rmtree(workdir / "checkpoints" / str(i))
    (path, *_) = sorted((workdir / "checkpoints" / "6" / "params").rglob("d/*"), key=lambda p: -p.stat().st_size)
    print(path, path.stat().st_size)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    if damage == "deleted":
        path.unlink()
    run = prior.run(workdir)
    print(run.wait(), run.text)
    run = prior.run(workdir, "--allow-older")
    print(run.wait(), run.text)
    assert_same_run(workdir, unbroken, END)
    assert 0
