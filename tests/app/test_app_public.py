"""The page of a model of public checkpoints: texts, pictures beside them, several structures."""

import dataclasses
import shlex

import numpy as np
import pytest
from app_clips import write_clip
from tiny import TINY, TINY_PUBLIC, save_tiny_model

from gen1_jax.app.session import AppOptions, EditSession
from gen1_jax.cli import _parse
from gen1_jax.commands.edit import settings_of
from gen1_jax.editing.record import read_record
from gen1_jax.media import write_image
from gen1_jax.models.image_encoder import ImageEncoderConfig
from gen1_jax.models.image_tokens import ImageTokensConfig
from gen1_jax.models.unet import ControlConfig

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

_DEPTH = TINY_PUBLIC.unet.controls[0]
CONTROLS = [ControlConfig(kind=kind, hint_channels=_DEPTH.hint_channels) for kind in ("openpose", "depth", "canny")]
_PARTS = dict(
    image_encoder=ImageEncoderConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=12,
    ),
    image_tokens=ImageTokensConfig(
        kind="base", tokens=4, embedding_dim=12, cross_attention_dim=TINY_PUBLIC.unet.cross_attention_dim
    ),
)
CONFIG = dataclasses.replace(
    TINY_PUBLIC, unet=dataclasses.replace(TINY_PUBLIC.unet, controls=tuple(CONTROLS), image_adapter=True), **_PARTS
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from gen1_jax.app.page import Page

    folder = save_tiny_model(tmp_path_factory.mktemp("public") / "model", CONFIG)
    with EditSession(AppOptions(model=str(folder), max_frames=4)) as session:
        yield Page(session)


def values(page, **said):
    shown = {name: field.value for name, field in page.form.fields.items()} | {"image": None}
    return [(shown | said)[name] for name in page.form.fields]


def test_fields_are_of_what_the_model_has(page):
    fields = page.form.fields
    assert "kind" not in fields and {"prompt", "negative_prompt", "image", "image_scale", "strength"} <= fields.keys()
    weights = {name: field.value for name, field in fields.items() if name.startswith("structure ")}
    assert weights == {"structure depth": 1, "structure canny": 0}  # openpose has no estimator, though it comes first
    assert fields["sampler"].choices == [(name, name) for name in ("ddim", "dpm++", "lcm", "tcd")]
    assert page.form.follow_sampler("lcm") == (6, 1.5)
    assert page.form.follow_sampler("ddim") == (page._session.defaults.num_inference_steps, 3.0)


def test_an_edit_has_all_that_was_said(page, tmp_path):
    clip, pictures = write_clip(tmp_path / "clip.mp4"), [str(tmp_path / f"{i}.png") for i in range(2)]
    for i, picture in enumerate(pictures):
        write_image(picture, np.full((20, 30 + i, 3), 80 * i, np.uint8))
    assert page._look_at_picture(pictures)[0].shape[0] == 20
    said = dict(video=str(clip), image=pictures, image_scale=0.6, negative_prompt="mud", frames=2, strength=0.5)
    said |= {"structure depth": 0.9, "structure canny": 0.4, "sampler": "lcm", "steps": 6, "guidance_scale": 1.5}
    _, (view, _) = [
        *page._look("", *values(page, **said | {"structure canny": 0})),
        *page._look("", *values(page, **said)),
    ]
    height, width = view.shape[:2]
    assert width == 3 * 20 + 2 * 4 and height == 14  # the frame, and two structures
    *_, last = page._edit("visitor", *values(page, **said))
    assert last[0] == "done", last[0]
    assert "<span>depth</span><span>canny</span>" in last[7]
    record = read_record(last[4])
    assert (record["structure"], record["negative_prompt"]) == ("depth=0.9,canny=0.4", "mud")
    assert (record["image"], record["strength"]) == (["0.png", "1.png"], 0.5)
    command = page._command(*values(page, **said))
    assert "--steps" not in command and "--guidance-scale" not in command  # they follow from --sampler lcm
    args = _parse(shlex.split(command)[1:])
    assert (args.negative_prompt, [str(path) for path, _ in args.image]) == ("mud", ["0.png", "1.png"])
    filled = settings_of(args).of(CONFIG)
    assert filled == page.form.request(*values(page, **said)).settings


def test_keyframes_are_for_a_model_that_takes_known_frames(page, tmp_path):
    assert "keyframes" not in page.form.fields
    from gen1_jax.app.page import Page

    unet = dataclasses.replace(TINY.unet, known=True)
    folder = save_tiny_model(tmp_path / "model", dataclasses.replace(TINY, unet=unet))
    clip, painted = write_clip(tmp_path / "clip.mp4", frames=3), tmp_path / "painted.png"
    write_image(painted, np.full((32, 48, 3), (200, 30, 90), np.uint8))
    with EditSession(AppOptions(model=str(folder), max_frames=4)) as session:
        page = Page(session)
        said = dict(video=str(clip), frames=2, steps=2, keyframes=[str(painted)], keyframe_numbers="1")
        assert "--keyframe 1=painted.png" in page._command(*values(page, **said))
        assert page._command(*values(page, **said | {"keyframe_numbers": "x"})).startswith("# keyframes: ")
        given = []
        sample = session.pipeline.sample
        session.pipeline.sample = lambda *args, **more: given.append(more["given"]) or sample(*args, **more)
        *_, last = page._edit("visitor", *values(page, **said))
        assert last[0] == "done", last[0]
        assert read_record(last[4])["keyframes"] == ["1=painted.png"]
        np.testing.assert_array_equal(given[0].mask[0, :, 0, 0, 0], [0, 1])
        *_, failed = page._edit("visitor", *values(page, **said | {"keyframe_numbers": "5"}))
        assert "known frame 5: the clip has 2 frames" in failed[0]


def test_what_is_left_out(page, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4")
    request = lambda **said: page.form.request(*values(page, video=str(clip), **said))
    assert request(**{"structure depth": 0}).settings.structure == "depth=0"
    assert request(**{"structure depth": 0, "structure canny": 1}).settings.structure == "canny"
    assert request(prompt=" ", image=["a.png"]).prompt is None
    with pytest.raises(ValueError, match="--prompt is empty"):
        request(prompt=" ")
