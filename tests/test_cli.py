"""`gen1 ...` as a person types it: what comes out, and one clear line when the input is wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gen1_jax.cli import main
from gen1_jax.media import VideoWriter, open_video, write_image


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "in.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, width=48, height=32, frame_rate=12) as writer:
        for _ in range(5):
            writer.write(rng.integers(0, 256, (32, 48, 3), np.uint8))
    return path


def picture(path, seed=0):
    write_image(path, np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8))
    return path


def run(*arguments, model):
    return main(["edit", *map(str, arguments), "--model", str(model), "--steps", "2"])


def frames_of(path):
    with open_video(path) as reader:
        return reader.info, [frame.rgb for frame in reader]


def test_edit_keeps_size_frames_and_rate(clip, tiny_model, tmp_path, capsys):
    out, structure = tmp_path / "out.mp4", tmp_path / "structure.mp4"
    assert run(clip, "-o", out, "--prompt", "gold", "--save-structure", structure, "--json", model=tiny_model) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["frames"], summary["width"], summary["height"], summary["seed"]) == (5, 48, 32, 0)
    for path in (out, structure):
        info, frames = frames_of(path)
        assert (info.width, info.height, info.frame_rate, len(frames)) == (48, 32, 12, 5)
    grey = frames_of(structure)[1][0].astype(int)
    assert np.abs(grey[..., 0] - grey[..., 1]).max() <= 3


def test_edit_takes_a_picture_a_part_and_compares(clip, tiny_model, tmp_path):
    out = tmp_path / "out.mp4"
    arguments = (clip, "-o", out, "--image", picture(tmp_path / "content.png"), "--compare")
    assert run(*arguments, "--start", 1, "--frames", 2, "--stride", 2, model=tiny_model) == 0
    info, frames = frames_of(out)
    assert len(frames) == 2 and info.width > 2 * info.height and info.frame_rate == 6


def test_one_frame_is_an_image(clip, tiny_model, tmp_path):
    still = picture(tmp_path / "still.png")
    assert run(still, "-o", tmp_path / "out.png", "--prompt", "gold", model=tiny_model) == 0
    info, frames = frames_of(tmp_path / "out.png")
    assert info.is_image and frames[0].shape == (40, 30, 3)
    assert run(still, "-o", tmp_path / "out.mp4", "--prompt", "gold", model=tiny_model) == 0
    assert run(clip, "-o", tmp_path / "first.jpg", "--prompt", "gold", "--frames", 1, model=tiny_model) == 0


def wrong(name):
    """(name of the case, arguments after `edit`, word that the line must contain); {} is the test's folder."""
    return pytest.param(*name[1:], id=name[0])


WRONG = [
    ("no such file", ["{}/none.mp4", "-o", "{}/o.mp4", "--prompt", "x"], "none.mp4"),
    ("not a video", ["{}/text.mp4", "-o", "{}/o.mp4", "--prompt", "x"], "text.mp4"),
    ("empty", ["{}/empty.mp4", "-o", "{}/o.mp4", "--prompt", "x"], "empty"),
    ("truncated", ["{}/cut.mp4", "-o", "{}/o.mp4", "--prompt", "x"], "cut.mp4"),
    ("a URL", ["https://example.org/a.mp4", "-o", "{}/o.mp4", "--prompt", "x"], "local"),
    ("a protocol", ["concat:{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x"], "local"),
    (
        "t_s of 9",
        ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--structure-blur", "9"],
        "--structure-blur must be 0 to 7",
    ),
    (
        "t_s below 0",
        ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--structure-blur", "-1"],
        "--structure-blur must",
    ),
    ("t_s in words", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--structure-blur", "much"], "structure-blur"),
    ("negative steps", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--steps", "-3"], "--steps must be 1 to 1000"),
    ("NaN", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--guidance-scale", "nan"], "--guidance-scale must"),
    ("infinite", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--temporal-guidance-scale", "inf"], "temporal"),
    ("both contents", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--image", "{}/p.png"], "not both"),
    ("no content", ["{}/in.mp4", "-o", "{}/o.mp4"], "--prompt or --image"),
    ("empty prompt", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", " "], "--prompt"),
    ("no output", ["{}/in.mp4", "--prompt", "x"], "--output"),
    ("no such folder", ["{}/in.mp4", "-o", "{}/none/o.mp4", "--prompt", "x"], "folder"),
    ("unknown suffix", ["{}/in.mp4", "-o", "{}/o.xyz", "--prompt", "x"], "o.xyz"),
    ("output is input", ["{}/in.mp4", "-o", "{}/in.mp4", "--prompt", "x"], "in.mp4"),
    ("output is the picture", ["{}/in.mp4", "-o", "{}/p.png", "--image", "{}/p.png"], "p.png"),
    ("a picture of many frames", ["{}/in.mp4", "-o", "{}/o.png", "--prompt", "x"], "one frame"),
    ("same outputs", ["{}/in.mp4", "-o", "{}/o.mp4", "--save-structure", "{}/o.mp4", "--prompt", "x"], "same file"),
    ("not a picture", ["{}/in.mp4", "-o", "{}/o.mp4", "--image", "{}/text.mp4"], "text.mp4"),
    ("too many pixels", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--max-pixels", "100"], "--max-pixels"),
    ("too many frames", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--max-frames", "3"], "--max-frames"),
    ("too many bytes", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--max-bytes", "10"], "--max-bytes"),
    ("start beyond the end", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--start", "99"], "--start"),
    ("stride of 0", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--stride", "0"], "--stride must"),
    ("no such model", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--model", "{}/none"], "none"),
    ("not a model", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--model", "{}"], "config.json"),
    ("unknown sampler", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--sampler", "euler"], "dpm++"),
    ("unknown option", ["{}/in.mp4", "-o", "{}/o.mp4", "--prompt", "x", "--promt", "y"], "--promt"),
]


@pytest.mark.parametrize(("arguments", "word"), [wrong(case) for case in WRONG])
def test_wrong_input_is_one_line_and_leaves_nothing(arguments, word, clip, tiny_model, tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    picture(tmp_path / "p.png")
    before = {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()}
    arguments = [argument.format(tmp_path) for argument in arguments]
    if "--model" not in arguments:
        arguments += ["--model", str(tiny_model)]
    try:
        code = main(["edit", *arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    progress = re.compile(r"[a-z ]+: \d+ of \d+")  # which a slow machine is told before
    lines = [line for line in err.splitlines() if not progress.fullmatch(line)]
    assert len(lines) == 1 and lines[0].startswith("gen1: ") and word in lines[0], err
    assert out == ""
    assert {path: path.read_bytes() for path in Path(tmp_path).rglob("*") if path.is_file()} == before


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match=r"none\.mp4"):
        main(["edit", f"{tmp_path}/none.mp4", "-o", f"{tmp_path}/o.mp4", "--prompt", "x", "--debug"])


def test_a_failure_half_way_leaves_nothing(clip, tiny_model, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "write", fail)
    before = sorted(tmp_path.iterdir())
    assert run(clip, "-o", tmp_path / "out.mp4", "--prompt", "gold", model=tiny_model) == 130
    assert sorted(tmp_path.iterdir()) == before
    assert "interrupted" in capsys.readouterr().err


def test_an_existing_output_survives_a_failure(clip, tiny_model, tmp_path, monkeypatch):
    out = tmp_path / "out.mp4"
    out.write_bytes(b"precious")
    monkeypatch.setattr("gen1_jax.editing.pipeline.Gen1Pipeline.decode", lambda *_: iter([1 / 0]))
    with pytest.raises(ZeroDivisionError):
        main(
            ["edit", str(clip), "-o", str(out), "--prompt", "x", "--model", str(tiny_model), "--steps", "1", "--debug"]
        )
    assert out.read_bytes() == b"precious"


def test_info_tells_the_model(tiny_model, capsys):
    assert main(["info", "--model", str(tiny_model)]) == 0
    assert "unet" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert model["name"] == "nano" and model["total_parameters"] < 16e6


def test_an_untrained_model_says_so_in_one_line(clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gen1_jax.editing.pipeline.Gen1Pipeline.encode_content", lambda *_: 1 / 0)
    assert main(["edit", str(clip), "-o", str(tmp_path / "o.mp4"), "--prompt", "x", "--model", "tiny"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("gen1: warning: tiny has no trained weights yet") and len(lines) == 2
