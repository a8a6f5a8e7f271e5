import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax import Gen1Pipeline
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import to_uint8
from gen1_jax.models.structure import normalise_depth, structure_images
from gen1_jax.pretrained.family import FULL
from gen1_jax.pretrained.folder import ModelFolder, SeededModel


def clip(frames=3, height=20, width=28, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return Gen1Pipeline.from_pretrained(tiny_model)


def edit(pipeline, frames, **settings):
    return pipeline.edit(frames, **({"prompt": "a golden car", "num_inference_steps": 2} | settings))


def changed(a, b):
    """The part of the pictures' numbers that differ."""
    return (a != b).mean()


def test_out_has_the_size_and_frames_of_in(pipeline):
    for frames, height, width in [(3, 20, 28), (1, 33, 17)]:
        out = edit(pipeline, clip(frames, height, width))
        assert out.frames.shape == (frames, height, width, 3) and out.frames.dtype == np.uint8
        assert out.structure.shape == (frames, *pipeline.config.working_size(height, width))


def test_the_seed_decides_and_nothing_else(pipeline):
    frames = clip()
    first = edit(pipeline, frames, seed=1).frames
    np.testing.assert_array_equal(edit(pipeline, frames, seed=1).frames, first)
    assert changed(edit(pipeline, frames, seed=2).frames, first) > 0.5


def test_an_edit_from_inverted_noise_is_of_the_input_and_of_no_seed(pipeline):
    frames, stages = clip(), []
    told = lambda stage, done, total: stages.append(stage)
    shown = dict(prompt=None, image=frames[0][:, ::-1], inverted_noise=True)  # a prior draws of the seed, too
    first = edit(pipeline, frames, **shown, seed=1, progress=told).frames
    np.testing.assert_array_equal(edit(pipeline, frames, **shown, seed=2).frames, first)
    assert "inverting" in stages
    assert changed(edit(pipeline, frames, **shown | {"inverted_noise": False}).frames, first) > 0.5
    for wrong, message in (
        (dict(strength=0.5), "inverted_noise and strength below 1 both say"),
        (dict(shared_noise=True), "inverted_noise and shared_noise both say"),
        (dict(sampler="lcm"), "for samplers that draw no noise, which lcm does"),
    ):
        with pytest.raises(ValueError, match=message):
            edit(pipeline, frames, inverted_noise=True, **wrong)


def test_each_setting_matters(pipeline):
    frames, picture = clip(), clip(1, 40, 30, seed=5)[0]
    base = edit(pipeline, frames).frames
    for change in (
        {"prompt": "a marble dog"},
        {"prompt": None, "image": picture},
        {"structure_blur": 7},
        {"guidance_scale": 2.0},
        {"sampler": "dpm++"},
    ):
        assert changed(edit(pipeline, frames, **change).frames, base) > 0.5, change


def test_the_model_says_how_its_prior_is_sampled(tiny_model):
    source = ModelFolder(tiny_model)
    ids, mask = source.tokenizer()(["a golden car", ""])
    made = []
    for guidance, steps in ((4.0, 25), (2.0, 5)):
        source.config = dataclasses.replace(
            source.config, prior_guidance_scale=guidance, prior_num_inference_steps=steps
        )
        pipeline = Gen1Pipeline(source)
        embeddings, states = pipeline.clip.encode_text_tokens(ids)
        text, empty = ([x[i : i + 1] for x in (embeddings, states, mask)] for i in (0, 1))
        expected = pipeline.prior.sample(
            *text, jax.random.key(3), jnp.float32(guidance), *empty, num_inference_steps=steps
        )
        made.append(pipeline.encode_content("a golden car", [], EditSettings(seed=3)).content["image"])
        np.testing.assert_allclose(made[-1][:, 0], expected, rtol=1e-5, atol=1e-5)
    assert np.isclose(*made, rtol=1e-2).mean() < 0.25


def test_a_second_edit_compiles_nothing(pipeline):
    frames = clip()
    edit(pipeline, frames, temporal_guidance_scale=1.5)  # all branches of the guidance have weight
    sampler = pipeline.sampler(EditSettings(num_inference_steps=2))
    before = sampler.advance.jitted._cache_size()
    edit(
        pipeline,
        clip(seed=9),
        prompt="another",
        seed=5,
        guidance_scale=3.0,
        temporal_guidance_scale=1.2,
        structure_blur=3,
    )
    assert sampler.advance.jitted._cache_size() == before


def test_pipelines_of_a_family_share_what_is_compiled(pipeline):
    frames, settings = clip(), EditSettings(num_inference_steps=2)
    first, programs = edit(pipeline, frames).frames, pipeline.sampler(settings).advance
    compiled = programs.jitted._cache_size()
    other = Gen1Pipeline(SeededModel(pipeline.config, 1, "another", pipeline.source.path))
    assert changed(edit(other, frames).frames, first) > 0.5
    assert other.sampler(settings).advance is programs and programs.jitted._cache_size() == compiled


def test_float16_edits_are_finite_and_close(tiny_model, pipeline):
    half = Gen1Pipeline.from_pretrained(tiny_model, dtype=jnp.float16)
    assert half.vae.module.dtype == jnp.float32  # decoders pass float16's largest number
    settings, latents = EditSettings(num_inference_steps=2, structure_blur=1).of(pipeline.config), []
    frames = np.stack([resize(frame, pipeline.config.working_size(20, 28)) for frame in clip()])
    for one in (half, pipeline):
        content, maps = one.encode_content("a cat", [], settings), one.read_structure(frames, settings)
        latents.append(np.asarray(one.sample(content, maps, settings, frames=frames)))
    assert np.isfinite(latents[0]).all()
    assert np.abs(latents[0] - latents[1]).max() < 0.1 * np.abs(latents[1]).max()


def test_longer_clips_than_the_window_run(pipeline):
    out = edit(pipeline, clip(frames=TINY.num_frames + 3))
    assert out.frames.shape[0] == TINY.num_frames + 3


def test_windows_of_longer_clips_move_unless_it_is_said_otherwise(pipeline, monkeypatch):
    sampler_of, moved = pipeline.sampler, []
    monkeypatch.setattr(pipeline, "sampler", lambda settings: moved.append(sampler_of(settings)) or moved[-1])
    for said, expected in (({}, True), ({"shift_windows": False}, False)):
        edit(pipeline, clip(frames=TINY.num_frames + 3), **said)
        assert moved.pop().shift is expected


def test_progress_reaches_the_end_of_every_stage(pipeline):
    seen = {}
    edit(pipeline, clip(), progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)))
    assert list(seen) == ["depth", "structure", "sampling", "decoding"]  # compiled in a test before
    assert all(steps[-1][0] == steps[-1][1] for steps in seen.values())
    assert seen["sampling"] == [(1, 2), (2, 2)]


def test_compiling_is_a_stage_of_its_own(tiny_model):
    pipeline, stages = Gen1Pipeline.from_pretrained(tiny_model), []
    report = lambda stage, done, total: stages.append((stage, done))
    for steps in (2, 3):
        edit(pipeline, clip(), num_inference_steps=steps, progress=report)
    told = [stage for stage in stages if stage[0] in ("compiling", "sampling")]
    first = [("compiling", 0), ("compiling", 1), ("sampling", 1), ("sampling", 2)]
    assert told == [*first, ("sampling", 1), ("sampling", 2), ("sampling", 3)]


def test_several_prompts_are_several_edits(pipeline):
    both = edit(pipeline, list(clip()), prompt=["a golden car", "a marble dog"])
    for prompt, out in zip(("a golden car", "a marble dog"), both, strict=True):
        np.testing.assert_array_equal(out.frames, edit(pipeline, clip(), prompt=prompt).frames)
    with pytest.raises(ValueError, match="prompt is an empty list"):
        edit(pipeline, clip(), prompt=[])


def test_words_that_a_model_has_never_seen_are_named(pipeline, monkeypatch):
    monkeypatch.setattr(pipeline.source, "words", frozenset({"a", "golden", "car"}))
    edit(pipeline, clip(), prompt="A golden car")  # warnings are errors here
    with pytest.warns(UserWarning, match='has never seen "Godzilla", "blue", so .*--words'):
        edit(pipeline, clip(), prompt="a Godzilla, a blue car")


def test_chunks_of_frames_do_not_show(pipeline, monkeypatch):
    frames = clip(frames=5, height=16, width=16)
    settings = EditSettings(structure_blur=1).of(pipeline.config)
    maps = pipeline.read_structure(frames, settings)
    signals = pipeline.encode_structure(maps, settings)
    monkeypatch.setattr("gen1_jax.editing.structures.CHUNK", 2)
    np.testing.assert_allclose(pipeline.read_structure(frames, settings)["depth"], maps["depth"], atol=1e-4)
    again = pipeline.encode_structure(maps, settings)
    np.testing.assert_allclose(again["depth"].maps, signals["depth"].maps, atol=1e-4)


def test_contract_calls(pipeline):
    """The calls that DESIGN's contract fixes, by position and by name."""
    b, t, h, w = 2, 3, 4, 4
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(b, t, h, w, 4)).astype(np.float32)
    timesteps, levels = np.array([1, 999]), np.array([0, 7])
    content = np.zeros((b, 1, 16), np.float32)
    out = pipeline.unet(latents, timesteps, content, latents, levels)
    named = pipeline.unet(latents, timesteps, content=content, structure=latents, structure_level=levels)
    assert out.shape == latents.shape
    np.testing.assert_array_equal(out, named)
    images = rng.uniform(-1, 1, (b, 8, 8, 3)).astype(np.float32)
    mean = pipeline.vae.encode(images).mean
    assert mean.shape == (b, 4, 4, 4) and pipeline.vae.decode(mean).shape == images.shape
    assert pipeline.clip.encode_image(rng.normal(size=(b, 16, 16, 3)).astype(np.float32)).shape == (b, 16)
    ids, mask = pipeline.tokenizer(["a cat", "two dogs"])
    assert pipeline.clip.encode_text(ids).shape == (b, 16)
    assert pipeline.depth(rng.normal(size=(b, 32, 32, 3)).astype(np.float32)).shape == (b, 32, 32)
    text, states = pipeline.clip.encode_text_tokens(ids)
    assert pipeline.prior.sample(text, states, mask, jax.random.key(0)).shape == (b, 16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": None}, "either a prompt or an image"),
        ({"image": clip(1)[0]}, "not both"),
        ({"structure_blur": 8}, "structure_blur must be 0 to 7"),
        ({"structure_blur": -1}, "structure_blur"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"temporal_guidance_scale": float("inf")}, "temporal_guidance_scale"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"seed": -1}, "seed"),
        ({"sampler": "euler"}, "ddim, dpm"),
    ],
)
def test_wrong_settings_are_named(pipeline, wrong, message):
    with pytest.raises(ValueError, match=message):
        edit(pipeline, clip(), **wrong)


def test_wrong_frames_are_named(pipeline):
    for frames in (clip()[0], clip().astype(np.int32), clip()[:0], clip()[..., :1]):
        with pytest.raises(ValueError, match="uint8"):
            edit(pipeline, frames)


def test_working_size_keeps_shape_and_area(pipeline):
    multiple = TINY.vae.downscale * TINY.unet.downscale
    for height, width in [(16, 16), (1080, 1920), (1920, 1080), (480, 480), (10, 4000)]:
        h, w = pipeline.config.working_size(height, width)
        assert h % multiple == w % multiple == 0 and h >= multiple and w >= multiple
        if max(height, width) < 3 * min(height, width):
            assert 0.5 < h * w / (16 * 16) < 2


def test_structure_is_normalised_over_the_clip_and_blurred_by_level():
    rng = np.random.default_rng(0)
    depth = jnp.asarray(rng.uniform(3, 9, (1, 2, 40, 24)), jnp.float32)
    normal = normalise_depth(depth)
    assert normal.min() == -1 and normal.max() == 1
    np.testing.assert_allclose(normalise_depth(depth * 5 - 2), normal, atol=1e-5)  # scale, shift
    assert (normalise_depth(jnp.ones((1, 2, 4, 4))) == 0).all()

    detail = []
    for level in range(8):
        image = np.asarray(structure_images(normal, jnp.array([level])))
        assert image.shape == (1, 2, 40, 24, 3) and (image[..., 0] == image[..., 1]).all()
        detail.append(np.abs(np.diff(image[..., 0], axis=-1)).mean())
    np.testing.assert_array_equal(structure_images(normal, jnp.array([0]))[..., 0], normal)
    assert all(a > b or b == 0 for a, b in itertools.pairwise(detail)) and detail[4] > 0, detail

    both = structure_images(jnp.concatenate([normal, normal]), jnp.array([0, 3]))  # a level for each clip
    np.testing.assert_allclose(both[1], structure_images(normal, jnp.array([3]))[0], atol=1e-6)


def test_blur_does_not_move_pictures():
    ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 64), (1, 1, 64, 64))
    blurred = structure_images(ramp, jnp.array([3]))[0, 0, 32, :, 0]
    np.testing.assert_allclose(blurred[20:-20], ramp[0, 0, 0, 20:-20], atol=1e-3)


def test_to_uint8_and_resize_are_exact_where_nothing_changes():
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(values.astype(np.float32) / 127.5 - 1), values)
    np.testing.assert_array_equal(to_uint8(np.array([-5.0, 5.0])), [0, 255])
    frame = clip(1)[0]
    assert resize(frame, frame.shape[:2]) is frame
    assert resize(frame, (7, 9)).shape == (7, 9, 3)


def test_settings_defaults_are_the_contract():
    assert EditSettings().of(FULL) == EditSettings(
        structure="depth",
        structure_blur=0,
        guidance_scale=7.5,
        temporal_guidance_scale=1.0,
        guidance_interval=(0.0, 1.0),
        num_inference_steps=50,
        seed=0,
        sampler="ddim",
        shift_windows=True,
    )
