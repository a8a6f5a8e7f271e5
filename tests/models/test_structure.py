import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from edges import edges_known
from flax import nnx

from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound
from gen1_jax.models.structure import (
    STRUCTURE_KINDS,
    Canny,
    Depth,
    StructureKind,
    blur,
    blur_depth,
    blur_frames,
    normalise_depth,
    structure_images,
    structure_kind,
    told_level,
)
from gen1_jax.pretrained.family import TINY, Gen1Config


def random_depth(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(1, 9, shape), jnp.float32)


class MeanColour(nnx.Module):
    """Stands for a depth network."""

    config = None

    def estimate(self, images, frames_per_chunk=4):
        assert len(images) % frames_per_chunk == 0
        return images.mean(-1)


NETWORKS = {"depth": Bound(MeanColour(), {})}


def latents(images):
    """Stands for an autoencoder that shrinks by two and has as many channels as pictures."""
    return images[..., ::2, ::2, :]


def test_depth_by_its_kind_is_depth_by_the_functions():
    frames = np.random.default_rng(1).integers(0, 256, (4, 24, 16, 3), np.uint8)
    depth = structure_kind("depth")
    maps = depth.estimate(frames, NETWORKS, frames_per_chunk=2)
    halves = [depth.estimate(half, NETWORKS, frames_per_chunk=2) for half in (frames[:2], frames[2:])]
    np.testing.assert_allclose(maps, np.concatenate(halves), atol=1e-6)  # a clip may be given in pieces
    assert maps.shape == (4, 24, 16, depth.channels)

    flat, level = jnp.stack([maps[..., 0]] * 2), jnp.array([0, 3])
    normal = depth.normalise(jnp.stack([maps] * 2))
    np.testing.assert_array_equal(normal[..., 0], normalise_depth(flat))
    blurred = depth.degrade(normal, level)
    np.testing.assert_array_equal(blurred[..., 0], blur_depth(normalise_depth(flat), level))
    np.testing.assert_array_equal(blurred[0], normal[0])  # t_s 0 keeps all
    images = structure_images(normalise_depth(flat), level)
    np.testing.assert_array_equal(depth.encode(blurred, latents), latents(images))


def test_every_kind_that_degrades_maps_runs_in_a_jit():
    """Shapes and range with t_s traced, for depth and tiles and for a kind that only this test knows."""
    frames = np.random.default_rng(2).integers(0, 256, (3, 16, 24, 3), np.uint8)
    with edges_known():
        for name in ("depth", "tile", "source", "sobel"):
            kind = structure_kind(name)

            def encoded(frames, level, kind=kind):
                maps = kind.normalise(kind.estimate(frames, NETWORKS, frames_per_chunk=3))
                blurred = kind.degrade(maps[None], level)
                return maps, blurred, kind.encode(blurred, latents), kind.hint(blurred)

            maps, blurred, out, hint = jax.jit(encoded)(frames, jnp.array([4]))
            assert maps.shape == (3, 16, 24, kind.channels) and out.shape == (1, 3, 8, 12, 3)
            assert maps.min() >= -1 and abs(maps.max() - 1) < 0.02
            assert blurred.std() < 0.6 * maps.std()
            assert hint.shape == (1, 3, 16, 24, 3)
            np.testing.assert_allclose(hint[..., 0], (blurred[..., 0] + 1) / 2, atol=1e-6)
    assert "sobel" not in STRUCTURE_KINDS


def test_every_kind_reads_ready_maps_and_shows_what_a_control_net_saw():
    pictures = np.random.default_rng(5).integers(0, 256, (4, 8, 6, 3), np.uint8)
    level = jnp.array([3])
    for name, kind in STRUCTURE_KINDS.items():
        assert isinstance(kind, StructureKind) and kind.name == name
        assert json.loads(json.dumps(kind.contract)) == kind.contract != {}
        maps = kind.from_pictures(pictures)
        pieces = [kind.from_pictures(piece) for piece in (pictures[:1], pictures[1:])]
        np.testing.assert_array_equal(maps, np.concatenate(pieces))
        shown = pictures / 255 if kind.channels == 3 else np.repeat(pictures.mean(-1, keepdims=True) / 255, 3, -1)
        if name == "flow":
            shown = np.concatenate([pictures[..., :2] / 255, np.full_like(shown[..., :1], 0.5)], -1)
        np.testing.assert_allclose(kind.hint(maps[None])[0], shown, atol=1e-6, err_msg=name)
        white = kind.from_pictures(np.full((1, 2, 2, 3), 255, np.uint8))
        assert white.shape == (1, 2, 2, kind.channels) and (white == 1).all()
        degraded = np.asarray(kind.degrade(maps[None], level)[0])
        if kind.degrades == "maps":
            assert degraded.std() < 0.6 * np.asarray(maps).std(), name
        else:
            np.testing.assert_array_equal(degraded, maps)
        assert kind.encode(maps[None], latents).shape == (1, 4, 4, 3, 3)
        assert (told_level(kind, level) == (0 if kind.degrades == "nothing" else 3)).all()
    nothing = {"openpose", "seg", "mlsd", "edges", "segmentation", "pose", "split"}
    assert {n for n, k in STRUCTURE_KINDS.items() if k.degrades == "nothing"} == nothing
    assert {n for n, k in STRUCTURE_KINDS.items() if k.resampling == "nearest"} == {"seg", "segmentation"}
    assert {n for n, k in STRUCTURE_KINDS.items() if k.runs_on_host} == {"canny", "edges", "flow", "segmentation"}


def test_kinds_without_an_estimator_ask_for_their_maps():
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    for name in ("openpose", "lineart", "lineart_anime", "scribble", "pose", "seg", "mlsd"):
        with pytest.raises(UserError, match=rf"nothing here estimates {name}: .*--structure-from {name}=FILE"):
            structure_kind(name).estimate(frames, {})


def test_canny_edges_are_white_lines_where_the_picture_changes(monkeypatch):
    frames = np.zeros((2, 24, 32, 3), np.uint8)
    frames[0, 8:16, 8:24] = 255  # a box
    frames[1, :, 16:, 0] = 90  # a step that both thresholds of 100 and 200 let pass, and those of 500 do not
    canny = structure_kind("canny")
    edges = canny.estimate(frames, {})
    assert edges.shape == (2, 24, 32, 1) and set(np.unique(edges)) == {0, 1}
    np.testing.assert_array_equal(edges, np.concatenate([canny.estimate(frame[None], {}) for frame in frames]))
    inside, around = edges[0, 10:14, 10:22], edges[0, 6:18, 6:26]
    assert not inside.any() and around.sum() == edges[0].sum() > 2 * (8 + 16) - 8
    assert edges[1].sum() == 24 and edges[1, :, 15:17].sum() == 24
    assert not Canny(thresholds=(400, 500)).estimate(frames[1:], {}).any()
    hint = canny.hint(canny.normalise(jnp.asarray(edges))[None])
    np.testing.assert_array_equal(hint[0], np.repeat(edges, 3, -1))
    assert canny.contract["thresholds"] == [100, 200]

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match="pip install opencv-python-headless"):
        canny.estimate(frames, {})


def test_frames_are_blurred_as_maps_are():
    frames = np.random.default_rng(6).integers(0, 256, (3, 12, 20, 3), np.uint8)
    np.testing.assert_array_equal(blur_frames(frames, 0), frames)
    blurred = blur_frames(frames, jnp.int32(2))
    assert blurred.dtype == jnp.uint8
    exact = blur(jnp.asarray(frames, jnp.float32)[None], jnp.array([2]))[0]
    assert np.abs(np.asarray(blurred, np.float32) - exact).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(blurred[1:], blur_frames(frames[1:], 2))  # a clip may be given in pieces
    lines = np.zeros((1, 64, 64, 3), np.uint8)
    lines[:, ::4] = 255
    canny = structure_kind("canny")
    assert canny.estimate(lines, {}).mean() > 0.2 and not canny.estimate(blur_frames(lines, 3), {}).any()


def test_an_unknown_kind_is_named_with_those_that_there_are():
    with (
        edges_known(),
        pytest.raises(ValueError, match=r"no structure of kind 'poses', only canny, depth, .*sobel, .*tile$"),
    ):
        structure_kind("poses")


def test_depth_is_normalised_over_the_frames_that_are_given_and_nothing_else():
    """The support of the contract: every window of a clip, and every clip of a batch, by itself."""
    clips = random_depth(2, 6, 8, 8) * jnp.arange(1, 7)[:, None, None]
    for window in (clips[:, :3], clips[:, 2:], clips[:, 4:5]):
        normal = normalise_depth(window)
        np.testing.assert_allclose(normal.min((1, 2, 3)), -1, atol=1e-6)
        np.testing.assert_allclose(normal.max((1, 2, 3)), 1, atol=1e-6)
    np.testing.assert_array_equal(normalise_depth(clips)[1], normalise_depth(clips[1]))


def test_a_model_says_how_its_depth_is_normalised():
    family = dataclasses.replace(TINY, depth_quantiles=(0.01, 0.99))
    assert family.structure_kind("depth") == Depth(quantiles=(0.01, 0.99)) != TINY.structure_kind("depth")
    assert Gen1Config.from_dict(json.loads(json.dumps(family.to_dict()))) == family
    before = {name: value for name, value in TINY.to_dict().items() if name != "depth_quantiles"}
    assert Gen1Config.from_dict(before) == TINY
    with pytest.raises(UserError, match="quantiles"):
        dataclasses.replace(TINY, depth_quantiles=(0.9, 0.1))


def test_quantiles_do_not_hang_on_single_pixels():
    depth = random_depth(4, 32, 32)
    spoilt = depth.at[0, 0, 0].set(-500).at[1, 2, 3].set(900)

    def moved(quantiles):
        change = normalise_depth(spoilt, quantiles) - normalise_depth(depth, quantiles)
        return jnp.abs(change.at[0, 0, 0].set(0).at[1, 2, 3].set(0)).max()

    assert moved((0.0, 1.0)) > 0.5  # as ever: the least and the largest value
    assert moved((0.01, 0.99)) < 0.01
    cut = normalise_depth(spoilt, (0.01, 0.99))
    assert cut.min() == -1 and cut.max() == 1 and cut[1, 2, 3] == 1 and cut[0, 0, 0] == -1
    assert (normalise_depth(jnp.ones((2, 4, 4)), (0.1, 0.9)) == 0).all()
    np.testing.assert_array_equal(Depth(quantiles=(0.01, 0.99)).normalise(spoilt[..., None])[..., 0], cut)
    assert Depth(quantiles=(0.01, 0.99)).contract != Depth().contract
    for wrong in ((0.9, 0.1), (-0.1, 1.0), (0.0, 1.5)):
        with pytest.raises(ValueError, match="do not ascend within 0"):
            normalise_depth(depth, wrong)
        with pytest.raises(ValueError, match="do not ascend within 0"):
            Depth(quantiles=wrong)
