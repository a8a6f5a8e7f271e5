"""TokenFlow: which frames are key frames, and what flows from them to the others."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gen1_jax.evaluation.rivals.tokenflow import Flow, KeyFrames
from gen1_jax.models.attention import Attention
from gen1_jax.models.module import initialise


def test_a_key_frame_of_each_interval_and_the_nearest_two_of_each_frame():
    for seed in range(5):
        keys = KeyFrames.drawn(10, 4, np.random.default_rng(seed))
        a, b, c = keys.frames
        assert 0 <= a < 4 <= b < 8 <= c < 10
        assert (keys.frames[keys.nearest[keys.frames]] == keys.frames).all()
        for frame in range(10):
            nearest, other = keys.frames[keys.nearest[frame]], keys.frames[keys.next_nearest[frame]]
            near, far = abs(nearest - frame), abs(other - frame)
            assert near == abs(keys.frames - frame).min() <= far
            assert nearest == other or min(nearest, other) < frame < max(nearest, other)
            if nearest != other:
                assert abs(keys.weight[frame] - 1 / (1 + np.exp(-far / (far + near)))) < 1e-6
    assert KeyFrames.drawn(3, 8, np.random.default_rng(0)).nearest.tolist() == [0, 0, 0]


def test_outputs_flow_to_where_the_input_is_alike():
    rng, clips, positions = np.random.default_rng(0), 2, 6
    module = Attention(8, 2)
    layer = nnx.merge(nnx.graphdef(module), initialise(module, 0))
    source = rng.normal(size=(clips, 4, positions, 8)).astype(np.float32)
    moved = [rng.permutation(positions) for _ in range(clips)]
    for clip in range(clips):
        source[clip, 1] = 3 * source[clip, 0, moved[clip]]  # the same in other places, and stronger
        source[clip, 2] = source[clip, 0, moved[clip]]
        source[clip, 3] = source[clip, 0]
    edits = rng.normal(size=(clips, 2, 4, positions, 8)).astype(np.float32)
    weights = np.array([1, 0.7, 0.6, 1], np.float32)
    keys = KeyFrames(np.array([0, 3]), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), weights)
    rows = np.concatenate([source[:, None], edits], axis=1).reshape(-1, positions, 8)
    out = Flow(3, keys).to_positions(layer, jnp.asarray(rows), clips * 3).reshape(clips, 3, 4, positions, 8)
    alone = layer(jnp.asarray(source.reshape(-1, positions, 8))).reshape(source.shape)
    np.testing.assert_allclose(out[:, 0], alone, atol=1e-5)
    joint = layer(jnp.asarray(edits[:, :, [0, 3]].reshape(clips * 2, -1, 8))).reshape(clips, 2, 2, positions, 8)
    np.testing.assert_allclose(out[:, 1:, [0, 3]], joint, atol=1e-5)
    for frame, shares in ((1, (0.7, 0.3)), (2, (0.4, 0.6))):
        for clip in range(clips):
            wanted = sum(share * joint[clip, :, k][:, moved[clip]] for k, share in enumerate(shares))
            np.testing.assert_allclose(out[clip, 1:, frame], wanted, atol=1e-5)
