"""A run that was broken off and taken up again is the run that was not; on other devices, up to rounding."""

import os
import signal

import pytest
from training_runs import STEPS, assert_close, assert_same_run, checkpoint_steps, record

END = 2 * STEPS


def test_stage_by_stage_is_all_in_one_go(prior, unbroken, tmp_path):
    run = prior.run(tmp_path, "--stage", "1", "--json")
    assert run.wait() == 0 and f'"step": {STEPS},' in run.text and '"finished": true' in run.text
    assert checkpoint_steps(tmp_path)[-1] == STEPS and record(tmp_path, STEPS)["stage"] == "first"
    free = ("log_every=1", "max_skipped=7", "checkpoint.keep=2", "preview.frames=2", "data.threads=1", "remat=True")
    for _ in range(2):  # the second time there is nothing left to do
        prior.finish(tmp_path, *(f"--config.{change}" for change in free))
        assert_same_run(tmp_path, unbroken, END)
    assert checkpoint_steps(tmp_path) == [END - 1, END]


def test_entries_after_the_checkpoint_are_written_again_once(prior, unbroken, tmp_path):
    seldom = "--config.checkpoint.every=2"
    run = prior.start(tmp_path, seldom)
    assert run.until(lambda: _logged(tmp_path) >= 5)
    run.process.kill()
    run.wait()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "stage": "sec')  # as if it had been killed in the middle of a line
    assert checkpoint_steps(tmp_path)[-1] < 5
    prior.finish(tmp_path, seldom)
    assert_same_run(tmp_path, unbroken, END)


def test_told_to_end(prior, unbroken, tmp_path):
    """SIGTERM and Ctrl-C save, each with its exit code, and the same command goes on."""
    for number, code, step in ((signal.SIGTERM, 75, 1), (signal.SIGINT, 130, 3)):
        run = prior.start(tmp_path, "--config.checkpoint.every=100", "--config.log_every=1")
        assert run.until(lambda step=step: _logged(tmp_path) >= step)
        os.kill(run.pid, number)
        assert run.wait() == code, run.text
        last = checkpoint_steps(tmp_path)[-1]
        assert step <= last < END
        assert run.said == [f"gen1: told to end; saved at step {last}, the same command goes on"]
    prior.finish(tmp_path, "--config.checkpoint.every=100")
    assert_same_run(tmp_path, unbroken, END)


def test_other_meshes_give_the_same_up_to_rounding(prior, unbroken, tmp_path):
    """Four copies of everything; two of two parts; one device."""
    prior.finish(tmp_path, "--stage", "1", devices=4)
    run = prior.start(tmp_path, "--config.mesh.data=2", "--config.mesh.fsdp=2", devices=4)
    assert run.until(lambda: STEPS + 1 in checkpoint_steps(tmp_path))
    run.process.kill()
    run.wait()
    assert STEPS < checkpoint_steps(tmp_path)[-1] < END
    prior.finish(tmp_path)
    assert_close(tmp_path, unbroken, END)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("seed=1", "seed is 0 there and 1 here"),
        ("optimizer.learning_rate=2e-3", "optimizer.learning_rate is 0.001 there and 0.002 here"),
        ("data.video.batch_size=16", "data.video.batch_size is 8 there and 16 here"),
    ],
)
def test_another_recipe_is_refused(prior, unbroken, change, named):
    run = prior.run(unbroken, f"--config.{change}")
    mend = f"to go on with it: --allow-change {change.partition('=')[0]}"
    assert run.wait() == 2 and run.said == [f"gen1: {unbroken} was made by another recipe: {named}; {mend}"]


def _logged(workdir):
    path = workdir / "log.jsonl"
    return path.read_text().count("\n") if path.exists() else 0
