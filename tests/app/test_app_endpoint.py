"""The page without a browser: its endpoint for programs, and what its handlers answer."""

import re
from pathlib import Path

import numpy as np
import pytest
from app_clips import write_clip

import gen1_jax
from gen1_jax.media import open_video, write_image

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
STEPS = 3  # as in the tests of the session, so that programs are shared
README = (Path(gen1_jax.__file__).parent / "app" / "README.md").read_text()


@pytest.fixture(scope="module")
def page(session):
    from gen1_jax.app.page import Page

    page = Page(session)
    yield page
    page.close()


@pytest.fixture(scope="module")
def client(page):
    from gradio_client import Client

    return Client(page.serve("127.0.0.1", None), verbose=False)


def frames_of(path):
    with open_video(path) as reader:
        return np.stack([frame.rgb for frame in reader])


def values(page, clip, **said):
    """Of all fields of the form: what is said, or what they show at first."""
    shown = {name: field.value for name, field in page.form.fields.items()} | {"image": None}
    said = dict(video=str(clip), structure_blur=2, guidance_scale=5.5, steps=STEPS, frames=4, seed=4) | said
    return [(shown | said)[name] for name in page.form.fields]


def look(page, clip, line="", **said):
    return list(page._look(line, *values(page, clip, structure_blur=0, **said)))


def test_a_program_edits_by_the_names_that_the_readme_tells(client, page, tmp_path):
    from gradio_client import handle_file

    endpoints = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/edit"]
    names = {parameter["parameter_name"] for parameter in endpoints["/edit"]["parameters"]}
    assert names == set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    clip = write_clip(tmp_path / "my clip.mp4", frames=9)
    numbers = dict(structure_blur=2, guidance_scale=5.5, steps=STEPS, seed=4)
    out = client.predict(
        video=handle_file(clip), prompt="gold", start=1, frames=4, stride=2, **numbers, api_name="/edit"
    )
    assert Path(out).name == "my clip_edit.mp4" and frames_of(out).shape == (4, 32, 48, 3)
    *_, last = page._edit(None, *values(page, clip, prompt="gold", start=1, stride=2))
    np.testing.assert_array_equal(frames_of(out), frames_of(last[4]))
    picture = tmp_path / "p.png"
    write_image(picture, np.zeros((8, 8, 3), np.uint8))
    for wrong, said in (
        ({"prompt": "gold", "image": handle_file(picture)}, "either a prompt or an image"),
        ({"prompt": " "}, "empty"),
        ({}, "either --prompt or --image"),
        ({"prompt": "gold", "start": 9}, "my clip.mp4: has only 9 frames"),
    ):
        with pytest.raises(Exception, match=said):
            client.predict(video=handle_file(clip), **numbers, **wrong, api_name="/edit")


def test_an_error_goes_at_the_next_action(page, clip, broken):
    *_, (picture, line) = look(page, broken)
    assert picture is None and "gen1-error" in line and "broken.mp4: not a video" in line
    (cleared, busy), (picture, told) = look(page, clip, line)  # at once, not when it has been read
    assert busy == "looking at the clip …" and cleared == gradio.skip()
    assert picture is not None and told.startswith("my clip.mp4: 48×32, the first 4 of 5 frames")
    assert len(look(page, clip, told)) == 1
    *_, failed = page._edit("visitor", *values(page, broken))
    assert "gen1-error" in failed[0]
    changed = [fn for fn in page.blocks.fns.values() if [c._id for c in fn.outputs] == [page.status._id]]
    (clear,) = (fn for fn in changed if [c._id for c in fn.inputs] == [page.status._id])
    assert clear.fn(failed[0]) == "" and clear.fn("sampling, 1 of 3") == gradio.skip()
    fields = page.form.fields
    event = lambda field: "input" if isinstance(field, gradio.ImageEditor) else "change"
    wanted = {(field._id, event(field)) for field in fields.values() if field is not fields["image"]}
    assert wanted <= set(clear.targets)


def test_a_part_of_a_clip_is_looked_at_and_edited(page, tmp_path):
    clip = write_clip(tmp_path / "long.mp4", frames=12)
    *_, (picture, line) = look(page, clip, start=2, stride=3)
    assert line == "long.mp4: 48×32, 4 of 12 frames, from frame 2 on, one of every 3, seen by the model at 20×12"
    assert "--start 2 --frames 4 --stride 3" in page._command(*values(page, clip, start=2, stride=3))
    assert "--start" not in page._command(*values(page, clip, start=None, stride=None))
    *_, (_, wrong) = look(page, clip, start=12)
    assert "gen1-error" in wrong and "has only 12 frames" in wrong


def test_the_slider_shows_a_frame_before_and_after(page, clip):
    *_, last = page._edit("visitor", *values(page, clip, start=1))
    (before, after), number, done = last[-3:]
    edit = frames_of(last[4])
    assert number["value"] == 2 and number["maximum"] == 3
    np.testing.assert_array_equal(before, frames_of(clip)[1 + 2])
    np.testing.assert_array_equal(after, edit[2])
    (before, after), _ = page._compare(done, 0)
    np.testing.assert_array_equal(before, frames_of(clip)[1])
    np.testing.assert_array_equal(after, edit[0])
    done[1].edit.unlink()
    nothing, line = page._compare(done, 0)
    assert nothing is None and "my clip_edit.mp4: no such file" in line
    assert page._compare(None, 0)[0] is None
