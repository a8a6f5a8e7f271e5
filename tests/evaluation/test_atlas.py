"""Layered atlases: what moves is told apart, the layers give the clip back, and edits of them lie under its frames."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from gen1_jax.evaluation.rivals import atlas, layered_atlas
from gen1_jax.evaluation.rivals.motion_layers import motion_layers

SIDE, COUNT, SQUARE, SPEED = 64, 5, 24, 2


def smooth(rng, height, width):
    """Noise that estimated motion can hold on to."""
    noise = ndimage.gaussian_filter(rng.random((height, width, 3)), (1.5, 1.5, 0), mode="wrap")
    return (noise - noise.min()) / (noise.max() - noise.min())


@pytest.fixture(scope="module")
def moving():
    """A square that goes to the right over what goes slowly to the left; and where the square is."""
    rng = np.random.default_rng(0)
    wide, thing = smooth(rng, SIDE, SIDE + 2 * COUNT), smooth(rng, SQUARE, SQUARE) * [0.5, 1, 1] + [0.5, 0, 0]
    y, x = np.mgrid[:SIDE, :SIDE]
    frames, masks = np.empty((COUNT, SIDE, SIDE, 3)), np.zeros((COUNT, SIDE, SIDE), np.float32)
    for t in range(COUNT):
        there = x + t * (1 + np.cos(2 * np.pi * y / SIDE))  # each row at a pace of its own
        frames[t] = np.stack(
            [ndimage.map_coordinates(plane, (y, there), order=1) for plane in wide.T.swapaxes(1, 2)], -1
        )
        where = np.s_[16 : 16 + SQUARE, 12 + SPEED * t : 12 + SPEED * t + SQUARE]
        frames[t][where], masks[t][where] = thing, 1
    return np.rint(frames * 255).astype(np.uint8), masks


@pytest.fixture(scope="module")
def layers(moving):
    frames, masks = moving
    return layered_atlas.fitted(frames[None], masks[None], keys=jax.random.key(0)[None])


def test_what_moves_otherwise_than_most_is_found(moving):
    frames, masks = moving
    found = motion_layers(frames)
    inside, outside = found.foreground[masks > 0].mean(), found.foreground[masks == 0].mean()
    assert inside > 0.7 and outside < 0.1, (inside, outside)
    for layer, speed in enumerate((-1, SPEED)):  # to the middle frame, as far as it is away in time
        away = np.array([30, 30, 1]) @ found.affine[layer] - 30
        np.testing.assert_allclose(away[:, 0], speed * (COUNT // 2 - np.arange(COUNT)), rtol=0.5, atol=0.05)
        assert np.abs(away[:, 1]).max() < 0.3


def test_layers_give_the_clip_back_and_lie_still_under_what_moves(moving, layers):
    frames, masks = moving
    error = np.square(np.asarray(layered_atlas.rendered(layers))[0] - frames / 255).mean()
    assert -10 * np.log10(error) > 30
    coverage = layered_atlas.coverage(layers)[0]
    assert abs(coverage.mean() * layers.box[0, 1, 2:].prod() / SQUARE**2 - 1) < 0.25
    green = np.stack([layers.pictures[:, 0], np.full_like(layers.pictures[:, 1], [0, 1, 0])], axis=1)
    painted = np.asarray(layered_atlas.rendered(layers, green))[0]
    for t in range(COUNT):
        inside = painted[t][masks[t] > 0]
        assert np.abs(inside - [0, 1, 0]).mean() < 0.1
    outside = np.abs(painted - frames / 255)[masks == 0]
    assert outside.mean() < 0.04


def test_pictures_that_are_edited_have_the_background_without_what_moves(moving, layers):
    frames, masks = moving
    pictures = atlas._pictures(layers, (SIDE, SIDE))
    assert pictures.shape == (1, 2, SIDE, SIDE, 3) and pictures.dtype == np.uint8
    redness = lambda x: (x[..., 0] / 255 - x[..., 1:].mean(-1) / 255).mean()
    thing = redness(frames[masks > 0])
    places = np.argwhere(masks[COUNT // 2] > 0)[:, ::-1]
    _, seen = layered_atlas._begin(frames, motion_layers(frames, masks))
    hidden, free = (np.rint(layered_atlas.FINER * np.array(at)).astype(int) for at in ((28, 28), (56, 28)))
    assert [bool(layer[tuple(hidden)]) for layer in seen] == [False, True]
    assert [bool(layer[tuple(free)]) for layer in seen] == [True, False]
    for layer, picture in enumerate(pictures[0]):
        box = layers.box[0, layer]
        column, row = ((places - box[:2]) / box[2:] * SIDE).astype(int).T
        seen = redness(picture[row, column])
        assert abs(seen - thing) < 0.1 if layer else seen < 0.5 * thing
