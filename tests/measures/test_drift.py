import numpy as np
import pytest

from gen1_jax.measures.drift import colour_slopes, seam_ratio, slope


def clip(frames=20):
    ids = np.zeros((frames, 12, 12), np.int32)
    ids[:, :6], ids[:, 6:8, :4] = 3, 7  # the last one is too small to count
    answer = np.random.default_rng(0).random((1, 12, 12, 3), np.float32).repeat(frames, 0)
    return answer, ids


def test_slope_is_per_hundred_frames_and_leaves_gaps_out():
    values = 0.02 * np.arange(20.0)
    assert slope(values) == pytest.approx(2)
    values[3:9] = np.nan
    assert slope(values) == pytest.approx(2)
    assert np.isnan(slope(np.array([1.0, np.nan])))


def test_a_surface_that_reddens_is_found_whatever_the_answer_does():
    answer, ids = clip()
    edit = answer.copy()
    edit[..., 0] += (ids == 3) * 0.01 * np.arange(20)[:, None, None]
    slopes = colour_slopes(edit, answer, ids)
    np.testing.assert_allclose(slopes, [[0, 0, 0], [1, 0, 0]], atol=1e-4)
    np.testing.assert_allclose(colour_slopes(answer, answer, ids), 0, atol=1e-9)


def test_seams_are_changes_at_borders():
    still, ids = clip()
    flow = np.zeros((*ids.shape, 2), np.float32)
    flicker = np.random.default_rng(1).normal(0, 0.01, (20, 1, 1, 1)).astype(np.float32)
    borders = np.array([8, 12])
    seamless = seam_ratio(still + flicker, flow, ids, borders)
    jumping = still + flicker + np.isin(np.arange(20), range(8, 12))[:, None, None, None].astype(np.float32) * 0.2
    assert 0.2 < seamless < 3 and seam_ratio(jumping, flow, ids, borders) > 5
