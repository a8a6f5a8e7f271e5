"""Several contents of one edit."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY_PUBLIC, save_tiny_model

from gen1_jax import Gen1Pipeline
from gen1_jax.cli import main
from gen1_jax.diffusion import Guidance, guided_denoiser, temporal_guidance
from gen1_jax.diffusion.guidance import evaluations
from gen1_jax.editing import files, long
from gen1_jax.editing.contents import ContentUse, contents_given, joined, shares_of
from gen1_jax.editing.files import edit_file
from gen1_jax.editing.record import read_record
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.sweep import ClipSweep
from gen1_jax.errors import UserError
from gen1_jax.media import write_image
from gen1_jax.media.clips import load_video, save_video
from gen1_jax.models.conditions import Conditions, Signal

LATENTS = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 2, 1)), jnp.float32)
MAPS = jnp.arange(6.0).reshape(2, 3, 1, 1, 1)
CURVE = np.array([[1, 0, 0], [0.25, 0.5, 0.25], [0, 0, 1]], np.float32)[None]


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return Gen1Pipeline.from_pretrained(tiny_model)


def clip(frames=3):
    return np.random.default_rng(0).integers(0, 256, (frames, 16, 16, 3), np.uint8)


def model(latents, timesteps, told):
    """Of each row what it is told, of frames seen one by one half of it."""
    still = np.tile(np.where(told.still, 0.5, 1.0), len(latents) // len(told.still))
    level = told.content["image"].sum((1, 2)) * still + 1
    return latents * level[:, None, None, None, None] + told.structure["depth"].maps


def conditions(values, shares):
    structure = {"depth": Signal.of(MAPS)}
    contents = [Conditions(content={"image": jnp.full((2, 1, 1), x)}) for x in values]
    return dataclasses.replace(joined(contents, np.repeat(shares, 2, axis=0)).over(3), structure=structure)


@pytest.mark.parametrize("scales", [(3.0, 1.5), (1.0, 1.0), (3.0, 3.0)])
def test_each_content_has_its_part_of_the_guidance_in_each_frame(scales):
    values = (1.0, 2.0, 5.0)
    told = conditions(values, CURVE)
    guidance = Guidance.of(*scales)
    guided = guided_denoiser(model, told, guidance)(LATENTS, jnp.zeros(2, int))
    plain = lambda level: LATENTS * (level + 1) + MAPS
    mean = (CURVE * values).sum(-1)[..., None, None, None]
    np.testing.assert_allclose(guided, temporal_guidance(plain(0), plain(0), plain(mean), *scales), rtol=1e-5)
    assert evaluations(told, guidance) == len(guidance.branches) + 2


def test_a_distilled_model_is_asked_with_each_content():
    seen = []

    def distilled(latents, timesteps, told):
        seen.append(told.guidance.shape)
        return model(latents, timesteps, told)

    told = conditions((1.0, 2.0, 5.0), CURVE)
    out = guided_denoiser(distilled, told, Guidance.of(3.0, 1.5, distilled=True))(LATENTS, jnp.zeros(2, int))
    mean = (CURVE * np.array([1.0, 2.0, 5.0])).sum(-1)[..., None, None, None]
    np.testing.assert_allclose(out, LATENTS * (mean + 1) + MAPS, rtol=1e-5)
    assert seen == [(6, 2)]


@given(st.lists(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), min_size=1, max_size=4))
def test_shares_are_one_together_and_follow_all_curves(curves):
    shares = shares_of([ContentUse(prompt="x", weight=tuple(curve)) for curve in curves])
    assert shares.shape[0] == 1 and shares.shape[2] == len(curves)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    for end in (0, -1):
        ends = np.array([curve[end] for curve in curves])
        np.testing.assert_allclose(shares[0, end], ends / ends.sum(), rtol=1e-4)


def test_shares_of_a_clip_are_its_curve_at_each_frame():
    told = conditions((1.0, 2.0), shares_of([ContentUse.parse("prompt=a:1..0"), ContentUse.parse("prompt=b:0..1")]))
    np.testing.assert_allclose(told.shares[0], [[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(told.over(3).window(1, 2).shares[1], [[0.5, 0.5], [0, 1]])
    with pytest.raises(UserError, match="somewhere in the clip none of them has any weight"):
        shares_of([ContentUse(prompt="a", weight=(1.0, 0.0)), ContentUse(prompt="b", weight=(0.0,))])


def test_embeddings_keep_their_length():
    of = lambda *values: Conditions(content={"image": jnp.array([[values]], jnp.float32)})
    mixed = joined([of(3.0, 0.0), of(0.0, 1.0)], np.array([[[0.5, 0.5]]], np.float32), as_embeddings=True)
    assert mixed.shares is None and mixed.beside == ()
    assert np.linalg.norm(mixed.content["image"]) == pytest.approx(2)
    with pytest.raises(UserError, match="weights that change need predictions"):
        joined([of(3.0, 0.0)] * 3, CURVE, as_embeddings=True)


@pytest.mark.parametrize(
    "text", ["prompt=a car: red", "prompt=a:2", "image=a.jpg:1..0", "prompt=a:sound", "prompt=a:1:1"]
)
def test_the_notation_says_what_was_said(text):
    use = ContentUse.parse(text)
    assert str(use) == text and ContentUse.parse(str(use)) == use


WRONG = {
    "a car": "say prompt=TEXT or image=FILE",
    "prompt=": "say prompt=TEXT or image=FILE",
    "prompt=a:-1": "the weight of a content must be 0 to 1000, got -1",
    "prompt=a:1..": "neither a number, FROM..TO nor sound",
    "prompt= :2": "empty prompt",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_no_content_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        ContentUse.parse(text)


def test_what_pipelines_take_as_contents():
    picture = clip()[0]
    given = ["a cat", (picture, 2), (Path("a.png"), (1, 0.5))]
    assert [use.weight for use in contents_given(given)] == [(1.0,), (2.0,), (1.0, 0.5)]
    assert contents_given(None) == ()
    for wrong, message in (("a cat", "contents is a list"), ([3], "a content is a prompt, a picture")):
        with pytest.raises(UserError, match=message):
            contents_given(wrong)


def test_one_content_is_the_prompt_and_the_order_does_not_count(pipeline, tmp_path):
    edit = lambda **told: pipeline.edit(clip(), num_inference_steps=2, guidance_scale=3.0, **told).frames
    np.testing.assert_array_equal(edit(contents=["a cat"]), edit(prompt="a cat"))
    both = edit(contents=["a cat", (clip()[0], 2.0)])
    np.testing.assert_allclose(both.astype(int), edit(contents=[(clip()[0], 2.0), "a cat"]).astype(int), atol=1)
    assert (both != edit(prompt="a cat")).any() and (both != edit(image=clip()[0])).any()
    assert (edit(contents=["a cat", "a dog"], blend="embeddings") != edit(contents=["a cat", "a dog"])).any()
    for wrong, message in (
        (dict(contents=["a cat"], prompt="a dog"), "in the place of prompt and image"),
        (dict(contents=[]), "contents is a list"),
        (dict(contents=[("a cat", "loud")]), "a number, a curve or sound"),
        (dict(contents=[("a cat", "sound")]), "give the loudness of each frame"),
        (dict(contents=["a cat"], blend="words"), "blend is predictions or embeddings"),
    ):
        with pytest.raises(UserError, match=message):
            edit(**wrong)


def test_public_models_mix_prompts_of_any_length(tmp_path):
    pipeline = Gen1Pipeline.from_pretrained(save_tiny_model(tmp_path / "public", TINY_PUBLIC))
    long = "a cat " * 60
    for blend in ("predictions", "embeddings"):
        out = pipeline.edit(clip(2), contents=["a dog", (long, 0.5)], blend=blend, num_inference_steps=2)
        assert out.frames.shape == (2, 16, 16, 3)


def test_a_clip_that_is_not_held_has_the_whole_curve(pipeline, tmp_path, monkeypatch):
    save_video(clip(11), tmp_path / "clip.mkv", 8)
    told = []

    class Seen(ClipSweep):
        def run(self, blocks, state=None):
            told.extend(block.told["shares"] for block in blocks(0))
            yield from super().run(blocks, state)

    monkeypatch.setattr(long, "ClipSweep", Seen)
    monkeypatch.setattr(files, "LONGEST", 4)
    uses = tuple(map(ContentUse.parse, ("prompt=a cat:1..0", "prompt=a dog:0..1")))
    settings = EditSettings(num_inference_steps=2)
    edit_file(
        EditRequest(video=tmp_path / "clip.mkv", output=tmp_path / "out.mkv", contents=uses, settings=settings),
        pipeline=pipeline,
    )
    falling = np.linspace(1, 0, 11)
    np.testing.assert_allclose(np.concatenate(told, 1)[0, :11], np.stack([falling, 1 - falling], 1), atol=1e-6)


@pytest.fixture
def edit(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_video(clip(), "clip.mkv", 8)
    common = ["--model", str(tiny_model), "--steps", "2"]
    return lambda output, *given: main(["edit", "clip.mkv", "-o", output, *common, *given])


def test_contents_are_recorded_and_made_again(edit, capsys):
    contents = ["--content", "prompt=a cat:1..0", "--content", "prompt=a dog:0..2", "--sidecar"]
    assert edit("one.mkv", *contents) == 0
    assert read_record("one.mkv")["contents"] == ["prompt=a cat:1..0", "prompt=a dog:0..2"]
    assert edit("two.mkv", "--settings-from", "one.mkv") == 0
    np.testing.assert_array_equal(load_video("two.mkv"), load_video("one.mkv"))
    write_image("statue.png", clip()[0])
    assert edit("three.mkv", "--content", "image=statue.png", "--content", "prompt=a dog", "--sidecar") == 0
    capsys.readouterr()
    said = partial(lambda: capsys.readouterr().err.strip())
    assert edit("four.mkv", "--settings-from", "three.mkv") == 2
    assert "made from image=statue.png: name all its contents with --content" in said()
    for wrong, message in (
        (["--content", "prompt=a cat", "--prompt", "a dog"], "in the place of --prompt and --image"),
        (["--content", "prompt=a cat:sound"], "there is no sound in it"),
        (["--content", "image=none.png"], "none.png"),
        (["--content", "image=statue.png", "--max-pixels", "255"], "statue.png"),
        (["--content", "a cat"], "say prompt=TEXT"),
    ):
        assert edit("five.mkv", *wrong) == 2
        assert message in (line := said()) and "\n" not in line and not Path("five.mkv").exists()
    Path("one.mkv.json").write_text(json.dumps(read_record("one.mkv") | {"contents": [3]}))
    assert edit("six.mkv", "--settings-from", "one.mkv.json") == 2
    assert "its settings are damaged (contents is" in said()
