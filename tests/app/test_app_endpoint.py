"""The page without a browser: its endpoint for programs, and what its handlers answer."""

import re
from pathlib import Path

import numpy as np
import pytest
from app_clips import README, write_clip

from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.media import Part, open_video, write_image

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
STEPS = 3  # as in the tests of the session, so that programs are shared


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
    assert list(endpoints) == ["/edit", "/structure"]
    names = {each: {p["parameter_name"] for p in endpoints[each]["parameters"]} for each in endpoints}
    assert names["/edit"] == set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    (told,) = re.findall(r"`/structure` takes (.*?)\. Files", README, re.DOTALL)
    assert names["/structure"] == set(re.findall(r"`(\w+)`", told))
    clip = write_clip(tmp_path / "my clip.mp4", frames=9)
    numbers = dict(structure_blur=2, guidance_scale=5.5, steps=STEPS, seed=4)
    out = client.predict(
        video=handle_file(clip), prompt="gold", start=1, frames=4, stride=2, **numbers, api_name="/edit"
    )
    assert Path(out).name == "my clip_edit.mp4" and frames_of(out).shape == (4, 32, 48, 3)
    *_, last = page._edit(None, *values(page, clip, prompt="gold", start=1, stride=2))
    np.testing.assert_array_equal(frames_of(out), frames_of(last[4]))
    picture = tmp_path / "p.png"
    write_image(picture, np.zeros((32, 48, 3), np.uint8))
    for wrong, said in (
        ({"prompt": "gold", "image": handle_file(picture)}, "either a prompt or an image"),
        ({"prompt": " "}, "empty"),
        ({}, "either --prompt or --image"),
        ({"prompt": "gold", "start": 9}, "my clip.mp4: has only 9 frames"),
        ({"prompt": "gold", "mask": str(picture)}, "a file goes to mask_file"),  # one of the server's
        ({"prompt": "gold", "mask_frame": 1}, "mask_frame is for mask_file"),
        ({"contents": ["prompt=gold", "image=0"]}, "contents name image=0, and content_images are 0 pictures"),
        ({"prompt": "gold", "contents": ["prompt=ice"]}, "--content stands in the place of --prompt"),
        ({"prompt": "gold", "inverted_noise": True, "strength": 0.5}, "both say what an edit begins with"),
        ({"prompt": "gold", "enlarged": True}, "gen1 app --upscaler DIR names a model that does"),
        ({"prompt": "gold", "keyframes": [handle_file(picture)]}, "no input for known frames"),
        ({"prompt": "gold", "keyframes": [handle_file(picture)], "keyframe_numbers": "0,1"}, "1 picture and 2 numbers"),
    ):
        with pytest.raises(Exception, match=said):
            client.predict(video=handle_file(clip), **numbers, **wrong, api_name="/edit")


def test_a_program_masks_and_looks_at_structure(client, session, tmp_path):
    from gradio_client import handle_file

    clip, mask = write_clip(tmp_path / "my clip.mp4"), tmp_path / "mask.png"
    write_image(mask, np.where(np.arange(48)[None, :, None] < 24, 255, 0).repeat(32, 0).repeat(3, 2).astype(np.uint8))
    numbers = dict(prompt="gold", structure_blur=2, guidance_scale=5.5, steps=STEPS, seed=4, frames=4, mask_feather=0)
    ask = lambda **said: client.predict(video=handle_file(clip), **said)
    edit, source = ask(mask_file=handle_file(mask), **numbers, api_name="/edit"), frames_of(clip)[:4].astype(int)
    apart = np.abs(frames_of(edit) - source).mean((0, 1, 3))
    assert apart[28:].mean() < apart[:20].mean() / 2  # an mp4 is not lossless
    near = ask(mask="near:0.5", **numbers, api_name="/edit")
    assert np.abs(frames_of(near).astype(int) - frames_of(edit)).mean() > 1
    seen = ask(structure_blur=1, frames=4, api_name="/structure")
    assert Path(seen).name == "my clip_structure.mp4" and frames_of(seen).shape == source.shape
    settings = EditSettings(structure_blur=1)
    (first, *_), *_ = session._clips.structures(
        session._clips(clip, Part(frames=4), settings), settings, None, (32, 48)
    )
    assert np.abs(frames_of(seen)[0].astype(int) - first).mean() < 4
    assert not frames_of(ask(mask="far:0", frames=4, api_name="/structure"))[:, 8:-8, 8:-8].max() > 255
    for words in ("text:car", "changed", "changed:car"):
        with pytest.raises(Exception, match=f"mask {words}: words are for /edit"):
            ask(mask=words, api_name="/structure")


def test_the_edits_so_far_are_gone_back_to(page, clip):
    past, seeds = [], (4, 5)
    for seed in seeds:
        *_, last = page._edit_again("visitor", past, *values(page, clip, prompt="gold", seed=seed))
        past, choices = last[-2], last[-1]
    labels = [f"{n} · gold · w 5.5, t_s 2, seed {seed}" for n, seed in ((2, 5), (1, 4))]
    assert choices["choices"] == labels and choices["value"] == labels[0]
    shown = page._go_back(past, labels[1])
    back = dict(zip(page.form.fields, shown[-len(page.form.fields) :], strict=True))
    assert back["seed"] == 4 and back["prompt"] == "gold" and shown[0] == "done"
    assert shown[4] == str(past[0].files.edit) != str(past[1].files.edit)
    past[0].files.edit.unlink()
    gone = page._go_back(past, labels[1])
    assert "are gone" in gone[0] and list(gone[-len(page.form.fields) :]) == list(past[0].values)
    assert "are gone" in page._go_back(past, None)[0]


def test_keyframes_are_pictures_and_numbers():
    from gen1_jax.app.fields import keyframes_of

    assert keyframes_of(None, None) == [] and keyframes_of("a.png", "") == [(0, "a.png")]
    assert keyframes_of(["a.png", "b.png"], "0, -1") == [(0, "a.png"), (-1, "b.png")]
    for files, numbers in ((["a.png"], "x"), ([], "1"), (["a.png", "b.png"], "")):
        with pytest.raises(UserError, match="keyframes: "):
            keyframes_of(files, numbers)


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
    assert line == "long.mp4: 48×32, 4 of 12 frames, from frame 2 on, one of every 3, seen by the model at 20×14"
    assert "--start 2 --frames 4 --stride 3" in page._command(*values(page, clip, start=2, stride=3))
    assert "--start" not in page._command(*values(page, clip, start=None, stride=None))
    *_, (_, wrong) = look(page, clip, start=12)
    assert "gen1-error" in wrong and "has only 12 frames" in wrong


def test_masks_that_take_the_whole_model_are_not_looked_at(page, clip):
    seen = lambda **said: look(page, clip, **said)[-1][0]
    whole = seen()
    for said in ({"mask": "words", "mask_words": "gold"}, {"mask": "what the prompt changes"}, {"mask": "a click"}):
        np.testing.assert_array_equal(seen(**said), whole)
    assert (seen(mask="what is near") != whole).any()


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
