import json

import numpy as np
import pytest
from PIL import Image

from gen1_jax.cli import main
from gen1_jax.evaluation.curves import read_training
from gen1_jax.evaluation.watch import in_letters, overview_of
from gen1_jax.media import save_video


@pytest.fixture
def workdir(tmp_path):
    """Two stages of 20 steps in entries of ten; the first entry has no time, for it compiled."""
    folder = tmp_path / "runs" / "vae"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"component": "vae"}))
    entries = [
        {
            "step": step,
            "stage": "first" if step <= 20 else "second",
            "loss": 1 / step,
            "image/loss": 1 / step,
            "psnr": step,
        }
        | ({"step_seconds": 0.5, "examples_per_second": 16.0} if step > 10 else {})
        for step in (10, 20, 30, 40)
    ]
    entries.insert(2, {"step": 20, "preview": "20.mp4"})
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "log.jsonl").write_text(text + '{"step": 50, "lo')
    return folder


def test_summary_and_picture(workdir, tmp_path, capsys):
    training = read_training(workdir)
    assert training.seconds == 15 and training.summary == {
        "run": "vae",
        "component": "vae",
        "steps": 40,
        "examples": 240,
        "hours": 0.004,
        "loss": 1 / 40,
        "psnr": 40,
    }
    picture = tmp_path / "curves.png"
    assert main(["curves", str(workdir), str(workdir), "-o", str(picture), "--json"]) == 0
    assert [run["steps"] for run in json.loads(capsys.readouterr().out)["runs"]] == [40, 40]
    one = Image.open(picture).size
    assert main(["curves", str(workdir), "-o", str(picture)]) == 0
    assert Image.open(picture).size[0] < one[0] and np.asarray(Image.open(picture)).std() > 5


def test_what_is_no_workdir_is_said(workdir, tmp_path, capsys):
    assert main(["curves", str(tmp_path), "-o", str(tmp_path / "a.png")]) == 2
    assert "has no log.jsonl" in capsys.readouterr().err
    (workdir / "log.jsonl").write_text("")
    assert main(["curves", str(workdir), "-o", str(tmp_path / "a.png")]) == 2
    assert "has no entry yet" in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_workdirs_without_entries_are_left_out_with_a_word(workdir, tmp_path, capsys):
    empty = workdir.parent / "empty"
    empty.mkdir()
    picture = tmp_path / "a.png"
    assert main(["curves", str(empty), str(workdir), "-o", str(picture)]) == 0
    assert capsys.readouterr().err == f"gen1: {empty} is left out: nothing has been logged there yet\n"
    assert picture.exists()
    assert main(["curves", str(empty), str(empty), "-o", str(picture)]) == 2
    assert main(["curves", str(tmp_path / "none"), str(workdir), "-o", str(picture)]) == 2


def test_a_run_is_watched_in_a_terminal(workdir, capsys):
    stages = [{"name": "first", "steps": 20}, {"name": "second", "steps": 30}]
    (workdir / "config.json").write_text(json.dumps({"component": "vae", "stages": stages}))
    assert main(["train", "--show", "--workdir", str(workdir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "vae: vae, step 40 of 50, stage second (2 of 2), 0 min of steps, about 0 min left"
    assert lines[1] == "loss 0.025, 0.5 s a step, 16 examples a second"
    bars = [line.split("│")[1] for line in lines if "│" in line]
    assert len(bars) == 8 and all(len(bar) == 4 for bar in bars)
    assert bars[0][0] == "█" and bars[0][1:] == "   " and bars[-1] == "███▁"  # from 0.1 down to 0.025
    assert any(line.startswith("preview ") and line.endswith("20.mp4") for line in lines)
    assert main(["train", "--show", "--workdir", str(workdir), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 40
    assert main(["train", "--show", "--workdir", str(workdir / "nowhere")]) == 2
    assert "not a workdir of gen1 train" in capsys.readouterr().err


def test_the_last_preview_is_drawn_in_letters(workdir):
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:10] = 255, 0, 0
    lines = in_letters(picture, 8)
    assert len(lines) == 2 and all(line.count("▀") == 8 for line in lines)
    assert lines[0].startswith("\x1b[38;2;255;0;0") and lines[1].endswith("0;0;0m▀\x1b[0m")
    (workdir / "previews").mkdir()
    save_video(picture[None], workdir / "previews" / "20.mp4")
    assert "▀" in overview_of(workdir, colours=True)[0] and "▀" not in overview_of(workdir)[0]
