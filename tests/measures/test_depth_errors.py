"""Errors of inverse depth against numpy."""

import jax.numpy as jnp
import numpy as np
from inverse_depth import correlated_pair, lstsq
from oracle import relative_error

from gen1_jax.measures import align_inverse_depth, depth_errors, structure_error


def test_alignment_is_least_squares():
    prediction, target = correlated_pair()
    expected = [lstsq(p.astype(np.float64), t) for p, t in zip(prediction, target, strict=True)]
    assert relative_error(align_inverse_depth(jnp.asarray(prediction), jnp.asarray(target)), expected) < 1e-4


def test_depth_errors_are_of_depth():
    prediction, target = correlated_pair()
    abs_rel, delta = [], []
    for p, t in zip(prediction.astype(np.float64), target.astype(np.float64), strict=True):
        far = 4 / t.max()
        z, truth = 1 / np.maximum(lstsq(p, t), 1 / far), np.minimum(1 / t, far)
        abs_rel.append((np.abs(z - truth) / truth).mean())
        delta.append((np.maximum(z / truth, truth / z) < 1.25).mean())
    ours = depth_errors(jnp.asarray(prediction), jnp.asarray(target), depth_range=4.0)
    assert relative_error(ours[0], abs_rel) < 1e-4
    assert np.allclose(ours[1], delta, atol=2 / target[0].size)
    assert np.isnan(depth_errors(jnp.asarray(prediction), -jnp.asarray(target), depth_range=4.0)).all()


def test_structure_error_sees_neither_scale_nor_shift():
    truth = jnp.asarray(np.random.default_rng(1).random((2, 3, 8, 8)), jnp.float32)
    assert np.allclose(structure_error(3 * truth + 1, truth), 0, atol=1e-5)
    assert (structure_error(1 - truth, truth) > 0.5).all()
    assert (structure_error(truth.at[:, :, :4].set(0), truth) > 0.3).all()


def test_structure_error_is_in_mean_deviations_of_the_truth():
    prediction, target = (x[:1] for x in correlated_pair(size=(12, 8)))
    clip = lambda x: jnp.asarray(x).reshape(1, 3, 4, 8)
    truth = target[0].astype(np.float64) - np.median(target[0])
    truth /= np.abs(truth).mean()
    expected = np.abs(lstsq(prediction[0].astype(np.float64), truth) - truth).mean()
    assert 0.01 < expected < 1
    np.testing.assert_allclose(structure_error(clip(prediction), clip(target)), [expected], rtol=1e-3)
    assert structure_error(clip(prediction), clip(np.full_like(target, 0.3))).tolist() == [0]
