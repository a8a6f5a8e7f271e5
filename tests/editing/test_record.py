"""The settings of an edit: in its file, read back, repeated; and queues of edits."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tiny import save_tiny_model

from gen1_jax.checkpoints.identity import model_hash
from gen1_jax.cli import main
from gen1_jax.editing.queue import outputs_in
from gen1_jax.editing.record import read_record
from gen1_jax.errors import UserError
from gen1_jax.media import open_video, write_image
from gen1_jax.media.clips import load_video, save_video
from gen1_jax.pretrained.folder import open_model

STEPS = ["--steps", "2"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    save_video(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8), path, 8)
    return path


@pytest.fixture
def edit(tiny_model, clip, tmp_path, monkeypatch):
    """edit(output, *arguments, more=()): exit code of `gen1 edit` of the clip and more, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(tiny_model)]
    return lambda output, *given, more=(): main(["edit", str(clip), *more, "-o", output, *model, *given])


def test_an_edit_repeats_from_its_own_file(edit, tiny_model, tmp_path, capsys):
    settings = ["--prompt", "a naïve car", "--seed", "7", "--structure-blur", "2", "--start", "125ms", "--frames", "2"]
    settings += ["--guidance-interval", "0:0.5", "--sampler", "dpm++", "--size", "24x16", "--sidecar"]
    assert edit("one.mkv", *settings, *STEPS) == 0
    record = read_record("one.mkv")
    assert record == read_record("one.mkv.json")
    assert (record["prompt"], record["seed"], record["start"], record["size"]) == ("a naïve car", 7, "1/8s", "24x16")
    assert record["guidance_interval"] == (0.0, 0.5) and record["shift_windows"]
    assert record["guidance_scale"] == open_model(tiny_model).config.guidance_scale  # the model's own, in numbers
    assert record["model_hash"] == model_hash(open_model(tiny_model)) and "/" not in json.dumps(record["video"])
    for source in ("one.mkv", "one.mkv.json"):
        assert edit("two.mkv", "--settings-from", source) == 0
        np.testing.assert_array_equal(load_video("two.mkv"), load_video("one.mkv"))
    capsys.readouterr()
    assert main(["info", "one.mkv"]) == 0
    assert "a naïve car" in capsys.readouterr().out
    (tmp_path / "braces.json").write_text(json.dumps(record | {"prompt": "{car} 100%"}))
    assert main(["info", "braces.json"]) == 0
    assert "{car} 100%" in capsys.readouterr().out
    assert edit("other.mkv", "--settings-from", "one.mkv", "--seed", "8") == 0  # what is given comes first
    assert read_record("other.mkv") == record | {"seed": 8}
    before = {name: x for name, x in record.items() if name not in ("guidance_interval", "shift_windows")}
    (tmp_path / "before.json").write_text(json.dumps(before))  # of an edit from before there was a choice
    assert read_record("before.json") == record | {"guidance_interval": (0.0, 1.0), "shift_windows": False}


def test_an_edit_is_signed(edit, tmp_path, capsys):
    write_image("picture.png", np.full((20, 20, 3), 200, np.uint8))
    assert edit("one.gif", "--image", "picture.png", "--frames", "1", *STEPS) == 0
    capsys.readouterr()
    assert main(["info", "one.gif"]) == 0  # which has no other place for settings than its manifest
    said = capsys.readouterr().out
    assert "Valid: not changed since it was signed; nobody vouches for who" in said and "identifies nobody" in said
    assert "clip.mkv (parentOf, without a manifest)" in said and "picture.png (inputTo, " in said
    assert "c2pa.edited (compositeWithTrainedAlgorithmicMedia)" in said and "num_inference_steps     2" in said
    assert read_record("one.gif")["seed"] == 0

    identity = Path(os.environ["XDG_CONFIG_HOME"]) / "gen1_jax" / "identity"
    assert main(["info", "one.gif", "--trust", str(identity / "certificates.pem"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["provenance"]["state"] == "Trusted"
    assert told["provenance"]["edit"] == json.loads(json.dumps(read_record("one.gif")))
    data = bytearray(Path("one.gif").read_bytes())
    data[-3] ^= 1
    Path("one.gif").write_bytes(data)
    assert main(["info", "one.gif"]) == 0
    assert "Invalid: changed since it was signed" in capsys.readouterr().out


def test_credentials_that_cannot_sign_are_refused_before_the_work(edit, tmp_path, capsys):
    credentials = ["--credentials", "chain.pem", "key.pem"]
    for output, more, said in (
        ("one.mp4", credentials, "chain.pem: cannot be read (No such file or directory)"),
        ("one.mkv", credentials, "one.mkv: --credentials: such a file holds no C2PA manifest"),
        ("one.mp4", [*credentials, "--no-provenance"], "give one of them"),
    ):
        assert edit(output, "--prompt", "a car", *more) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_what_made_an_edit_is_missed(edit, tmp_path, capsys):
    write_image("picture.png", np.full((20, 20, 3), 200, np.uint8))
    assert edit("still.png", "--image", "picture.png", "--frames", "1", *STEPS) == 0
    assert edit("again.png", "--settings-from", "still.png") == 2
    assert "from the picture picture.png: name it with --image" in capsys.readouterr().err
    write_image("picture.png", np.full((20, 20, 3), 100, np.uint8))
    other = str(save_tiny_model(tmp_path / "other", seed=5))
    assert edit("again.png", "--settings-from", "still.png", "--image", "picture.png", "--model", other) == 0
    said = capsys.readouterr().err
    assert "is not the picture picture.png" in said and "is not the model" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "damaged"),
        ("[1]", "not those of gen1 edit"),
        ('{"record": 99}', "newer version"),
        ('{"record": 1, "model": 3}', "model is '3'"),
        ('{"record": 1, "model": "nano", "model_hash": "x", "seed": true}', "settings are damaged"),
    ],
)
def test_strange_records_are_refused_in_one_line(edit, tmp_path, capsys, text, said):
    (tmp_path / "strange.json").write_text(text)
    assert edit("out.mkv", "--settings-from", "strange.json") == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1 and not (tmp_path / "out.mkv").exists()


def test_a_file_without_settings_says_so(edit, clip, capsys):
    assert edit("out.mkv", "--settings-from", str(clip)) == 2
    assert "clip.mkv: has no settings in it" in capsys.readouterr().err
    assert main(["info", str(clip)]) == 2
    assert "clip.mkv: has neither a manifest (C2PA) nor" in capsys.readouterr().err


def test_a_bad_file_does_not_stop_a_queue(edit, clip, tiny_model, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    settings = ["--prompt", "a car", "--frames", "2", *STEPS]
    assert edit("out/", *settings, "--json", more=("broken.mp4", str(clip))) == 3
    summary = json.loads(capsys.readouterr().out)
    assert (summary["done"], summary["all"]) == (2, 3) and "broken.mp4" in summary["failed"][0]["video"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip-2.mkv", "clip.mkv"]
    with open_video(tmp_path / "out" / "clip-2.mkv") as reader:
        assert len(list(reader)) == 2
    assert edit("out.mkv", *settings, more=(str(clip),)) == 2
    assert "need a folder" in capsys.readouterr().err
    assert edit("new/", *settings, "--model", "nowhere", more=(str(clip),)) == 2 and not (tmp_path / "new").exists()


def test_outputs_of_a_queue_have_names_of_their_own(tmp_path):
    (tmp_path / "frames").mkdir()
    videos = ["a/x.mp4", "b/X.mp4", "y.avi", "y.mp4", str(tmp_path / "frames")]
    names = [path.name for path in outputs_in(tmp_path, videos)]
    assert names == ["x.mp4", "X-2.mp4", "y.mp4", "y-2.mp4", "frames.mp4"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        outputs_in(tmp_path / "file", videos)


def test_a_model_with_pictures_beside_it_is_a_model(capsys):
    """As nano's card has them."""
    folder = open_model("nano").path
    assert list(folder.glob("*.png"))
    assert main(["info", str(folder)]) == 0
    assert "parameters, clips of" in capsys.readouterr().out
