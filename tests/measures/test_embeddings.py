"""Cosines by hand, retrieval, and intervals of means."""

import numpy as np
import pytest

from gen1_jax.measures import bootstrap, embedding_distance, frame_consistency, prompt_consistency, retrieval


def test_consistency_by_hand():
    frames = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]], np.float32)
    assert frame_consistency(frames) == pytest.approx(0.5)  # the same direction, then a right angle
    assert frame_consistency(frames[:1]) == 1
    assert prompt_consistency(frames, np.array([5.0, 0.0], np.float32)) == pytest.approx(2 / 3)


def test_embedding_distance_by_hand():
    edits = np.array([[[1.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [1.0, 0.0]]])
    answers = np.array([[[5.0, 0.0], [2.0, 0.0]], [[-1.0, 0.0], [-4.0, 0.0]]])
    np.testing.assert_allclose(embedding_distance(edits, answers), [0.5, 2])  # equal and at a right angle; opposite
    np.testing.assert_allclose(embedding_distance(edits, edits), [0, 0], atol=1e-12)


def test_retrieval_by_groups_of_64():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(100, 8))
    assert retrieval(keys + 0.01 * rng.normal(size=keys.shape), keys).all()
    swapped = keys.copy()
    swapped[[3, 70]] = swapped[[70, 3]]  # of different groups but both in that of clips 36 to 99
    assert np.flatnonzero(retrieval(swapped, keys) == 0).tolist() == [3, 70]
    assert 0 < retrieval(rng.normal(size=(640, 8)), rng.normal(size=(640, 8))).mean() < 0.05


def test_retrieval_of_fewer_ways_is_easier():
    rng = np.random.default_rng(3)
    queries, keys = rng.normal(size=(640, 8)), rng.normal(size=(640, 8))
    assert abs(retrieval(queries, keys, ways=2).mean() - 1 / 2) < 0.06


def test_intervals_hold_the_mean_and_narrow_with_more_clips():
    values = np.random.default_rng(2).normal(5, 1, 400)
    few, all_ = bootstrap(values[:25]), bootstrap(values)
    assert few.low < few.mean < few.high and all_.high - all_.low < 0.5 * (few.high - few.low)
    assert abs((all_.high - all_.low) / 2 - 1.96 / 20) < 0.01
    assert bootstrap(np.array([1.0, np.nan])) == (1, 1, 1) and np.isnan(bootstrap(np.array([np.nan])).mean)
