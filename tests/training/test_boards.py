"""Where runs are watched; what TensorBoard has of clips is looked at where previews are."""

import importlib.util
import io
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from gen1_jax.cli import main
from gen1_jax.training.boards import WANDB_ID, WeightsAndBiases
from gen1_jax.training.metrics import MetricsLog

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.py"
CLIP = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), np.uint8)


class WandB:
    """The package, as far as it is asked: runs by their id, and what they were told."""

    def __init__(self):
        self.runs = []

    def init(self, **told):
        run = SimpleNamespace(told=told, entries=[], axes=[], finished=0)
        run.log = run.entries.append
        run.define_metric = lambda *names, **more: run.axes.append((*names, more))
        run.finish = lambda: setattr(run, "finished", run.finished + 1)
        self.runs.append(run)
        return run

    def Video(self, data, format):
        return format, data.read()


def test_a_run_and_its_going_on_are_one_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", wandb := WandB())
    boards = [partial(WeightsAndBiases, "project", "nano", {"seed": 7})]
    for step in (0, 2, 0):
        with MetricsLog(tmp_path, step, boards=boards) as log:
            log.write(step + 1, {"loss": 0.5, "bad": float("nan"), "stage": "first"})
            log.write_clip(step + 1, "preview", CLIP, 8.0)
    first, second, third = wandb.runs
    assert first.told["project"] == "project" and first.told["config"] == {"seed": 7} and first.told["name"] == "nano"
    assert first.told["id"] == second.told["id"] != third.told["id"] == (tmp_path / WANDB_ID).read_text()
    assert second.told["resume"] == "allow" and ("*", {"step_metric": "step"}) in second.axes
    numbers, clip = second.entries
    assert numbers == {"loss": 0.5, "step": 3} and clip["step"] == 3
    form, gif = clip["preview"]
    shown = Image.open(io.BytesIO(gif))
    assert form == "gif" and (shown.n_frames, shown.size) == (3, (16, 8))
    assert [run.finished for run in wandb.runs] == [1, 1, 1]


def test_without_the_package_nothing_begins(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    workdir = tmp_path / "run"
    assert main(["train", "--config", str(SMOKE), "--workdir", str(workdir), "--wandb", "p"]) == 2
    assert capsys.readouterr().err == 'gen1: --wandb needs wandb: pip install "gen1-jax[wandb]"\n'
    assert not workdir.exists()


def test_a_training_does_not_import_torch(tmp_path):
    """A third library would, if it could, and torch takes as long as all else that a training imports."""
    program = f"""
import sys
from pathlib import Path
import gen1_jax.commands.train, gen1_jax.training.loop
from gen1_jax.training.boards import TensorBoard
board = TensorBoard(Path({str(tmp_path)!r}), 0)
board.numbers(1, {{"loss": 0.5}})
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 1
