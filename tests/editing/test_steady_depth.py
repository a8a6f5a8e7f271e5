"""Depth of clips: layers between frames, windows of them, and frames that were estimated alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax.editing.structures import StructureReader
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, flatten, initialise, unflatten
from gen1_jax.models.structure import aligned_frames, steady_depth
from gen1_jax.pretrained.family import NANO, Gen1Config

LAYERS = dict(temporal_frames=8, temporal_heads=2, temporal_norm_groups=4)
WITH_LAYERS = dataclasses.replace(TINY, depth=dataclasses.replace(TINY.depth, **LAYERS))


def scene(frames):
    """Inverse depth of something that moves over a slope."""
    rows, columns = np.mgrid[:24, :32]
    near = [np.hypot(rows - 12, columns - 4 - 0.3 * t) < 5 for t in range(frames)]
    return np.stack([1 + rows / 24 + 2 * x for x in near]).astype(np.float32)


def test_windows_of_any_scale_and_shift_become_one_clip():
    truth, rng, asked = scene(70), np.random.default_rng(0), []

    def estimate(frames):
        asked.append(frames)
        return frames * rng.uniform(0.5, 2) + rng.uniform(0, 1)

    for window in (32, 16):
        asked.clear()
        found = np.concatenate([*steady_depth(iter(truth), estimate, window)])
        scale = np.ptp(found[0]) / np.ptp(truth[0])
        np.testing.assert_allclose(found, scale * (truth - truth[0].min()) + found[0].min(), rtol=2e-6)
        assert all(len(frames) == window for frames in asked)
    np.testing.assert_array_equal(asked[2][0], truth[0])  # the first frame of the clip anchors every window
    np.testing.assert_array_equal(asked[1][2:6], truth[12:16])


def test_windows_need_no_more_than_they_see_and_fade_into_each_other():
    drawn = []
    frames = (drawn.append(i) or np.full((2, 2), i) for i in range(1000))
    levels = iter((0.0, 8.0))  # two windows that nothing can be done about: constant
    pieces = steady_depth(frames, lambda x: np.full(x.shape, next(levels)) + np.eye(2), 16)
    first = next(pieces)
    assert len(first) == 12 and len(drawn) == 16 + 10
    assert all(len(np.concatenate([*steady_depth(scene(n), lambda x: x, 16)])) == n for n in (1, 5, 16, 17, 26, 27))

    ramp = lambda x: x + 4.0 * (x[:, :1, :1] > 15)  # the second window is wrong where it is new
    found = np.concatenate([*steady_depth(np.arange(26.0)[:, None, None] * np.ones((1, 2, 2)), ramp, 16)])
    assert (np.diff(found[:, 0, 0]) > 0).all()


def test_frames_that_were_estimated_alone_get_one_scale():
    truth, rng = scene(40), np.random.default_rng(0)
    alone = np.stack([rng.uniform(0.8, 1.25) * x + rng.uniform(0, 0.3) for x in truth]).astype(np.float32)
    found = np.concatenate([*aligned_frames([alone[:7], alone[7:]])])
    flicker = lambda clip: np.abs(np.diff(clip[:, :, 30], axis=0)).mean()  # beside what moves
    assert flicker(found) < 0.1 * flicker(alone)
    np.testing.assert_array_equal(found[0], alone[0])
    np.testing.assert_allclose(np.concatenate([*aligned_frames([alone])]), found, rtol=1e-6)

    other = rng.uniform(0, 1, truth.shape[1:]).astype(np.float32)  # a cut: nothing to be aligned with
    np.testing.assert_array_equal(np.concatenate([*aligned_frames([alone[:2], other[None]])])[2], other)
    flat = np.ones((3, 4, 4), np.float32)
    np.testing.assert_array_equal(np.concatenate([*aligned_frames([flat])]), flat)


@pytest.fixture(scope="module")
def network():
    """The tiny depth network with layers between frames, which do something."""
    module = WITH_LAYERS.build("depth", np.float32)
    params = flatten(initialise(module, 0))
    kernels = [path for path in params if path.startswith("temporal.") and path.endswith("proj_out.kernel")]
    before = sum(np.abs(params[path]).sum() for path in kernels if ".ff." not in path)
    assert before == 0 and len(kernels) == 8
    rng = np.random.default_rng(0)
    changed = {path: rng.normal(0, 0.5, params[path].shape).astype(np.float32) for path in kernels}
    return Bound(module, unflatten(params | changed)), Bound(module, unflatten(params))


def test_fresh_layers_between_frames_change_nothing(network):
    trained, fresh = network
    pixels = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (1, 5, 32, 32, 3)), jnp.float32)
    alone = fresh(pixels[0])
    clips = jax.jit(lambda params, x: fresh.apply(params, x, method="clips"))
    np.testing.assert_allclose(clips(fresh.params, pixels)[0], alone, rtol=1e-5)
    together = clips(trained.params, pixels)[0]
    assert np.abs(together - alone).max() > 1e-2 * np.abs(alone).max()
    other = clips(trained.params, pixels.at[:, 4].set(0))[0]
    assert np.abs(other[0] - together[0]).max() > 0  # frames see each other
    np.testing.assert_allclose(trained(pixels[0]), alone, rtol=1e-5)  # pictures pass them by
    with pytest.raises(UserError, match="9 frames: this network sees 8"):
        trained.clips(jnp.zeros((1, 9, 32, 32, 3)))


def test_an_edit_reads_windows_where_the_network_has_layers_between_frames(network):
    trained, _ = network
    frames = np.random.default_rng(2).integers(0, 256, (11, 32, 32, 3), np.uint8)
    reader, told = StructureReader(WITH_LAYERS, "tiny", lambda name: trained), []
    kind = WITH_LAYERS.structure_kind("depth")
    maps = reader.estimate(kind, frames, lambda stage, *done: told.append((stage, *done)))
    assert maps.shape == (11, 32, 32, 1) and (maps.min(), maps.max()) == pytest.approx((-1, 1), abs=1e-6)
    assert told == [("depth", 6, 11), ("depth", 11, 11)]
    alone = trained.estimate(jnp.asarray(frames) / 127.5 - 1)
    assert np.abs(np.corrcoef(maps.ravel(), np.asarray(alone).ravel())[0, 1]) < 0.9999

    params = {name: value for name, value in trained.params.items() if name != "temporal"}
    plain = StructureReader(TINY, "tiny", lambda name: Bound(TINY.build("depth", np.float32), params))
    kind = dataclasses.replace(kind, steady=True)
    dimmed = np.linspace(1, 0.9, 11)[:, None, None, None]
    frames = (frames[:1] * dimmed).astype(np.uint8)
    by_frame, steady = (plain.estimate(k, frames) for k in (TINY.structure_kind("depth"), kind))
    assert by_frame.shape == steady.shape and not np.array_equal(by_frame, steady)


def test_models_of_before_say_nothing_of_it():
    for config in (NANO, TINY):
        assert not [key for key in config.to_dict()["depth"] if key.startswith(("temporal", "position_", "kind"))]
    assert Gen1Config.from_dict(WITH_LAYERS.to_dict()) == WITH_LAYERS
    with pytest.raises(UserError, match="temporal_heads is 3"):
        dataclasses.replace(WITH_LAYERS.depth, temporal_heads=3)
