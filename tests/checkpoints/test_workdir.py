"""A workdir is one training's at a time, and is gone again if the training could not begin."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.checkpoints.workdir import WorkFiles, workdir_of
from gen1_jax.errors import UserError

HOLDER = """
import os, sys, time
from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.checkpoints.workdir import WorkFiles, workdir_of
files = WorkFiles(sys.argv[1], lock=True)
child = os.fork()  # as workers are
if child == 0:
    os.close(1)
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


def test_another_training_is_refused_until_the_first_is_gone_however_it_went(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        worker = int(holder.stdout.readline())
        try:
            with pytest.raises(UserError, match=r"^\S+: another gen1 train is at work there") as refused:
                WorkFiles(tmp_path, lock=True)
            assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)
            WorkFiles(tmp_path)  # the further processes of a run
            holder.kill()
            holder.wait()
            os.kill(worker, 0)  # is still there
            with WorkFiles(tmp_path, lock=True) as files:
                assert files.folder == tmp_path
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file, and a workdir is a folder"):
        WorkFiles(tmp_path / "file")
    with pytest.raises(UserError, match=r"file/run cannot be made, .*Not a directory"):
        WorkFiles(tmp_path / "file" / "run")


def test_a_workdir_made_in_vain_is_removed_with_what_was_made_above_it(tmp_path):
    workdir = tmp_path / "runs" / "a"
    with pytest.raises(UserError), WorkFiles(workdir, lock=True) as files:
        (files.folder / "config.json").write_text("{}")
        raise UserError("no data")
    assert not list(tmp_path.iterdir())

    with pytest.raises(UserError), WorkFiles(workdir) as files:
        files.begun = True
        raise UserError("the disk is full")
    with pytest.raises(UserError), WorkFiles(workdir):  # was there before
        raise UserError("no data")
    assert workdir.is_dir()


def test_a_checkpoint_that_is_named_as_a_model_names_its_workdir(tmp_path):
    """Those of other programs, under whatever folder of that name they lie, are models."""
    for name in ("run/checkpoints/300", "run/checkpoints/300/params", "checkpoints/own", "checkpoints/7"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "checkpoints" / "7" / "config.json").write_text("{}")
    for name in ("run/checkpoints", "run/checkpoints/300"):
        with pytest.raises(UserError, match=rf"{name} is a part of the workdir {tmp_path}/run: name that"):
            open_trained(tmp_path / name)
    assert workdir_of(tmp_path / "checkpoints" / "own") is None and workdir_of(tmp_path / "checkpoints" / "7") is None
    assert workdir_of("nano") is None


def test_a_workdir_copied_while_it_was_written_says_which_checkpoint_is_whole(tmp_path):
    """Its newest checkpoint lacks what had not been written."""
    for step in (3, 5):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
        (tmp_path / "checkpoints" / str(step) / "commit_success.txt").touch()
    with pytest.raises(
        UserError, match=r"checkpoints/5 is damaged or incomplete.*or move it away, and that of step 3 is"
    ):
        open_trained(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    with pytest.raises(UserError, match=r"checkpoints/5 is damaged or incomplete.*; copy it again$"):
        open_trained(tmp_path)
