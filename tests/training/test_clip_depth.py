"""What the layers between frames of the depth network learn."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from gen1_jax.errors import UserError
from gen1_jax.measures import depth_change_error
from gen1_jax.models.module import abstract_parameters, flatten, initialise
from gen1_jax.pretrained.family import NANO, TINY
from gen1_jax.training.learned import beginning
from gen1_jax.training.losses import clip_depth_loss
from gen1_jax.training.monodepth import ClipDepthObjective, MonodepthConfig
from gen1_jax.training.recipe import read_recipe

RECIPE = Path(__file__).parents[2] / "configs" / "nano_depth.py"
SETTINGS = MonodepthConfig(trained=("motion",), temporal_frames=4, temporal_norm_groups=4)
NUMBERS = dict(trim=0.2, gradient_weight=0.5, scales=2, temporal_weight=10.0, still=0.05)
LOSS = jax.jit(functools.partial(clip_depth_loss, **NUMBERS))
CHANGES = jax.jit(depth_change_error)


def clip():
    rows, columns = np.mgrid[:16, :16] / 16
    return np.stack([1 + rows + 0.01 * t * columns for t in range(4)])[None].astype(np.float32)


def test_the_loss_sees_flicker_and_neither_scale_nor_shift():
    target = clip()
    loss, changes = LOSS(3 * target + 2, target)
    np.testing.assert_allclose([loss[0], changes[0]], 0, atol=1e-4)
    flickers = target + np.float32(0.1) * np.array([1, -1, 1, -1], np.float32).reshape(1, 4, 1, 1)
    steady = target + np.float32(0.1) * np.sin(np.arange(16, dtype=np.float32) * 2)[:, None]
    flickering, off = (LOSS(x, target) for x in (flickers, steady))
    assert flickering[1] > 20 * off[1] and flickering[0] > off[0] > 0
    deviation = np.abs(target - np.median(target)).mean()
    np.testing.assert_allclose(flickering[1], 0.2 / deviation, rtol=0.2)
    moved = target.copy()
    moved[:, 2:, :8] += 1  # a change that is true is not compared
    np.testing.assert_allclose(LOSS(moved, moved)[1], 0, atol=1e-4)
    assert LOSS(np.ones_like(target), np.ones_like(target))[0] == 0


def test_errors_that_change_are_measured_along_the_motion():
    truth = np.random.default_rng(0).random((1, 1, 6, 16), np.float32)
    moving = np.concatenate([truth, np.roll(truth, 2, -1), np.roll(truth, 4, -1)], axis=1)
    flow, ids = np.zeros((1, 3, 6, 16, 2), np.float32), np.ones((1, 3, 6, 16), np.int32)
    flow[..., 0] = 2
    np.testing.assert_allclose(CHANGES(2 * moving + 1, moving, flow, ids), 0, atol=1e-4)
    error = np.float32(0.3) * (moving > 0.7)
    carried = moving + error  # it goes with its surface
    flickering = moving + error * np.array([1, -1, 1], np.float32).reshape(1, 3, 1, 1)
    assert CHANGES(carried, moving, flow, ids) < 1e-3 < CHANGES(flickering, moving, flow, ids)


def test_only_the_layers_between_frames_learn():
    layers = dict(temporal_frames=4, temporal_heads=2, temporal_norm_groups=4)
    config = dataclasses.replace(TINY, depth=dataclasses.replace(TINY.depth, **layers))
    objective = ClipDepthObjective(config, SETTINGS)
    stored = initialise(TINY.build("depth", np.float32), 3)
    begun = jax.tree.map(np.asarray, beginning(objective.module, 0, stored))
    assert flatten(begun).keys() == flatten(abstract_parameters(objective.module)).keys()
    assert all(np.array_equal(value, flatten(begun)[path]) for path, value in flatten(stored).items())
    learned, base = objective.learned.initial(begun, 0), objective.learned.frozen(begun)
    assert {path.split(".")[0] for path in flatten(learned)} == {"temporal"}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
    depth = clip().repeat(2, -1).repeat(2, -2).repeat(2, 0)
    keys = jax.random.split(jax.random.key(0), 2)

    @jax.jit
    def slopes(learned, inputs, keys):
        def mean(learned):
            losses, metrics = objective.loss(objective.learned.weights(base, learned), {}, inputs, keys)
            return losses.mean(), metrics

        return jax.value_and_grad(mean, has_aux=True)(learned)

    (loss, metrics), found = slopes(learned, {"pixels": pixels, "depth": depth}, keys)
    assert np.isfinite(loss) and metrics.keys() == {"abs_rel", "delta_1", "changes"}
    outs = [value for path, value in flatten(found).items() if path.endswith("proj_out.kernel") and ".ff." not in path]
    assert len(outs) == 4 and all(np.abs(x).max() > 0 for x in outs)


def test_the_recipe_gives_nano_its_layers():
    config = read_recipe(f"{RECIPE}:video")
    depth = config.family(NANO).depth
    assert (depth.temporal_frames, config.objective, config.depth.trained) == (16, "clip_depth", ("motion",))
    assert config.data.video.frames == 16 and list(config.data.streams) == ["video"]
    assert config.family(config.family(NANO)) == config.family(NANO)
    assert read_recipe(RECIPE).family(NANO) == NANO
    with pytest.raises(UserError, match="no layers between frames"):
        ClipDepthObjective(TINY)
