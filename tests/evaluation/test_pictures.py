import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax import synthetic
from gen1_jax.evaluation.pictures import psnr, ssim, structure_error, warp, warp_error
from gen1_jax.evaluation.statistics import bootstrap
from gen1_jax.evaluation.worlds import Worlds


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


def test_true_answers_follow_the_true_motion_and_others_do_not():
    worlds = Worlds(4, frames=4, height=32, width=32)
    photographs = [i for i, told in enumerate(worlds.descriptions) if told.style == "photograph"]  # no paper, no grain
    assert photographs
    clips = jax.tree.map(lambda x: x[np.array(photographs)], worlds.clips)
    answer = jnp.asarray(clips.answer / 255, jnp.float32)
    error = jax.jit(warp_error)
    true, still = error(answer, clips.flow, clips.ids), error(answer, 0 * clips.flow, clips.ids)
    shuffled = error(answer[:, ::-1], clips.flow, clips.ids)
    assert (true < still).all() and (true < shuffled).all(), (true, still, shuffled)
    first, _ = warp(answer[:, :1].repeat(4, axis=1), jnp.asarray(clips.flow_to_first))
    assert (psnr(first, answer) > psnr(answer[:, :1].repeat(4, axis=1), answer)).all()
    assert np.abs(clips.flow_to_first[:, 0]).max() < 1e-3


def test_worlds_are_held_out_and_the_first_of_more_are_the_same():
    few, more = (Worlds(count, frames=4, height=32, width=32) for count in (1, 2))
    assert few.prompts == more.prompts[:1] and (few.clips.answer == more.clips.answer[:1]).all()
    assert (few.clips.source != few.clips.answer).any()
    for prompt, description in zip(more.prompts, more.descriptions, strict=True):
        assert synthetic.parse(prompt) == description


def test_structure_error_sees_neither_scale_nor_shift():
    truth = jnp.asarray(np.random.default_rng(1).random((2, 3, 8, 8)), jnp.float32)
    assert np.allclose(structure_error(3 * truth + 1, truth), 0, atol=1e-5)
    assert (structure_error(1 - truth, truth) > 0.5).all()
    assert (structure_error(truth.at[:, :, :4].set(0), truth) > 0.3).all()


def test_intervals_hold_the_mean_and_narrow_with_more_clips():
    values = np.random.default_rng(2).normal(5, 1, 400)
    few, all_ = bootstrap(values[:25]), bootstrap(values)
    assert few.low < few.mean < few.high and all_.high - all_.low < 0.5 * (few.high - few.low)
    assert abs((all_.high - all_.low) / 2 - 1.96 / 20) < 0.01
    assert bootstrap(np.array([1.0, np.nan])) == (1, 1, 1) and np.isnan(bootstrap(np.array([np.nan])).mean)
