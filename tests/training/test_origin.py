"""A run whose model is a workdir, or a folder, that changes or moves after the run began."""

import os
import shutil

import pytest
from training_runs import STEPS, record

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.cli import main
from gen1_jax.pretrained.folder import ModelFolder, save_model

END = 2 * STEPS


@pytest.fixture
def train(prior, tmp_path, monkeypatch, capsys):
    """train(workdir, arguments): exit code and what is said by `gen1 train`, from the test's folder."""
    monkeypatch.chdir(tmp_path)

    def train(workdir, *arguments):
        code = main(["train", f"--config={prior.recipe}", f"--workdir={workdir}", "--stage=1", *arguments])
        return code, capsys.readouterr().err

    return train


def test_a_run_on_a_workdir_that_goes_on_and_moves(train, unbroken, tmp_path, capsys):
    shutil.copytree(unbroken, "base")
    code, said = train("run", "--config.model=base")
    assert code == 0 and "gen1: " not in said
    began = record(tmp_path / "run", STEPS)["origin"]
    assert (began["place"], began["step"], list(began["frozen"])) == (str(tmp_path / "base"), END, ["clip"])
    assert train(tmp_path / "run", f"--config.model={tmp_path}/base")[0] == 0  # the same, by its absolute path

    shutil.rmtree(tmp_path / "base" / "checkpoints" / str(END))
    with pytest.warns(
        UserWarning, match=rf"was trained on {tmp_path}/base at step {END}, whose prior is at step {END - 1}"
    ):
        assert open_trained("run").step == STEPS
    os.rename("base", "elsewhere")
    assert main(["info", "--model", "run"]) == 2
    capsys.readouterr()
    os.mkdir("other")
    os.chdir("other")
    assert main(["info", "--model", "../run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gen1: ../run: was trained on {tmp_path}/base, which is not there any more")


def test_frozen_networks_that_have_changed_are_refused(train, unbroken, tmp_path):
    """Of a model folder as of a workdir: another CLIP stands where the first one was."""
    base = ModelFolder(record(unbroken, END)["origin"]["place"])
    clip = base.parameters("clip")
    params = {name: base.parameters(name) for name in base.config.components}
    save_model(tmp_path / "model", base.config, params, (base.path / "tokenizer.json").read_text())
    assert train("run", "--config.model=model")[0] == 0

    shutil.rmtree("model")
    name, kernel = next((n, p) for n, p in clip["text_projection"].items())
    clip["text_projection"][name] = kernel[::-1]
    save_model(tmp_path / "model", base.config, params | {"clip": clip}, (base.path / "tokenizer.json").read_text())
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(STEPS))
    code, said = train("run", "--config.model=model")
    assert code == 2 and len(said.splitlines()) == 1
    assert f"this run began with the clip of {tmp_path}/model, and that of model is another" in said


def test_a_run_that_cannot_begin_leaves_nothing(train, tmp_path):
    code, said = train("runs/new", "--config.data.video.sources=('nowhere',)")
    assert code == 2 and "nowhere" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())
