import dataclasses
import json

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
    Depth,
    StructureKind,
    blur_depth,
    normalise_depth,
    structure_images,
    structure_kind,
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


def test_every_kind_keeps_the_protocol():
    """Shapes and range, in a jit with t_s traced, for depth and for a kind that only this test knows."""
    frames = np.random.default_rng(2).integers(0, 256, (3, 16, 24, 3), np.uint8)
    with edges_known():
        for name, kind in STRUCTURE_KINDS.items():
            assert isinstance(kind, StructureKind) and kind.name == name and kind.contract

            def encoded(frames, level, kind=kind):
                maps = kind.normalise(kind.estimate(frames, NETWORKS, frames_per_chunk=3))
                blurred = kind.degrade(maps[None], level)
                return maps, blurred, kind.encode(blurred, latents)

            maps, blurred, out = jax.jit(encoded)(frames, jnp.array([4]))
            assert maps.shape == (3, 16, 24, kind.channels) and out.shape == (1, 3, 8, 12, 3)
            assert maps.min() >= -1 and abs(maps.max() - 1) < 1e-6
            assert blurred.std() < 0.6 * maps.std()
    assert "edges" not in STRUCTURE_KINDS


def test_an_unknown_kind_is_named_with_those_that_there_are():
    with edges_known(), pytest.raises(ValueError, match=r"no structure of kind 'pose', only depth, edges"):
        structure_kind("pose")


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
