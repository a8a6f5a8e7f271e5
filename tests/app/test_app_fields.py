"""Further contents and what is advanced: the page's fields, and the command that does the same."""

import dataclasses
import shlex
from pathlib import Path

import numpy as np
import pytest
from app_clips import write_clip
from tiny import TINY, save_tiny_model

from gen1_jax.app.session import AppOptions, EditSession
from gen1_jax.cli import main
from gen1_jax.editing import files
from gen1_jax.editing.record import read_record
from gen1_jax.errors import UserError
from gen1_jax.media import open_video, read_image, write_image

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")
STEPS = 3  # as in the tests of the session, so that programs are shared


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "statue 1.png"
    write_image(path, np.random.default_rng(3).integers(0, 256, (40, 30, 3), np.uint8))
    return str(path)


def values(page, clip, **said):
    """Of all fields of the form: what is said, or what they show at first."""
    shown = {name: field.value for name, field in page.form.fields.items()}
    said = dict(video=str(clip), prompt="gold", steps=STEPS, frames=4, seed=4) | said
    assert said.keys() <= shown.keys()
    return [(shown | said)[name] for name in page.form.fields]


def frames_of(path):
    with open_video(path) as reader:
        return np.stack([frame.rgb for frame in reader])


def edited(page, clip, **said):
    *_, last = page._edit("visitor", *values(page, clip, **said))
    assert last[0] == "done", last[0]
    return last[4]


@pytest.mark.parametrize(
    ("said", "contents", "options"),
    [
        (
            {"content_weight": "1..0", "second_weight": " 0..1 ", "propagate": "2, 3"},
            ["prompt=gold:1..0", "image=statue 1.png:0..1"],
            "--propagate 2,3",
        ),
        (
            {"third_prompt": "ice", "third_weight": "0.5", "blend": "embeddings", "inverted_noise": True},
            ["prompt=gold", "image=statue 1.png", "prompt=ice:0.5"],
            "--blend embeddings --inverted-noise",
        ),
    ],
)
@pytest.mark.usefixtures("programs_of_commands")
def test_the_command_does_the_same(page, clip, picture, tmp_path, monkeypatch, said, contents, options):
    said = said | {"second_image": picture}
    edit = edited(page, clip, **said)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "open_pipeline", lambda request: page._session.pipeline)  # whose programs are compiled
    text = page._command(*values(page, clip, **said))
    assert options in text
    assert main([*shlex.split(text)[1:], "--json"]) == 0
    assert read_record("my clip_edit.mp4") == read_record(edit)
    assert read_record(edit)["contents"] == contents
    np.testing.assert_array_equal(frames_of("my clip_edit.mp4"), frames_of(edit))


def test_what_is_wrong_is_one_line(page, clip, picture):
    for said, line in (
        ({"second_prompt": "ice", "second_image": picture}, "the second content is both words and a picture"),
        ({"third_prompt": "ice", "third_weight": "much"}, "weight of the third content: 'much' is neither a number"),
        ({"third_prompt": "ice", "third_weight": "-1"}, "the weight of a content must be 0 to 1000"),
        ({"propagate": "soon"}, "propagate is 'soon', not numbers of steps"),
    ):
        assert page._command(*values(page, clip, **said)).startswith(f"# {line}")
    for said, line in (
        (
            {"second_prompt": "ice", "second_weight": "sound"},
            "my clip.mp4: a content has the weight sound, but there is no",
        ),
        ({"inverted_noise": True, "sampler": "lcm"}, "inverted_noise is for samplers that draw no noise"),
        ({"propagate": "4"}, "propagate names step 4 of 3"),
    ):
        *_, failed = page._edit("visitor", *values(page, clip, **said))
        assert line in failed[0]


def test_words_that_the_model_has_never_seen_are_named(page, clip, monkeypatch):
    monkeypatch.setattr(page._session.pipeline.source, "words", frozenset({"a", "golden", "car"}))
    told = page._unknown(*values(page, clip, prompt="A golden car"))
    assert told["value"] == "" and not told["visible"]
    told = page._unknown(*values(page, clip, prompt="a <b> car", second_prompt="Godzilla", background="a blue car"))
    assert told["visible"] and "has never seen &quot;blue&quot;, &quot;b&quot;, &quot;Godzilla&quot;" in told["value"]
    assert not page._unknown(*values(page, clip, prompt="Godzilla", kind="a picture"))["visible"]  # and none chosen


def test_the_frame_to_paint_on_is_written_once(page, clip):
    """Every event brings it back to be read, also while another visitor chooses the same clip."""
    editor, files = page.form.masks.fields["mask_drawn"], []
    for _ in range(2):
        _, drawn, _ = page.form.masks.first_frame(str(clip), 0)
        path = Path(editor.postprocess(drawn).background.path)
        files.append((path, path.stat().st_ino, path.stat().st_mtime_ns))
    assert files[0] == files[1] and path.is_relative_to(page._session.folder)
    np.testing.assert_allclose(read_image(path), frames_of(clip)[0], atol=1)


def test_contents_of_programs_name_pictures_by_number(page):
    from gen1_jax.app.endpoint import contents_of

    assert contents_of(None, None) == []
    uses = contents_of(["prompt=ice:2", "image=1:0..1", "image=0"], ["a.png", "b.png"])
    assert [str(use) for use in uses] == ["prompt=ice:2", "image=b.png:0..1", "image=a.png"]
    for texts, given in (
        ("prompt=ice", []),
        ([1], []),
        (["image=/etc/passwd"], []),
        (["image=0"], ["a", "b"]),
        (["x"], []),
    ):
        with pytest.raises(UserError, match=r"^contents? "):
            contents_of(texts, given)


def test_the_history_tells_of_contents(page, clip, picture):
    past = []
    for said in (
        {"second_prompt": "ice"},
        {"prompt": "", "kind": "a picture", "image": picture, "second_prompt": "ice"},
    ):
        *_, last = page._edit_again("visitor", past, *values(page, clip, **said))
        past = last[-2]
    assert past[0].label.startswith("1 · gold · w") and past[0].label.endswith("seed 4 · 2 contents")
    assert past[1].label.startswith("2 · ice · w")
    assert [use.prompt for use in past[1].request.contents] == [None, "ice"]
    back = dict(zip(page.form.fields, page._go_back(past, past[0].label)[-len(page.form.fields) :], strict=True))
    assert back["second_prompt"] == "ice"


def test_fields_are_for_models_that_have_such_inputs(page, tmp_path):
    assert not {"keyframe_stride", "source_guidance_scale"} & page.form.fields.keys()
    from gen1_jax.app.page import Page

    unet = dataclasses.replace(TINY.unet, known=True, structure_kinds=("depth", "source"))
    folder = save_tiny_model(tmp_path / "model", dataclasses.replace(TINY, unet=unet, prior=None))
    clip = write_clip(tmp_path / "clip.mp4")
    with EditSession(AppOptions(model=str(folder), max_frames=4)) as session:
        page = Page(session)
        fields = page.form.fields
        assert "second_image" in fields and "second_prompt" not in fields  # it reads no words
        assert fields["keyframe_stride"].maximum == TINY.num_frames - 1
        assert "--source-guidance-scale" not in page._command(
            *values(page, clip, prompt="", kind="a picture", image="a")
        )
        said = dict(kind="a picture", image=str(tmp_path / "a.png"), keyframe_stride=2, source_guidance_scale=1.5)
        text = page._command(*values(page, clip, **said | {"prompt": ""}))
        assert "--keyframe-stride 2 --source-guidance-scale 1.5" in text


def test_scales_of_a_distilled_model_go_as_far_as_it_learned(tmp_path):
    from gen1_jax.app.page import Page

    distilled = dict(
        unet=dataclasses.replace(TINY.unet, guidance_embedded=True), distilled_scales=((1.0, 4.0), (0.5, 1.5))
    )
    folder = save_tiny_model(tmp_path / "model", dataclasses.replace(TINY, guidance_scale=2.0, **distilled))
    with EditSession(AppOptions(model=str(folder))) as session:
        fields = Page(session).form.fields
        ranges = [
            (fields[name].minimum, fields[name].maximum) for name in ("guidance_scale", "temporal_guidance_scale")
        ]
        assert ranges == [(1.0, 4.0), (0.5, 1.5)]
