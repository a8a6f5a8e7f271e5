"""Motion that is estimated from pictures."""

import numpy as np
import pytest

from gen1_jax.evaluation.optical_flow import estimate_backward_flow

pytest.importorskip("skimage")


def test_a_scene_that_moves_as_one():
    """Two pixels to the right and one up, in each frame; far from borders the way back is found. Also by processes."""
    rng = np.random.default_rng(0)
    noise = rng.random((9, 9, 3)).repeat(8, 0).repeat(8, 1)  # 72 x 72 in blocks
    scene = np.cumsum(np.cumsum(noise - noise.mean(), 0), 1)  # smooth
    scene = np.uint8(255 * (scene - scene.min()) / np.ptp(scene))
    clip = np.stack([scene[4 + t : 52 + t, 12 - 2 * t : 60 - 2 * t] for t in range(4)])
    flow = estimate_backward_flow(clip[None])
    assert flow.shape == (1, 4, 48, 48, 2) and (flow[0, 0] == 0).all()
    np.testing.assert_allclose(np.median(flow[0, 1:, 8:-8, 8:-8], axis=(1, 2)), [[-2, 1]] * 3, atol=0.2)
    clips = np.stack([clip, clip[::-1]]).repeat(8, 0)
    divided = estimate_backward_flow(clips)
    np.testing.assert_array_equal(divided[0], flow[0])
    np.testing.assert_array_equal(divided, np.stack([estimate_backward_flow(c[None])[0] for c in clips]))
