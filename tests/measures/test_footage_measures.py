"""Measures of real footage on clips whose answer is known: the same, shuffled, blurred, moved by a known flow."""

import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax import measures
from gen1_jax.measures import (
    bootstrap,
    colour_drift,
    frame_consistency,
    frechet_distance,
    motion_fidelity,
    prompt_drift,
    proportion,
    sign_test,
)

FRAMES, SIZE = 4, 24


def of_arrays(measure):
    """A measure of JAX's arrays, of NumPy's."""
    return lambda *arrays, **more: np.asarray(measure(*map(jnp.asarray, arrays), **more))


outside_error, sharpness, visible, warping_error = map(
    of_arrays, (measures.outside_error, measures.sharpness, measures.visible, measures.warping_error)
)


def moving(step=2, seed=0):
    """Texture that moves `step` pixels to the right in each frame: RGB in [0, 1], (T, H, W, 3)."""
    wide = np.random.default_rng(seed).random((SIZE, SIZE + FRAMES * abs(step), 3), np.float32)
    offset = lambda t: (FRAMES - t) * step if step > 0 else -t * step
    return np.stack([wide[:, offset(t) : offset(t) + SIZE] for t in range(FRAMES)])


def flow_of(step):
    return np.broadcast_to(np.float32([step, 0]), (1, FRAMES, SIZE, SIZE, 2))


def blurred(clip):
    return sum(np.roll(clip, shift, axis) for axis in (1, 2) for shift in (-1, 0, 1)) / 6


def warping(clip):
    return float(warping_error(clip[None], flow_of(2), flow_of(-2))[0])


def test_what_moves_along_the_flow_has_no_warping_error():
    clip = moving()
    assert warping(clip) == pytest.approx(0, abs=1e-6)
    assert warping(np.broadcast_to(clip[:1], clip.shape)) > 0.2  # it stands still under a flow
    assert warping(clip[[2, 0, 3, 1]]) > 0.2
    light = np.arange(FRAMES, dtype=np.float32)[:, None, None, None] / 10
    assert warping(clip / 2 + light) == pytest.approx(0.1, abs=1e-5)


def test_what_is_hidden_or_has_left_the_picture_does_not_count():
    flow, back = np.array(flow_of(2)), np.array(flow_of(-2))
    seen = np.asarray(visible(flow, back))
    assert seen[..., : SIZE - 2].all() and not seen[..., SIZE - 2 :].any()
    back[:, :, :, 10:] = 9  # where that comes from somewhere else
    assert np.asarray(visible(flow, back))[..., :8].all() and not np.asarray(visible(flow, back))[..., 8:].any()
    assert float(warping_error(moving(-3)[None], flow, np.full_like(back, 9))[0]) == 0


def test_motion_fidelity_by_hand():
    flow = np.random.default_rng(1).normal(size=(3, 5, 5, 2)).astype(np.float32)
    assert motion_fidelity(flow, flow) == pytest.approx(1)
    assert motion_fidelity(-flow, flow) == pytest.approx(-1)
    assert motion_fidelity(0 * flow, flow) == 0
    assert motion_fidelity(2 * flow, flow) == pytest.approx(0.8)
    assert motion_fidelity(flow[..., ::-1] * [1, -1], flow) == pytest.approx(0, abs=1e-7)  # at right angles
    assert np.isnan(motion_fidelity(0 * flow, 0 * flow))


def test_sharpness_falls_with_blur_where_frame_consistency_rises():
    clip = moving()
    sharp, soft, flat = (np.asarray(sharpness(c[None])) for c in (clip, blurred(clip), 0 * clip))
    assert sharp.shape == (1, FRAMES) and (soft < 0.6 * sharp).all() and (flat == 0).all()
    pixels = lambda c: c.reshape(FRAMES, -1)
    assert frame_consistency(pixels(blurred(clip))) > frame_consistency(pixels(clip))
    ramp = np.broadcast_to(np.linspace(0, 1, SIZE, dtype=np.float32)[:, None], clip.shape)
    np.testing.assert_allclose(sharpness(ramp[None]), 0, atol=1e-6)  # it has no second derivative


def test_only_what_is_outside_of_the_mask_counts():
    clip, mask = moving(), np.zeros((1, FRAMES, SIZE, SIZE), bool)
    mask[..., 8:16, 8:16] = True
    inside = np.where(mask[0, ..., None], 1 - clip, clip)
    assert float(outside_error(inside[None], clip[None], mask)[0]) == 0
    assert float(outside_error(clip[None] + 0.25, clip[None], mask)[0]) == pytest.approx(0.25, abs=1e-6)
    near = np.array(mask)
    near[..., 4:20, 4:20] = True  # within the margin of 4
    assert float(outside_error(clip[None] + near[..., None], clip[None], mask)[0]) == 0
    assert float(outside_error(clip[None] + near[..., None], clip[None], mask, margin=3)[0]) > 0
    assert np.isnan(float(outside_error(clip[None], clip[None], np.ones_like(mask))[0]))


def test_drift_is_a_slope_and_no_constant():
    source = np.random.default_rng(2).random((50, 3))
    time = np.arange(50)[:, None] / 100
    assert colour_drift(source + 0.3, source) == pytest.approx(0, abs=1e-12)
    assert colour_drift(source + time * [0.3, 0, -0.4], source) == pytest.approx(0.5)
    angle = np.arccos(1 - np.arange(50) / 100)
    frames = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 3
    assert prompt_drift(frames, np.array([2.0, 0.0])) == pytest.approx(-1)
    assert np.isnan(colour_drift(source[:1], source[:1]))


def test_frechet_distance_by_hand():
    ours = np.random.default_rng(3).normal(size=(60, 5))
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(ours + np.eye(5)[0] * 3 + np.eye(5)[1] * 4, ours) == pytest.approx(25)
    centred = ours - ours.mean(0)
    assert frechet_distance(3 * centred, centred) == pytest.approx(4 * np.trace(np.cov(centred.T)))
    few = np.random.default_rng(4).normal(size=(10, 40))  # fewer than dimensions, as of most listings
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-5) and np.isnan(frechet_distance(few[:1], few))


def test_the_papers_preferences_with_their_intervals():
    """88.24%, 79.41% and 91.18%, which are 30, 27 and 31 of 34."""
    rounded = [tuple(round(100 * x, 2) for x in proportion(won, 34)) for won in (30, 27, 31)]
    assert rounded == [(88.24, 73.38, 95.33), (79.41, 63.2, 89.65), (91.18, 77.04, 96.95)]
    assert sign_test(27, 34) == pytest.approx(0.00083, abs=1e-5) and sign_test(17, 34) == 1 == sign_test(0, 0)
    assert np.isnan(proportion(0, 0).mean)
    low, high = bootstrap(np.repeat([1.0, 0.0], [300, 100]))[1:]
    assert proportion(300, 400)[1:] == pytest.approx((low, high), abs=0.01)
