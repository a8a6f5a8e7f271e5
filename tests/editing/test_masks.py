"""Masked edits: what is outside stays, what is inside is the edit; and where masks come from."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gen1_jax import Gen1Pipeline
from gen1_jax.cli import main
from gen1_jax.editing.masks import MaskClip, latent_change, parse_mask
from gen1_jax.editing.masks.compositing import composited, feathered
from gen1_jax.editing.masks.differences import changed, differences
from gen1_jax.editing.masks.growing import grown, spread
from gen1_jax.editing.masks.motion import flows_between
from gen1_jax.editing.masks.sources import OF_CLIP, AtPoint, ByDepth, OfEdit, OfFile, OfWords, takes_model
from gen1_jax.editing.masks.words import contrasted
from gen1_jax.editing.record import read_record
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.media import write_image
from gen1_jax.media.clips import load_video, save_video

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), np.uint8)
HALF = np.arange(32) < 16


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return Gen1Pipeline.from_pretrained(tiny_model)


def edit(pipeline, **settings):
    return pipeline.edit(FRAMES, **({"prompt": "a golden car", "num_inference_steps": 2} | settings))


@pytest.fixture(scope="module")
def unmasked(pipeline):
    return edit(pipeline).frames


def test_all_masked_is_the_edit_and_nothing_masked_the_source(pipeline, unmasked):
    np.testing.assert_array_equal(edit(pipeline, mask=np.ones((24, 32), bool)).frames, unmasked)
    with pytest.warns(UserWarning, match="nothing changes"):
        out = edit(pipeline, mask=np.zeros((24, 32)))
    np.testing.assert_array_equal(out.frames, FRAMES)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++"])
def test_outside_is_the_source_and_inside_is_changed(pipeline, sampler):
    mask = np.broadcast_to(HALF, (24, 32))
    for given in (mask, Image.fromarray(mask), [mask] * 3):
        out = edit(pipeline, mask=given, sampler=sampler)
        np.testing.assert_array_equal(out.mask, np.broadcast_to(HALF, (3, 24, 32)))
        np.testing.assert_array_equal(out.frames[:, :, ~HALF], FRAMES[:, :, ~HALF])
        assert (out.frames != FRAMES)[:, :, HALF].mean() > 0.9


def test_known_latents_come_out_of_the_run_as_they_went_in(pipeline):
    """With the run's own noise, up to that of the last timestep: 1e-5 where the sampler ends at none."""
    settings = EditSettings(num_inference_steps=3, sampler="dpm++").of(pipeline.config)
    content, maps = pipeline.encode_content("a car", [], settings), pipeline.read_structure(FRAMES, settings)
    mask = MaskClip.where([np.broadcast_to(HALF, (24, 32))] * 3)
    out, free = (np.asarray(pipeline.sample(content, maps, settings, frames=FRAMES, mask=m)) for m in (mask, None))
    known = np.asarray(pipeline.encode_frames(FRAMES))
    stays = latent_change(mask.at((24, 32)), pipeline.config.vae.downscale)[0, 0, 0, :, 0] == 0
    assert 0 < stays.sum() < len(stays)
    np.testing.assert_allclose(out[..., stays, :], known[..., stays, :], atol=1e-5)
    assert np.abs(free - known)[..., stays, :].max() > 0.1


def test_another_mask_compiles_nothing(pipeline):
    sampler = pipeline.sampler(EditSettings(num_inference_steps=2))
    edit(pipeline, mask=np.broadcast_to(HALF, (24, 32)))
    before = sampler.advance.jitted._cache_size()
    edit(pipeline, mask=np.broadcast_to(~HALF, (24, 32)), mask_feather=5, seed=3)
    assert sampler.advance.jitted._cache_size() == before


def test_a_background_is_all_that_the_mask_leaves(pipeline):
    mask = np.broadcast_to(HALF, (24, 32))
    behind = edit(pipeline, prompt=None, background="a forest", mask=mask)
    np.testing.assert_array_equal(behind.frames[:, :, HALF], FRAMES[:, :, HALF])
    np.testing.assert_array_equal(behind.frames, edit(pipeline, prompt="a forest", mask=~mask).frames)
    both = edit(pipeline, background="a forest", mask=mask).frames
    np.testing.assert_array_equal(both[:, :, HALF], edit(pipeline, mask=mask, mask_feather=0).frames[:, :, HALF])
    assert (both != FRAMES)[:, :, ~HALF].mean() > 0.9
    far = edit(pipeline, prompt=None, background="a forest")
    np.testing.assert_array_equal(far.mask, edit(pipeline, mask="near:auto").mask)


def test_masks_by_depth_share_the_picture(pipeline):
    near, far = (edit(pipeline, mask=f"{side}:0.5").mask for side in ("near", "far"))
    np.testing.assert_array_equal(near + far, 1)
    assert 0 < near.mean() < 1


def test_words_name_a_part(pipeline):
    assert 0 < edit(pipeline, mask="text:the car").mask.mean() < 1


def test_the_prompt_says_itself_what_it_changes(pipeline):
    red, blue = edit(pipeline, prompt=["a red car", "a blue house in the snow"], mask="changed")
    assert 0 < red.mask.mean() < 1 and (red.mask != blue.mask).any()
    with pytest.warns(UserWarning, match="nothing changes"):  # what is there and what is asked for are the same
        assert not edit(pipeline, prompt="a red car", mask="changed:a red car").mask.any()
    outside = red.mask == 0
    np.testing.assert_array_equal(red.frames[outside], FRAMES[outside])
    several = edit(pipeline, prompt=None, contents=["a red car", "a blue house in the snow"], mask="changed").mask
    np.testing.assert_array_equal(several, np.maximum(red.mask, blue.mask))
    with pytest.raises(UserError, match="give a prompt or an image"):
        edit(pipeline, prompt=None, background="a forest", mask="changed")


def test_words_for_what_is_there_are_as_long_as_the_prompt(pipeline):
    settings = EditSettings().of(pipeline.config)
    maps, told = pipeline.read_structure(FRAMES, settings), pipeline.encode_content("a car", [], settings)
    longer = dataclasses.replace(told, content={kind: x.repeat(2, axis=1) for kind, x in told.content.items()})
    with pytest.raises(UserError, match="make one as long as the other"):
        contrasted(pipeline, longer, "a car", FRAMES, maps, settings)


def test_differences_of_clips_together_are_those_of_each(pipeline):
    settings = EditSettings().of(pipeline.config)
    maps, how = pipeline.read_structure(FRAMES, settings), dict(strength=0.8, noises=1, seed=0)
    latents = jnp.concatenate([pipeline.encode_frames(FRAMES), pipeline.encode_frames(FRAMES[::-1])])
    told = [
        dataclasses.replace(content, structure=pipeline.encode_structure(maps, settings))
        for content in (pipeline.encode_content(text, [], settings) for text in ("a red car", "a blue house"))
    ]
    both = jax.tree.map(lambda *x: jnp.concatenate(x), *told)
    (found,) = differences(pipeline, latents, both, both.without_content(), **how)
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), 0), latents.shape)
    timesteps = jnp.full(2, round(0.8 * pipeline.config.schedule.num_train_timesteps))
    noised = pipeline.config.schedule.add_noise(latents, noise, timesteps)
    one, other = (pipeline.unet.denoise(noised, timesteps, c)[0] for c in (both, both.without_content()))
    np.testing.assert_allclose(found, one - other, atol=1e-5)


def test_what_differs_in_common_is_changed():
    rng = np.random.default_rng(0)
    place = np.zeros((2, 3, 12, 16), bool)
    place[0, :, 3:7, 4:9], place[1, :, 8:, :5] = True, True
    found = [rng.normal(0, 1, (*place.shape, 4)) + 3 * place[..., None] for _ in range(8)]
    mask = changed(iter(found), (96, 128))
    assert mask.shape == (2, 3, 96, 128)
    wanted = place.repeat(8, 2).repeat(8, 3)
    assert mask[wanted].all()
    assert mask.mean() < 2.5 * wanted.mean()  # a latent around it, no more
    assert not changed(iter(np.zeros((4, 1, 3, 12, 16, 4))), (96, 128)).any()


def moving_square(count=5, size=48, step=2):
    """A textured square of 16 pixels on a textured ground, its masks, and its depth."""
    rng = np.random.default_rng(1)
    ground, thing = (np.kron(rng.integers(0, 256, (12, 12, 3)), np.ones((4, 4, 1))).astype(np.uint8) for _ in range(2))
    frames, masks = np.stack([ground] * count), np.zeros((count, size, size), bool)
    for i in range(count):
        masks[i, 16:32, 8 + step * i : 24 + step * i] = True
        frames[i, 16:32, 8 + step * i : 24 + step * i] = thing[:16, :16]
    return frames, masks, masks.astype(np.float32) * 0.8


def test_a_click_finds_a_thing_in_all_frames():
    frames, masks, depth = moving_square()
    assert np.abs(flows_between(frames[:2])[0][0][20:28, 12:20] - [2, 0]).max() < 0.5
    overlap = lambda found: min((a & b).sum() / (a | b).sum() for a, b in zip(found, masks, strict=True))
    for at in (0, 4):
        assert overlap(grown(frames, depth, (24, 14 + 2 * at), at)) > 0.8
    assert overlap(spread(frames, 0 * depth, masks[2], 2)) > 0.7  # drawn, and flow alone


def test_feathers_lie_inside_and_borders_of_pictures_are_none():
    mask = np.zeros((9, 12), np.float32)
    mask[:, :6] = 1
    weight = feathered(mask, 3)
    np.testing.assert_allclose(weight[4], [1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(feathered(mask, 0), mask)
    np.testing.assert_array_equal(feathered(np.ones((3, 3), np.float32), 9), 1)
    source, other = FRAMES[0, :9, :12], FRAMES[1, :9, :12]
    out = composited(source, other, weight)
    np.testing.assert_array_equal(out[:, 6:], source[:, 6:])
    np.testing.assert_array_equal(out[:, :3], other[:, :3])


def test_a_latent_may_change_if_any_of_its_pixels_may():
    mask = np.zeros((1, 8, 16))
    mask[0, 3, 9] = 0.7
    change = latent_change(mask, 4)
    assert change.shape == (1, 1, 2, 4, 1)
    np.testing.assert_allclose(change[0, 0, ..., 0], [[0, 0.7, 0.7, 0], [0, 0.7, 0.7, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("near:0.4", ByDepth("near", 0.4)),
        ("far:auto", ByDepth("far", None)),
        ("click:12,7.5", AtPoint(12.0, 7.5)),
        ("click:12,7@3", AtPoint(12.0, 7.0, 3)),
        ("text: the car", OfWords("the car")),
        ("changed", OfEdit()),
        ("changed: a car", OfEdit("a car")),
    ],
)
def test_notation(text, source):
    assert parse_mask(text) == source
    assert text.partition(":")[0] in OF_CLIP


def test_words_and_edits_take_the_whole_model(tmp_path):
    write_image(tmp_path / "text.png", FRAMES[0])
    others = ["near:0.4", "far:auto", "click:12,7@3", str(tmp_path / "text.png")]
    assert [text for text in [*others, "text:a car", "changed", "changed:a car"] if takes_model(text)] == [
        *("text:a car", "changed", "changed:a car")
    ]


def test_files_come_before_notation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("near:0.4", "m.png"):
        write_image("x.png", FRAMES[0])
        (tmp_path / "x.png").rename(name)
    assert parse_mask("near:0.4").path.name == "near:0.4"
    assert parse_mask("m.png@2") == OfFile(parse_mask("m.png").path, 2)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ("nearby", "no such file"),
        ("near:2", "0 (the farthest) to 1"),
        ("near:", "0 (the farthest) to 1"),
        ("click:3", "click:X,Y"),
        ("click:1.2.3,4", "click:X,Y"),
        ("text: ", "name what may change"),
        ("changed:", "say what the clip shows"),
        ("click:50,3", "outside of the picture"),
        ("click:5,3@9", "has 3 frames"),
        (np.zeros((2, 24, 32)), "2 pictures for 3 frames"),
        (np.full((24, 32), 2.0), "from 0"),
        (np.zeros(3), "must be"),
    ],
)
def test_wrong_masks_are_named(pipeline, mask, words):
    with pytest.raises(UserError) as raised:
        edit(pipeline, mask=mask)
    assert words in str(raised.value) and "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("masked") / "clip.mkv"
    save_video(FRAMES, path, 8)
    return path


@pytest.fixture
def command(tiny_model, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(tiny_model), "--steps", "2"]
    return lambda *given: main(["edit", str(video), *model, *given])


def test_files_keep_what_is_outside_bit_for_bit(command, video, capsys):
    write_image("mask.png", np.where(np.broadcast_to(HALF, (24, 32))[..., None], 255, 0).repeat(3, -1).astype(np.uint8))
    options = ["--prompt", "a car", "--mask", "mask.png", "--mask-feather", "0"]
    assert command("-o", "out/", *options, "--save-mask", "mask.mkv", "--sidecar") == 0
    source, out = load_video(video), load_video("out/")
    np.testing.assert_array_equal(out[:, :, ~HALF], source[:, :, ~HALF])
    assert (out != source)[:, :, HALF].mean() > 0.9
    assert command("-o", "again/", "--settings-from", "out.json") == 2
    assert "name it with --mask" in capsys.readouterr().err
    assert command("-o", "again/", "--settings-from", "out.json", "--mask", "mask.mkv") == 0  # as it was saved
    np.testing.assert_array_equal(load_video("again/"), out)
    assert read_record("out.json")["mask"] == "mask.png" and read_record("out.json")["mask_feather"] == 0


def test_sizes_and_records_of_masks(command, video):
    options = ["--mask", "click:3,12", "--background", "a forest", "--size", "16x24"]
    assert command("-o", "one.png", *options, "--frames", "1", "--save-mask", "mask.png") == 2  # it is cut off
    options[1] = "click:16,12"
    assert command("-o", "one.png", *options, "--frames", "1", "--save-mask", "mask.png") == 0
    record = read_record("one.png")
    assert (record["mask"], record["background"], record["prompt"]) == ("click:16,12", "a forest", None)
    assert command("-o", "two.png", "--settings-from", "one.png") == 0
    one, two, mask = (np.asarray(Image.open(name)) for name in ("one.png", "two.png", "mask.png"))
    np.testing.assert_array_equal(one, two)
    inside = mask[..., 0] == 255
    np.testing.assert_array_equal(one[inside], load_video(video)[0, :, 8:24][inside])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "x", "--mask", "nothing.png"], "nothing.png: no such file"),
        (["--prompt", "x", "--save-mask", "m.mkv"], "--save-mask m.mkv: there is no mask"),
        (["--prompt", "x", "--mask", "near:auto", "--save-mask", "o.mkv"], "are the same file"),
        (["--prompt", "x", "--mask", "near:auto", "--mask-feather", "-1"], "--mask-feather must be"),
        (["--background", " "], "--background is empty"),
    ],
)
def test_wrong_options_are_one_line(command, options, words, capsys, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert command("-o", "o.mkv", *options) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
