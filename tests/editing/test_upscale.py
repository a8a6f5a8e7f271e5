"""Videos at twice their size, by a model that has learned nothing, so that only what surrounds it counts."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from media.media_files import make_video
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny import TINY, save_tiny_model

from gen1_jax.cli import main
from gen1_jax.diffusion.tiles import tiled
from gen1_jax.editing.enlarging import Enlargement, check_upscales, with_colours_of
from gen1_jax.editing.files import edit_file
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.record import read_record
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.source import read_source
from gen1_jax.editing.upscale_clip import upscale_settings
from gen1_jax.editing.writing import output_size
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, load_video
from gen1_jax.models.conditions import Conditions, Signal

RNG = np.random.default_rng(0)
UPSCALES = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, structure_kinds=("low_resolution",)))


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    """The folder of one that enlarges, its weights at random."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "upscaler", UPSCALES)


def small_clip(path, frames=2, width=16, height=12):
    path.mkdir()
    for index in range(frames):
        Image.fromarray(RNG.integers(0, 255, (height, width, 3), np.uint8)).save(path / f"{index}.png")
    return str(path)


def test_pixels_are_repeated_and_what_was_added_is_cut_off():
    frames = RNG.integers(0, 255, (3, 9, 14, 3), np.uint8)
    enlargement = Enlargement(2, 8)
    seen = enlargement.of(frames)
    assert seen.shape[1:3] == enlargement.size_of((9, 14)) == (24, 32)
    np.testing.assert_array_equal(seen[:, :18:2, :28:2], frames)
    np.testing.assert_array_equal(seen[:, 1:18:2, 1:28:2], frames)
    np.testing.assert_array_equal(seen[:, -1, :28:2], frames[:, -1])
    assert Enlargement(2, 3).size_of((3, 4)) == (6, 12)
    back = np.stack([*enlargement.finished(seen, seen, (9, 14))])
    np.testing.assert_array_equal(back, frames.repeat(2, 1).repeat(2, 2))


def test_nano_upscaler_enlarges_where_no_model_is_named(monkeypatch):
    asked = []
    for command in ("edit", "upscale"):
        monkeypatch.setattr(f"gen1_jax.commands.{command}.run_edit", lambda request, **_: asked.append(request))
    main(["edit", "a.mp4", "-o", "b.mp4", "--prompt", "a golden car", "--upscale", "2"])
    main(["edit", "a.mp4", "-o", "b.mp4", "--prompt", "a golden car"])
    main(["upscale", "a.mp4", "-o", "b.mp4"])
    assert [(request.model, request.upscaler) for request in asked] == [
        ("nano", "nano-upscaler"),
        ("nano", None),
        ("nano-upscaler", None),
    ]


def test_coarse_colours_are_the_inputs_and_detail_the_results():
    small = np.full((40, 48, 3), 100, np.uint8)
    detail = RNG.integers(-20, 21, (80, 96, 3))
    detail -= np.rint(detail.mean((0, 1))).astype(int)
    shifted = (130 + detail).astype(np.uint8)
    matched = with_colours_of(small, shifted, 4.0).astype(float)
    assert abs(matched.mean((0, 1)) - 100).max() < 0.6
    assert np.corrcoef((matched - 100).ravel(), detail.ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(with_colours_of(small, small.repeat(2, 0).repeat(2, 1), 0.3), 100)


def test_what_the_small_picture_tells_is_put_back():
    """The more of it the more it is trusted; what no small pixel can tell is left."""
    exact = gaussian_filter(RNG.uniform(0, 255, (64, 64, 3)), (1.5, 1.5, 0)).clip(0, 255)
    small = np.rint(exact.reshape(32, 2, 32, 2, 3).mean((1, 3))).astype(np.uint8)
    wrong = np.rint((exact + gaussian_filter(RNG.normal(0, 60, exact.shape), (1, 1, 0))).clip(0, 255)).astype(np.uint8)
    off = lambda x: np.abs(x.reshape(32, 2, 32, 2, 3).mean((1, 3)) - small).mean()
    matched = [with_colours_of(small, wrong, spoiled) for spoiled in (0.0, 0.8, 4.0)]
    assert off(matched[0]) < 0.35 * off(matched[1]) < 0.35 * off(matched[2]) < 0.35 * off(wrong)
    assert np.abs(matched[0] - exact).mean() < 0.6 * np.abs(wrong - exact).mean()
    checkers = (np.indices((64, 64)).sum(0) % 2 * 40 - 20)[..., None]
    flat = np.full((64, 64, 3), 100)
    told = with_colours_of(flat[::2, ::2].astype(np.uint8), (flat + checkers).astype(np.uint8), 0.0)
    np.testing.assert_array_equal(told, flat + checkers)


def test_large_pictures_are_blended_from_tiles():
    latents = jnp.asarray(RNG.normal(size=(1, 2, 10, 22, 4)), jnp.float32)
    maps = jnp.asarray(RNG.normal(size=(1, 2, 10, 22, 4)), jnp.float32)
    told = Conditions(content={"image": jnp.zeros((1, 1, 4))}, structure={"low_resolution": Signal.of(maps)})
    shapes = []

    def model(x, t, conditions):
        shapes.append(x.shape)
        return x * 2 + conditions.structure["low_resolution"].maps

    out = tiled(model, 8, 2)(latents, jnp.zeros(1, jnp.int32), told)
    np.testing.assert_allclose(out, 2 * latents + maps, rtol=1e-5, atol=1e-5)  # of what depends on no neighbour
    assert shapes == [(1, 2, 8, 8, 4)]
    tiled(model, 22, 2)(latents, jnp.zeros(1, jnp.int32), told)
    assert shapes[-1] == latents.shape
    position = lambda x, t, conditions: jnp.ones_like(x) * conditions.structure["low_resolution"].maps.mean()
    rows = np.asarray(tiled(position, 8, 4)(latents, jnp.zeros(1, jnp.int32), told))[0, 0, :, 0, 0]
    assert np.ptp(rows) > 0 and rows[0] == rows[1] != rows[-1]  # fades from the first tile into the last


def test_the_size_of_what_is_written(tiny_model, upscaler, tmp_path):
    clip = make_video(tmp_path / "in.mp4")  # 64x48
    for model, options, expected in [
        (upscaler, {"upscale": 2}, (96, 128)),
        (tiny_model, {"upscale": 2, "upscaler": upscaler}, (48, 64)),  # what the model makes, twice, is smaller still
        (tiny_model, {"upscale": 2, "upscaler": upscaler, "size": (20, 10)}, (10, 20)),
    ]:
        pipeline = Gen1Pipeline.from_pretrained(upscaler)
        request = EditRequest(video=clip, output=tmp_path / "out.mp4", prompt="x", model=model, **options)
        scale = 2 if request.enlarges else 1
        source = read_source(clip, pipeline, Limits(), size=request.size, longest=3, upscale=scale)
        assert output_size(request.output, source, request) == expected
        assert source.frames.shape[1:3] == next(iter(source.frames)).shape[:2]
        assert (source.frames.shape[1:3] == (96, 128)) == request.enlarges
    small = small_clip(tmp_path / "small", width=16, height=16)
    request = EditRequest(video=small, output=tmp_path / "out.mp4", prompt="x", upscale=2, upscaler=upscaler)
    assert output_size(request.output, read_source(small, pipeline, Limits()), request) == (32, 32)


def test_a_folder_of_pictures_is_enlarged_and_says_how(upscaler, tmp_path, capsys):
    clip, out = small_clip(tmp_path / "in", width=15, height=12), f"{tmp_path}/out/"
    arguments = ["upscale", clip, "-o", out, "--model", str(upscaler), "--steps", "1", "--noise-level", "2"]
    assert main([*arguments, "--no-shift-windows", "--json", "--sidecar"]) == 0
    said, frames = json.loads(capsys.readouterr().out), load_video(out)
    assert frames.shape == (2, 24, 30, 3) and (said["width"], said["height"], said["upscale"]) == (30, 24, 2)
    record = read_record(tmp_path / "out.json")
    assert (record["structure"], record["structure_blur"], record["guidance_scale"]) == ("low_resolution", 2, 1.0)
    assert record["upscale"] == 2 and record["upscaler"] is None and record["match_colour"]
    assert upscale_settings().shift_windows and not record["shift_windows"]
    pipeline = Gen1Pipeline.from_pretrained(upscaler)
    result = pipeline.upscale(load_video(clip), num_inference_steps=1, noise_level=2)
    np.testing.assert_array_equal(result.frames, frames)
    off = result.frames.reshape(2, 12, 2, 15, 2, 3).mean((2, 4)) - load_video(clip)
    assert abs(off.mean((1, 2))).max() < 12  # the network is nothing but noise, which is cut off at black and white
    shifted = pipeline.upscale(load_video(clip), num_inference_steps=1, noise_level=2, match_colour=False)
    assert abs(shifted.frames.mean() - load_video(clip).mean()) > 3 * abs(off.mean())


def test_frames_that_show_the_same_are_nearer_to_each_other_once_propagated(upscaler):
    clip = np.repeat(RNG.integers(0, 255, (1, 12, 15, 3), np.uint8), 2, 0)
    pipeline, how = Gen1Pipeline.from_pretrained(upscaler), dict(num_inference_steps=1, match_colour=False)
    apart = lambda **more: abs(np.diff(pipeline.upscale(clip, **how, **more).frames.astype(int), axis=0)).mean()
    assert apart(propagate=(1,)) < 0.7 * apart()
    with pytest.raises(UserError, match="propagate names step 2 of 1"):
        pipeline.upscale(clip, **how, propagate="2")


def test_an_edit_is_enlarged_by_another_model(tiny_model, upscaler, tmp_path, monkeypatch):
    """The edit's own frames, at the size of the model, are what the upscaler is given."""
    clip, given = small_clip(tmp_path / "in", width=16, height=16), {}

    def upscale(self, frames, **how):
        given.update(how, frames=frames, model=self.source.name)
        return dataclasses.make_dataclass("Result", ["frames"])(frames.repeat(2, 1).repeat(2, 2))

    monkeypatch.setattr(Gen1Pipeline, "upscale", upscale)
    monkeypatch.setattr(Gen1Pipeline, "sample", lambda self, *_, **__: jnp.zeros((1, 2, 16, 16, 3)))
    monkeypatch.setattr(Gen1Pipeline, "decode", lambda self, latents, *_: iter(np.uint8(latents[0] + 7)))
    request = EditRequest(
        **dict(video=clip, output=tmp_path / "out.mkv", image=f"{clip}/0.png", model=tiny_model),
        **dict(upscale=2, upscaler=upscaler, noise_level=3, match_colour=False),
        settings=EditSettings(shift_windows=False),
    )
    assert edit_file(request)["upscaler"] == upscaler.name
    assert given["frames"].shape == (2, 16, 16, 3) and (given["frames"] == 7).all()
    assert (given["model"], given["scale"], given["noise_level"], given["match_colour"]) == (upscaler.name, 2, 3, False)
    assert not given["shift_windows"]
    assert load_video(request.output).shape == (2, 32, 32, 3)
    record = read_record(request.output)
    assert (record["upscale"], record["upscaler"], record["noise_level"]) == (2, upscaler.name, 3)


def test_wrong_input_is_one_line(tiny_model, upscaler, tmp_path, capsys):
    clip = small_clip(tmp_path / "in")

    def refused(*arguments):
        assert main([*arguments, "-o", str(tmp_path / "out.mp4")]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert [line for line in lines if "warning" not in line] == lines[-1:]
        return lines[-1]

    enlarge = ("upscale", clip, "--model")
    assert "tiny does not enlarge videos" in refused(*enlarge, str(tiny_model))
    assert "upscaler enlarges 2 times" in refused(*enlarge, str(upscaler), "--scale", "3")
    assert "--scale must be at least 2" in refused(*enlarge, str(upscaler), "--scale", "1")
    assert "--noise-level must be 0 to 7, got 8" in refused(*enlarge, str(upscaler), "--noise-level", "8")
    edit = ("edit", clip, "--model", str(tiny_model), "--image", f"{clip}/0.png", "--upscale", "2")
    assert "tiny does not enlarge videos" in refused(*edit, "--upscaler", str(tiny_model))
    assert "say --upscale 2" in refused(*edit[:-2], "--upscaler", str(upscaler))
    assert not (tmp_path / "out.mp4").exists()
    with pytest.raises(UserError, match="noise_level must be 0 to 7"):
        upscale_settings(9)
    with pytest.raises(UserError, match="--size is for edits"):
        EditRequest(video=clip, output="out.mp4", model=upscaler, upscale=2, size=(4, 4))
    check_upscales(UPSCALES, "it", 2)
