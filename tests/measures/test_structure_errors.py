"""Errors of edges, normals, motion, regions and joints by hand."""

import jax.numpy as jnp
import numpy as np

from gen1_jax.measures import angular_error, edge_f1, endpoint_error, keypoint_distance, region_consistency


def test_edges_count_within_a_pixel():
    truth = np.zeros((4, 1, 9, 12), np.float32)
    truth[:3, 0, :, 4] = 1
    found = np.zeros_like(truth)
    found[0, 0, :, 5] = 1  # beside it
    found[1, 0, :, 7] = 1  # elsewhere
    found[2, 0, :, 4] = found[2, 0, :, 9] = 1  # right, and as many wrong ones
    np.testing.assert_allclose(edge_f1(jnp.asarray(found), jnp.asarray(truth)), [1, 0, 2 / 3, 1], atol=1e-6)
    np.testing.assert_allclose(edge_f1(jnp.asarray(found), jnp.asarray(truth), 0)[:2], [0, 0])


def test_angles_and_motions():
    up, left = (jnp.broadcast_to(jnp.array(v), (1, 2, 3, 4, 3)) for v in ([0.0, 1, 0], [1.0, 0, 0]))
    np.testing.assert_allclose(angular_error(up, left), [90], atol=1e-3)
    np.testing.assert_allclose(angular_error(up * 3, up + left), [45], atol=1e-3)
    flow = jnp.zeros((1, 3, 4, 4, 2)).at[:, -1].set(99)  # which no frame shows
    np.testing.assert_allclose(endpoint_error(flow + jnp.array([3.0, 4.0]), flow * 0), [5])
    np.testing.assert_allclose(endpoint_error(flow[:, -1:], flow[:, -1:] * 0), [99 * 2**0.5], rtol=1e-6)


def test_regions_need_no_names_but_must_last():
    truth = np.zeros((1, 2, 4, 4), np.int64)
    truth[..., 2:] = 1
    assert region_consistency(7 - 3 * truth, truth) == [1]
    finer = truth * 2 + (np.arange(4) % 2)
    assert region_consistency(finer, truth) == [1] and region_consistency(truth * 0, truth) == [0.5]
    jumping = truth.copy()
    jumping[:, 1] = 1 - truth[:, 1]
    assert region_consistency(jumping, truth) == [0.5]


def test_joints_count_where_both_are_seen():
    truth = jnp.array([[[[1.0, 1, 1], [5, 5, 1], [9, 9, 0]]], [[[0.0, 0, 0]] * 3]])
    moved = truth + jnp.array([3.0, 4.0, 0.0]) * jnp.array([[1.0], [0.0], [1.0]])
    distances = keypoint_distance(moved, truth, 10)
    np.testing.assert_allclose(distances[0], 0.25)
    assert np.isnan(distances[1])
