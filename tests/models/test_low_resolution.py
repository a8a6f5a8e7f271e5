"""The structure that an upscaler is told: small pictures, enlarged, and spoiled by t_s."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gen1_jax.models.resampling import area_matrix, gaussian_matrix
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, LowResolution, structure_kind

KIND = structure_kind("low_resolution")
DEGRADE = jax.jit(KIND.degrade)


@pytest.fixture(scope="module")
def maps():
    """Smooth colours and fine texture, two frames of 24x40."""
    y, x = np.mgrid[:24, :40] / 8
    waves = np.stack([np.sin(x + y), np.cos(x - y), np.sin(2 * x)], -1) * 0.6
    texture = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 24, 40, 3))
    return jnp.asarray(waves + texture, jnp.float32)[None]


def at(maps, level):
    return np.asarray(DEGRADE(maps, jnp.array([level])))


def test_level_0_is_the_mean_of_2x2_pixels_enlarged(maps):
    small = np.asarray(maps)[0].reshape(2, 12, 2, 20, 2, 3).mean((2, 4))
    back = at(maps, 0)[0]
    assert back.shape == (2, 24, 40, 3)
    # Pillow's bicubic has another coefficient (-0.5), so that it is only near.
    channel = Image.fromarray(small[0, ..., 0]).resize((40, 24), Image.Resampling.BICUBIC)
    assert np.abs(back[0, ..., 0] - np.asarray(channel))[4:-4, 4:-4].max() < 0.1
    again = at(jnp.asarray(np.repeat(np.repeat(small, 2, 1), 2, 2))[None], 0)[0]
    np.testing.assert_allclose(again, back, atol=1e-5)  # small frames with repeated pixels tell the same


def test_every_level_is_worse_and_each_clip_has_its_own(maps):
    levels = jnp.arange(MAX_STRUCTURE_LEVEL + 1)
    spoiled = np.asarray(DEGRADE(jnp.tile(maps, (len(levels), 1, 1, 1, 1)), levels))
    errors = np.square(spoiled - spoiled[:1]).mean((1, 2, 3, 4))
    assert errors[0] == 0 and (np.diff(errors) > 0).all() and errors[-1] > 0.03
    np.testing.assert_allclose(spoiled[3], at(maps, 3)[0], atol=1e-5)
    assert np.abs(spoiled).max() <= 1


def test_noise_is_of_the_frame_alone(maps):
    whole, alone = at(maps, 4), at(maps[:, 1:], 4)
    np.testing.assert_allclose(whole[:, 1:], alone, atol=1e-5)
    without = jax.jit(LowResolution(noise=(0.0,) * 8).degrade)
    noise = [at(x, 4) - np.asarray(without(x, jnp.array([4]))) for x in (maps, -maps)]
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2 and noise[0].std() > 0.03


def test_rounding_is_that_of_blocks_of_4x4():
    only_rounded = LowResolution(blur=(0.0,) * 8, noise=(0.0,) * 8, rounding=(0.0, *[1.0] * 7))
    flat = jnp.full((1, 1, 16, 16, 3), 0.3)  # the one coefficient of a block is 1.2, which becomes 1
    np.testing.assert_allclose(only_rounded.degrade(flat, jnp.array([1])), 0.25, atol=1e-5)
    np.testing.assert_allclose(only_rounded.degrade(flat, jnp.array([0])), 0.3, atol=1e-5)
    odd = only_rounded.degrade(jnp.full((1, 1, 10, 7, 3), 0.5), jnp.array([1]))  # small: 5x4
    assert odd.shape == (1, 1, 10, 7, 3) and np.isfinite(odd).all()


def test_it_keeps_colours_and_is_a_contract_of_its_numbers():
    assert KIND.channels == 3 and KIND.degrades == "maps" and KIND.is_estimated and KIND.part is None
    frames = np.full((1, 8, 8, 3), 255, np.uint8)
    np.testing.assert_allclose(KIND.normalise(KIND.estimate(frames, {})), 1)
    assert KIND.contract["scale"] == 2 and KIND.contract != LowResolution(noise=(0.1,) * 8).contract


def test_matrices_of_areas_and_gaussians():
    np.testing.assert_allclose(area_matrix(6, 2), np.kron(np.eye(2), np.full((1, 3), 1 / 3)))
    np.testing.assert_allclose(area_matrix(5, 3).sum(1), 1)
    np.testing.assert_allclose(area_matrix(5, 3)[0], [0.6, 0.4, 0, 0, 0])
    np.testing.assert_array_equal(gaussian_matrix(4, 0.0), np.eye(4))
    blurred = gaussian_matrix(41, 3.0)
    np.testing.assert_allclose(blurred.sum(1), 1)
    assert np.sqrt(blurred[20] @ np.square(np.arange(41) - 20)) == pytest.approx(3, abs=0.01)
