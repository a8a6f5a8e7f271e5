"""A page with a model that enlarges: the edit, or the clip itself."""

import dataclasses
import re
import shlex

import numpy as np
import pytest
from app_clips import README, write_clip
from tiny import TINY, save_tiny_model

from gen1_jax.app.session import AppOptions, EditSession
from gen1_jax.cli import main
from gen1_jax.editing import files
from gen1_jax.editing.record import read_record
from gen1_jax.errors import UserError
from gen1_jax.media import open_video

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
STEPS = 2
UPSCALES = dataclasses.replace(
    TINY,
    unet=dataclasses.replace(TINY.unet, structure_kinds=("low_resolution",)),
    num_inference_steps=STEPS,
)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "upscaler", UPSCALES)


@pytest.fixture(scope="module")
def page(tiny_model, upscaler):
    from gen1_jax.app.page import Page

    with EditSession(AppOptions(model=str(tiny_model), upscaler=str(upscaler), max_frames=12)) as session:
        page = Page(session)
        yield page
        page.close()


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", frames=2)


def values(page, clip, **said):
    shown = {name: field.value for name, field in page.form.fields.items()}
    said = dict(video=str(clip), prompt="gold", steps=STEPS, frames=2, seed=4) | said
    return [(shown | said)[name] for name in page.form.fields]


def frames_of(path):
    with open_video(path) as reader:
        return np.stack([frame.rgb for frame in reader])


ENLARGED = [
    (
        {"enlarged": "the edit", "noise_level": 2, "match_colour": False},
        "clip_edit.mp4",
        (32, 48),
        "--upscale 2 --upscaler {} --noise-level 2 --no-match-colour",
    ),
    (
        {"enlarged": "the clip itself", "noise_level": 0, "enlarging_steps": 1},
        "clip_large.mp4",
        (64, 96),
        "--noise-level 0 --steps 1 --seed 4 --frames 2 --model {}",
    ),
]


@pytest.mark.parametrize(("said", "name", "size", "options"), ENLARGED)
@pytest.mark.usefixtures("programs_of_commands")
def test_what_is_enlarged_is_what_the_command_does(page, clip, tmp_path, monkeypatch, said, name, size, options):
    past = []
    *_, last = page._edit_again("visitor", past, *values(page, clip, **said))
    assert last[0] == "done", last[0]
    edit, (before, after) = last[4], last[8]
    assert frames_of(edit).shape[1:3] == before.shape[:2] == after.shape[:2] == size
    assert "enlarged" in last[-2][0].label
    monkeypatch.chdir(tmp_path)
    models = page._session.models  # whose programs are compiled
    monkeypatch.setattr(files, "open_pipeline", models.of)
    monkeypatch.setattr(files, "open_upscaler", lambda request, _: None if request.enlarges else models.upscaler)
    text = page._command(*values(page, clip, **said))
    assert options.format(page._session.options.upscaler) in text
    assert main([*shlex.split(text)[1:], "--json"]) == 0
    assert read_record(name) == read_record(edit)
    np.testing.assert_array_equal(frames_of(name), frames_of(edit))


def test_what_the_upscaler_is_told_is_seen(page, clip):
    look = lambda **said: [*page._look("", *values(page, clip, enlarged="the clip itself", **said))][-1]
    (near, line), (far, _) = look(noise_level=0), look(noise_level=7)
    assert "seen by the model at 96×64" in line
    assert (
        near.shape == (64, 2 * 96 + 4, 3)
        and (near[:, :96] == far[:, :96]).all()
        and (near[:, -96:] != far[:, -96:]).any()
    )


def test_a_program_enlarges(page, clip):
    from gradio_client import Client, handle_file

    client = Client(page.serve("127.0.0.1", None), verbose=False)
    endpoints = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    (told,) = re.findall(r"`/upscale` takes (.*?)\.\s", README, re.DOTALL)
    assert {p["parameter_name"] for p in endpoints["/upscale"]["parameters"]} == set(re.findall(r"`(\w+)`", told))
    numbers = dict(steps=STEPS, seed=4, frames=2)
    out = client.predict(video=handle_file(clip), noise_level=0, **numbers | {"steps": 1}, api_name="/upscale")
    *_, last = page._edit(None, *values(page, clip, **ENLARGED[1][0]))
    np.testing.assert_array_equal(frames_of(out), frames_of(last[4]))
    edit = client.predict(video=handle_file(clip), prompt="gold", enlarged=True, **numbers, api_name="/edit")
    assert frames_of(edit).shape[1:3] == (32, 48) and read_record(edit)["upscale"] == 2
    with pytest.raises(Exception, match="noise_level must be 0 to 7, got 9"):
        client.predict(video=handle_file(clip), noise_level=9, **numbers, api_name="/upscale")


def test_words_say_what_the_clip_shows(page, clip):
    said = {"enlarged": "the clip itself", "shown": " a car ", "propagate": "2", "second_prompt": "ice"}
    assert "--prompt 'a car' --seed 4 --propagate 2 --frames 2 --model" in page._command(*values(page, clip, **said))


def test_without_an_upscaler_there_is_nothing_of_it(session, clip, upscaler):
    from gen1_jax.app.page import Page

    assert "enlarged" not in Page(session).form.fields
    with pytest.raises(UserError, match="gen1 app --upscaler DIR names a model that does"):
        session.enlarging(str(clip))
    for wrong, line in (
        (AppOptions(upscaler="nano"), "--upscaler nano does not enlarge videos"),
        (AppOptions(model=str(upscaler)), "enlarges videos: name it with --upscaler, beside one that edits"),
    ):
        with pytest.raises(UserError, match=line):
            EditSession(wrong)


def test_how_is_for_what_is_enlarged(clip, capsys):
    for option in (["--noise-level", "2"], ["--no-match-colour"]):
        assert main(["edit", str(clip), "-o", "out.mp4", "--prompt", "gold", *option]) == 2
        assert "is for an edit that is enlarged: say --upscale 2" in capsys.readouterr().err
    wrong = ["--upscale", "2", "--upscaler", "x", "--noise-level", "9"]
    assert main(["edit", str(clip), "-o", "out.mp4", "--prompt", "gold", *wrong]) == 2
    assert "--noise-level must be 0 to 7, got 9" in capsys.readouterr().err
