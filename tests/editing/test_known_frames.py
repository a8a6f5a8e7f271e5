"""Editing with a model of several inputs: known frames, keyframes first, guidance by the source."""

import dataclasses
from argparse import ArgumentTypeError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, save_tiny_model

from gen1_jax import Gen1Pipeline
from gen1_jax.commands.values import keyframe
from gen1_jax.diffusion import Guidance
from gen1_jax.editing.carrying import carrying
from gen1_jax.editing.files import edit_file
from gen1_jax.editing.keyframes import between, evaluations, gaps, keyframes_first, keyframes_of
from gen1_jax.editing.known import KnownClip, KnownLatents
from gen1_jax.editing.record import read_record
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.media import load_video, write_image
from gen1_jax.models.growing import with_inputs

CONFIG = dataclasses.replace(TINY, unet=with_inputs(TINY.unet, ("depth", "source", "known")))
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
PAINTED = np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny2", CONFIG)
    pipeline = Gen1Pipeline.from_pretrained(folder)
    rng = np.random.default_rng(3)
    noise = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
    pipeline.unet.params = jax.tree.map(noise, pipeline.unet.params)  # so that all layers and frames matter
    return pipeline


def edit(pipeline, **settings):
    return pipeline.edit(FRAMES, "a golden car", **{"num_inference_steps": 2, "guidance_scale": 2.0} | settings).frames


@pytest.fixture(scope="module")
def plain(pipeline):
    return edit(pipeline)


def through_autoencoder(pipeline, picture):
    known = KnownClip.of({0: picture}, 1, (16, 16))
    return next(pipeline.decode(pipeline.encode_frames(known.frames)))


def test_a_known_frame_stays_and_is_carried(pipeline, plain):
    out = edit(pipeline, known={0: PAINTED})
    np.testing.assert_allclose(out[0], through_autoencoder(pipeline, PAINTED), atol=1)
    assert (out[1:] != plain[1:]).any((1, 2, 3)).all()
    last = edit(pipeline, known={-1: PAINTED})
    np.testing.assert_allclose(last[3], out[0], atol=1)
    mask = np.zeros((4, 16, 16))
    mask[0] = 1
    same = np.repeat(np.asarray(KnownClip.of({0: PAINTED}, 1, (16, 16)).frames), 4, axis=0)
    np.testing.assert_array_equal(edit(pipeline, known=(same, mask)), out)


def test_an_edit_that_knows_a_frame_begins_half_way_with_it_carried(pipeline, monkeypatch):
    seen, steps = [], []

    def watched(known, frames):
        seen.append((sorted(known), frames.shape))
        return np.stack([known[0]] * len(frames))

    told = dict(known={0: PAINTED}, num_inference_steps=4)
    own = edit(pipeline, **told, progress=lambda *done: steps.append(done))
    assert [done for done in steps if done[0] == "sampling"][-1] == ("sampling", 2, 2)
    monkeypatch.setattr("gen1_jax.editing.pipeline.carried", watched)
    assert (edit(pipeline, **told)[1:] != own[1:]).any() and seen == [([0], (4, 16, 16, 3))]


def test_keyframes_come_first_and_a_stride_of_one_is_the_plain_edit(pipeline, plain, monkeypatch):
    np.testing.assert_array_equal(edit(pipeline, keyframe_stride=1), plain)
    seen, sample = [], pipeline.sample

    def watched(content, maps, settings, *told, frames, given=None, **mask):
        latents = sample(content, maps, settings, *told, frames=frames, given=given, **mask)
        mask = None if given is None else np.asarray(given.mask)[0, :, 0, 0, 0].tolist()
        seen.append((len(frames), settings.num_inference_steps, settings.guidance_scale, mask, np.asarray(latents)))
        return latents

    monkeypatch.setattr(pipeline, "sample", watched)
    steps: list[tuple] = []
    out = edit(pipeline, keyframe_stride=3, progress=lambda *told: steps.append(told))
    assert out.shape == plain.shape
    (one, *first), (other, *last), (inner, *then), (whole, *_, latents) = seen
    assert (one, other, inner, whole) == (1, 1, 4, 4)  # keyframes each by itself
    assert first[:3] == last[:3] == [2, 2.0, None] and then[:3] == [4, 1.0, [1, 0, 0, 1]]
    ends = np.concatenate([first[3], last[3]], axis=1)
    np.testing.assert_allclose(then[3][:, [0, 3]], ends, atol=1e-5)
    np.testing.assert_array_equal(latents[:, [0, 3]], ends)
    done = [told[1:] for told in steps if told[0] == "sampling"]
    assert done == [(n, 8) for n in range(9)] or done == [(n, 8) for n in range(1, 9)]


def test_a_mask_is_known_to_a_model_with_an_input_for_it(pipeline, plain):
    mask = np.zeros((16, 16), bool)
    mask[:, 8:] = True
    out = edit(pipeline, mask=mask, known={0: PAINTED})
    np.testing.assert_array_equal(out[1:, :, :8], FRAMES[1:, :, :8])
    assert (out[1:, :, 10:] != plain[1:, :, 10:]).any()
    stepwise = edit(pipeline, mask=mask, keyframe_stride=3)
    np.testing.assert_array_equal(stepwise[:, :, :8], FRAMES[:, :, :8])


def test_guidance_by_the_source_needs_it_and_matters(pipeline, plain):
    followed = edit(pipeline, source_guidance_scale=1.0)
    np.testing.assert_array_equal(followed, edit(pipeline, structure="depth,source"))
    assert (followed != plain).any() and (followed != edit(pipeline, source_guidance_scale=2.0)).any()
    assert EditSettings(source_guidance_scale=2.0).of(CONFIG).structure == "depth,source"
    assert EditSettings().of(CONFIG).structure == "depth"
    assert EditSettings(structure="source").of(CONFIG).structure == "source"


def test_a_file_is_edited_with_keyframes_which_its_record_names(pipeline, tmp_path):
    for name, frame in (("0.png", FRAMES[0]), ("1.png", FRAMES[1])):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_image(tmp_path / "in" / name, frame)
    write_image(tmp_path / "painted.png", PAINTED)
    write_image(tmp_path / "wide.png", np.repeat(PAINTED, 2, axis=1))
    settings = EditSettings(num_inference_steps=2)
    request = EditRequest(
        video=tmp_path / "in", output=f"{tmp_path}/out/", prompt="a golden car", model="tiny2", settings=settings
    )
    given = dataclasses.replace(request, keyframes=(keyframe(f"1={tmp_path}/painted.png"),), sidecar=True)
    edit_file(given, pipeline=pipeline)
    np.testing.assert_allclose(load_video(f"{tmp_path}/out/")[1], through_autoencoder(pipeline, PAINTED), atol=1)
    assert read_record(f"{tmp_path}/out.json")["keyframes"] == ["1=painted.png"]
    for keyframes, message in (
        (((0, tmp_path / "wide.png"),), "40x20 would be squeezed for a clip of 16x16"),
        (((7, tmp_path / "painted.png"),), "known frame 7: the clip has 2 frames"),
    ):
        with pytest.raises(UserError, match=message):
            edit_file(dataclasses.replace(request, output=f"{tmp_path}/no/", keyframes=keyframes), pipeline=pipeline)
    assert not (tmp_path / "no").exists()
    with pytest.raises(UserError, match="two pictures for one frame"):
        dataclasses.replace(request, keyframes=((0, "a.png"), (0, "b.png")))
    for text in ("painted.png", "0=", "x=painted.png"):
        with pytest.raises(ArgumentTypeError, match="is not like 0=painted"):
            keyframe(text)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"known": {}}, "known is empty"),
        ({"known": {4: PAINTED}}, "known frame 4: the clip has 4 frames"),
        ({"known": (FRAMES, np.ones((3, 16, 16)))}, r"a mask of shape \(3, 16, 16\)"),
        ({"keyframe_stride": 0}, "keyframe_stride must be 1 or more"),
        ({"keyframe_stride": 4}, "keyframe_stride is at most 3"),
        ({"structure": "depth", "source_guidance_scale": 1.5}, "--structure depth,source"),
    ],
)
def test_what_cannot_be_is_named(pipeline, wrong, message):
    with pytest.raises(UserError, match=message):
        edit(pipeline, **wrong)


def test_models_of_before_say_what_to_do(tiny_model):
    before = Gen1Pipeline.from_pretrained(tiny_model)
    for wrong, message in (
        ({"known": {0: PAINTED}}, "has no input for known frames: take a model that has one"),
        ({"keyframe_stride": 2}, "no input for known frames; leave it 1"),
        ({"source_guidance_scale": 1.5}, "follows the source: take a model that does"),
    ):
        with pytest.raises(UserError, match=message):
            edit(before, **wrong)


def test_windows_between_keyframes_have_one_length():
    assert keyframes_of(8, 3) == [0, 3, 6, 7] and gaps(8, 3, [0, 3, 6, 7]) == [(0, 0, 3), (3, 3, 6)]
    assert gaps(8, 7, keyframes_of(8, 7)) == [(0, 0, 7)] and gaps(3, 1, [0, 1, 2]) == []
    assert keyframes_of(1, 4) == [0] and gaps(6, 4, [0, 4, 5]) == [(0, 0, 4)]
    given = KnownLatents(jnp.zeros((1, 6, 1, 2, 4)), jnp.zeros((1, 6, 1, 2, 1)).at[:, 2].set(1).at[:, 3, :, 0].set(1))
    assert keyframes_of(6, 4, given) == [0, 2, 4, 5]  # that which is given whole
    guided = Guidance.of(2.0, 1.0)
    assert evaluations(8, 7, 20, guided) == (2 * 40 + 8 * 4) / 8 and evaluations(8, 1, 20, guided) == 40
    assert evaluations(8, 7, 20, guided, (0.1, 0.6)) == (2 * 30 + 8 * 4) / 8
    assert evaluations(8, 7, 20, Guidance.of(2.0, 1.5)) == (2 * 40 + 8 * 4) / 8  # pictures have no guidance in time
    assert between(EditSettings(num_inference_steps=50, guidance_scale=7.5)).num_inference_steps == 10


def test_what_goes_on_from_known_frames_has_no_guidance():
    scales = dict(guidance_scale=2.0, temporal_guidance_scale=1.5, source_guidance_scale=1.2)
    guided = EditSettings(num_inference_steps=8, **scales)
    assert len(guided.guidance(CONFIG.unet).branches) == 4
    for without in (between, carrying):
        assert without(guided).guidance(CONFIG.unet) == Guidance.of(1.0, 1.0)


def test_every_frame_is_sampled_once_and_what_is_known_is_not():
    calls = []

    def sample(frames, known, gap):
        calls.append((frames.tolist(), None if known is None else np.asarray(known.mask)[0, :, 0, 0, 0].tolist(), gap))
        made = jnp.asarray(frames, jnp.float32)[None, :, None, None, None] + (0.5 if gap is not None else 0)
        return jnp.broadcast_to(made, (1, len(frames), 1, 1, 4))

    latents = keyframes_first(sample, 10, 4)
    assert calls[:4] == [([key], None, None) for key in (0, 4, 8, 9)]
    assert calls[4:] == [([0, 1, 2, 3, 4], [1, 0, 0, 0, 1], 0), ([4, 5, 6, 7, 8], [1, 0, 0, 0, 1], 1)]
    assert latents[0, :, 0, 0, 0].tolist() == [0, 1.5, 2.5, 3.5, 4, 5.5, 6.5, 7.5, 8, 9]
    given = KnownLatents(jnp.zeros((1, 10, 1, 1, 4)), jnp.zeros((1, 10, 1, 1, 1)).at[:, 0].set(1))
    calls.clear()
    keyframes_first(sample, 10, 4, given)
    assert calls[0] == ([0, 4, 8, 9], [1, 0, 0, 0], None)  # in sight of what is given, together


def test_a_chunk_goes_on_from_the_latents_before():
    before = jnp.ones((1, 2, 1, 1, 4))
    chunk = KnownLatents.beginning(before, 5)
    assert chunk.mask[0, :, 0, 0, 0].tolist() == [1, 1, 0, 0, 0] and chunk.latents.shape == (1, 5, 1, 1, 4)
    frame = KnownLatents(2 * jnp.ones((1, 5, 1, 1, 4)), jnp.zeros((1, 5, 1, 1, 1)).at[:, 1].set(1).at[:, 4].set(1))
    assert frame.over(chunk).latents[0, :, 0, 0, 0].tolist() == [1, 2, 0, 0, 2]
    assert frame.kept(chunk.kept()).change[0, :, 0, 0, 0].tolist() == [0, 0, 1, 1, 0]
