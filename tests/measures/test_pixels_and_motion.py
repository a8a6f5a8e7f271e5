"""Distances in pixels against scikit-image, and warping by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.measures import psnr, ssim, warp, warp_error


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    one = rng.random((2, 3, 24, 32, 3)).astype(np.float32)
    return jnp.asarray(one), jnp.asarray(np.clip(one + rng.normal(size=one.shape) * 0.1, 0, 1).astype(np.float32))


def test_psnr_and_ssim_are_those_of_scikit_image(clips):
    metrics = pytest.importorskip("skimage.metrics")
    one, other = (np.asarray(x, np.float64) for x in clips)
    expected = [metrics.peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(psnr(*clips), expected, rtol=1e-5)

    def similarity(a, b):
        settings = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1)
        _, full = metrics.structural_similarity(a, b, full=True, **settings)
        return full[5:-5, 5:-5].mean()

    expected = [np.mean([similarity(*pair) for pair in zip(*ab, strict=True)]) for ab in zip(one, other, strict=True)]
    np.testing.assert_allclose(ssim(*clips), expected, rtol=1e-4)
    assert psnr(clips[0], clips[0]).tolist() == [100, 100] and np.allclose(ssim(clips[0], clips[0]), 1)


def test_warping_looks_where_the_flow_points(clips):
    one = clips[0]
    flow = jnp.broadcast_to(jnp.array([2.0, -1.0]), (*one.shape[:-1], 2))
    seen, inside = warp(one, flow)
    np.testing.assert_allclose(seen[:, :, 1:, :-2], one[:, :, :-1, 2:], atol=1e-6)
    np.testing.assert_allclose(seen[:, :, 0], seen[:, :, 1] * 0 + warp(one, flow * jnp.array([1.0, 0.0]))[0][:, :, 0])
    assert inside[:, :, 1:, :-2].all() and not inside[:, :, 0].any() and not inside[..., -2:].any()


def test_warp_error_counts_only_what_stays_in_sight():
    """A square on a still ground goes one pixel to the right; by hand, on a row of four pixels."""
    row = lambda *values: jnp.broadcast_to(jnp.array(values, jnp.float32)[:, None], (1, 1, 4, 3))
    before, after = row(0.9, 0.2, 0.4, 0.6), row(0.1, 0.7, 0.4, 0.5)
    ids = jnp.array([[[1, 0, 0, 0]], [[0, 1, 0, 0]]])[None]
    flow = jnp.zeros((1, 2, 1, 4, 2)).at[0, 0, 0, 0, 0].set(1)
    clip = jnp.stack([before[0][None], after[0][None]], axis=1)
    # the square: 0.9 to 0.7; pixel 1 is hidden by it; pixels 2 and 3 stay: 0 and 0.1
    np.testing.assert_allclose(warp_error(clip, flow, ids), [(0.2 + 0.0 + 0.1) / 3], rtol=1e-5)
    hidden = jnp.array([[[1, 1, 1, 1]], [[0, 0, 0, 0]]])[None]
    assert warp_error(clip, flow, hidden).tolist() == [0]
