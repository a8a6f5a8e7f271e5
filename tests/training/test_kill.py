"""What can happen to a run: kill -9 at any moment, damaged checkpoints, a full disk, gradients that are not finite."""

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import STEPS, assert_same_run, checkpoint_steps, log, saving

from gen1_jax.checkpoints.store import CheckpointError, Checkpoints
from gen1_jax.training.config import CheckpointConfig
from gen1_jax.training.step import TrainState

END = 2 * STEPS


@pytest.mark.parametrize("component", ["prior", pytest.param("unet", marks=pytest.mark.slow)])
def test_the_command_is_killed_and_started_again(component, request, trainer_of, tmp_path, monkeypatch):
    """Without the fork server: 6 steps are 3 steps, kill -9, and 3 steps."""
    if component == "prior":
        trainer, unbroken = request.getfixturevalue("prior"), request.getfixturevalue("unbroken")
    else:
        trainer = trainer_of(component)
        unbroken = trainer.finish(tmp_path / "unbroken")
    workdir = tmp_path / "killed"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    command = [sys.executable, "-m", "gen1_jax.cli", "train", f"--config={trainer.recipe}", f"--workdir={workdir}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while STEPS not in checkpoint_steps(workdir) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL and checkpoint_steps(workdir)[-1] < END
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0 and "gen1: " not in again.stderr, again.stderr
    assert (
        "goes on from step " in again.stderr
        and f"{component}: " in again.stderr
        and "compiling   second" in again.stderr
    )
    assert again.stdout == f"{workdir}: step {END} of {END}\n"
    assert_same_run(workdir, unbroken, END)


def test_killed_in_the_middle_of_a_save(prior, unbroken, tmp_path):
    for _ in range(3):
        run = prior.start(tmp_path)
        assert run.until(lambda: saving(tmp_path)), run.text
        run.process.kill()
        assert run.wait() == -signal.SIGKILL
        if torn := saving(tmp_path):
            break
    assert torn
    prior.finish(tmp_path)
    assert not saving(tmp_path)
    assert_same_run(tmp_path, unbroken, END)


@pytest.mark.parametrize(("kills", "steps"), [(3, STEPS), pytest.param(20, 40, marks=pytest.mark.slow)])
def test_killed_at_random_moments(request, trainer_of, tmp_path_factory, kills, steps):
    """Until there have been so many kills; a run that finishes before is compared, and another is begun."""
    trainer, draw, end = trainer_of("prior", steps=steps), random.Random(kills), 2 * steps
    if steps == STEPS:
        unbroken = request.getfixturevalue("unbroken")
    else:
        unbroken = trainer.finish(tmp_path_factory.mktemp("unbroken"))
    began = time.monotonic()  # all has been compiled
    trainer.finish(tmp_path_factory.mktemp("timed"), "--stage", "1")
    longest = 2 * (time.monotonic() - began)
    workdir, killed = tmp_path_factory.mktemp("killed"), 0
    while killed < kills:
        run = trainer.start(workdir)
        run.process.join(draw.uniform(0, longest))
        run.process.kill()
        killed += run.wait() == -signal.SIGKILL
        if checkpoint_steps(workdir)[-1:] == [end]:
            trainer.finish(workdir)
            _assert_same_end(workdir, unbroken, end)
            workdir = tmp_path_factory.mktemp("killed")
    trainer.finish(workdir)
    _assert_same_end(workdir, unbroken, end)


def _assert_same_end(workdir, unbroken, end):
    assert_same_run(workdir, unbroken, end)
    kept = checkpoint_steps(unbroken)
    surplus = checkpoint_steps(workdir)[: -len(kept)]
    assert checkpoint_steps(workdir)[-len(kept) :] == kept
    assert surplus in ([], [kept[0] - 1])  # killed between the last save and the deletion that follows it


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_a_damaged_newest_checkpoint(prior, unbroken, tmp_path, damage):
    workdir = tmp_path / "run"
    shutil.copytree(unbroken, workdir)
    newest = workdir / "checkpoints" / str(END)
    _damage(max((newest / "params").rglob("d/*"), key=lambda path: path.stat().st_size), damage)
    run = prior.run(workdir)
    assert run.wait() == 2 and len(run.text.splitlines()) == 1
    assert run.text.startswith(f"gen1: {newest} is damaged")
    assert run.text.endswith(f"--allow-older goes on from step {END - 1}\n")
    assert checkpoint_steps(workdir)[-1] == END  # nothing was touched
    prior.finish(workdir, "--allow-older")
    assert_same_run(workdir, unbroken, END)


def test_a_damaged_checkpoint_with_steps_ahead(prior, unbroken, tmp_path):
    """Their programs are traced while it is read: once more, from where the one before it is."""
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / str(END))
    newest = tmp_path / "checkpoints" / str(END - 1)
    _damage(max((newest / "params").rglob("d/*"), key=lambda path: path.stat().st_size), "truncated")
    run = prior.run(tmp_path)
    assert run.wait() == 2 and run.errors[0].startswith(f"gen1: {newest} is damaged") and len(run.errors) == 1
    prior.finish(tmp_path, "--allow-older")
    assert_same_run(tmp_path, unbroken, END)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax, when it cannot read
def test_damage_anywhere_is_noticed_or_does_no_harm(tmp_path):
    params = {"a": jnp.arange(5000.0), "b": jnp.ones((3, 4))}
    counter = lambda: jnp.zeros((), jnp.int32)
    saved = TrainState(params, jax.tree.map(jnp.sin, params), {"mu": params}, counter(), counter(), counter())
    with Checkpoints(tmp_path / "whole", CheckpointConfig()) as checkpoints:
        checkpoints.save(1, saved, {"data": {"step": 1}, "metrics": {"loss": float("nan")}})
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), saved)
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    noticed = {}
    for path, damage in itertools.product(files, ("flipped", "deleted")):
        workdir = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", workdir)
        _damage(workdir / path, damage)
        noticed[path, damage] = _noticed(workdir, abstract, saved)
        shutil.rmtree(workdir)
    for item in ("params", "ema", "progress", "record"):
        inside = [path for path in files if path.is_relative_to(f"checkpoints/1/{item}")]
        largest = max(inside, key=lambda path: (tmp_path / "whole" / path).stat().st_size)
        assert noticed[largest, "flipped"] and noticed[largest, "deleted"], largest


def _noticed(workdir, abstract, saved) -> bool:
    with Checkpoints(workdir, CheckpointConfig()) as checkpoints:
        assert checkpoints.steps == [1]
        try:
            record, state = checkpoints.record(1), checkpoints.restore(1, abstract)
        except CheckpointError as error:
            assert str(checkpoints.folder / "1") in str(error) and "\n" not in str(error)
            return True
    assert record["data"] == {"step": 1}
    jax.tree.map(np.testing.assert_array_equal, state, saved)
    return False


def _damage(path, damage):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    if damage == "deleted":
        path.unlink()


def test_a_full_disk(prior, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    for step in range(STEPS + 1, END + 1):  # as after the first stage, but for entries of the log that are written anew
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    run = prior.run(tmp_path, largest_file=300_000)  # arrays of a checkpoint take more
    assert run.wait() == 2 and "File too large" in run.errors[0] and len(run.errors) == 1
    last = f"cannot be written to {tmp_path}/checkpoints (the last good one is of step {STEPS})"
    assert last in run.errors[0] and checkpoint_steps(tmp_path)[-1] == STEPS
    written, entry = (tmp_path / "log.jsonl").read_bytes(), json.dumps({"step": 1, "long": "-" * 5000}).encode()
    (tmp_path / "log.jsonl").write_bytes(entry + b"\n" + written)
    run = prior.run(tmp_path, largest_file=4000)  # its own words are a file, too
    assert run.wait() == 2 and run.errors == [f"gen1: [Errno 27] File too large: '{tmp_path}/log.jsonl'"]
    assert (tmp_path / "log.jsonl").read_bytes() == entry + b"\n" + written
    (tmp_path / "log.jsonl").write_bytes(written)
    prior.finish(tmp_path)
    assert_same_run(tmp_path, unbroken, END)


def test_why_a_checkpoint_is_not_written_is_not_lost_among_how_it_was_to_be(tmp_path):
    why = f"Error writing {'d' * 150}: No such file or directory [os_error_code='2']"
    how = "[tensorstore_spec='{" + 50 * '"context":{},' + "}']"
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    with checkpoints, pytest.raises(CheckpointError) as caught, checkpoints._writing():
        raise ValueError(f"{why} {how}")
    assert str(caught.value).endswith(f": {why}")


def test_a_checkpoint_for_which_there_is_no_room_is_not_begun(tmp_path, monkeypatch):
    zeros = {"a": jnp.zeros((1024, 1024))}
    state = TrainState(zeros, zeros, {}, *[jnp.zeros((), jnp.int32)] * 3)
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
        with pytest.raises(CheckpointError, match=r"there is none yet\): it needs 8.0 MiB, and 1.0 MiB are free"):
            checkpoints.save(1, state, {})
        assert not list(checkpoints.folder.iterdir())


def test_gradients_that_are_not_finite(prior, tmp_path):
    """Weights blow up in step 1: nothing from then on is kept of a step, and the second ends the run."""
    run = prior.run(tmp_path, "--config.optimizer.learning_rate=1e30", "--config.max_skipped=2")
    assert run.wait() == 1
    assert run.said == [
        "gen1: TrainingStopped: 2 steps in a row, up to step 3, had no finite loss or gradient; "
        "the last good checkpoint is of step 1"
    ]
    assert [(entry["step"], entry["skipped_in_a_row"]) for entry in log(tmp_path)] == [(1, 0), (2, 1), (3, 2)]
    assert [entry["loss"] is None for entry in log(tmp_path)] == [False, True, True]
