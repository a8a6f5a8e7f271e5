"""Which structures an example has in training, and what of it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax.errors import UserError
from gen1_jax.models.growing import with_inputs
from gen1_jax.models.module import Bound
from gen1_jax.models.unet import SpaceTimeUNet
from gen1_jax.training.config import TrainConfig
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.known_masks import draw_known
from gen1_jax.training.signals import StructureSignals

KINDS = ("depth", "tile", "lineart")
UNET = with_inputs(TINY.unet, (*KINDS, "known"))
DROPPING = dict(structure_dropout=0.5, all_kept=0.1, none_kept=0.1)


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def signals(count=4, **settings):
    latents = jax.random.normal(jax.random.key(1), (count, 3, 4, 5, 4))
    inputs = {f"structure.{kind}": latents + i for i, kind in enumerate(KINDS)}
    inputs["structure_level"] = jnp.arange(count) % 8
    seen = {kind: TINY.structure_kind(kind) for kind in ("depth", "tile")}
    make = StructureSignals(UNET, seen, DenoisingConfig(**settings))
    hints = Bound(SpaceTimeUNet(UNET), {})  # it has no controls
    return latents, make(hints, {}, inputs, latents, keys(count))


def test_kinds_are_dropped_each_by_itself_and_now_and_then_together():
    _, told = signals(4000, **DROPPING)
    assert told.keys() == {"depth", "tile"}  # the one that the stage does not see is absent, and nothing is known
    depth, tile = (np.asarray(told[kind].weight) for kind in told)
    assert set(depth) == {0, 1}
    for share, expected in ((depth, 0.5), (tile, 0.5), (depth * tile, 0.1 + 0.8 * 0.25)):
        assert share.mean() == pytest.approx(expected, abs=0.03)
    _, told = signals(4000, structure_dropout=0.0001, one_kept=1.0)
    depth, tile = (np.asarray(told[kind].weight) for kind in told)
    assert (depth + tile == 1).all()  # of the two that are seen, not of the three that there are
    assert tile.mean() == pytest.approx(0.5 / 2, abs=0.03)
    _, told = signals(4000, structure_dropout=1.0, none_kept=0.2, all_kept=0.6)
    assert told["depth"].weight.mean() == pytest.approx(0.6, abs=0.03)
    assert DenoisingConfig(structure_dropout=0.5, source_dropout=0.3).dropout_of("source") == 0.3


def test_what_is_known_are_the_clean_latents_under_a_mask():
    latents, told = signals(16, **DROPPING, known_probability=0.5)
    maps, mask = jnp.split(told["known"].maps, [4], axis=-1)
    np.testing.assert_array_equal(maps, latents * mask)
    given = np.asarray(mask).any((1, 2, 3, 4))
    assert 0 < given.sum() < 16


@pytest.fixture(scope="module")
def masks():
    draw = jax.jit(jax.vmap(lambda key: draw_known(key, (5, 4, 6), 1.0)))
    return np.asarray(draw(keys(2000)))[..., 0]


def test_whole_frames_and_boxes_are_given(masks):
    assert set(masks.flat) == {0, 1}
    whole = masks.all((2, 3))
    of_frames = np.array([((frames == 0) | (frames == 1)).all() for frames in masks.mean((2, 3))])
    patterns = {tuple(row) for row in whole[of_frames].astype(int).tolist()}
    assert {(1, 0, 0, 0, 0), (1, 1, 1, 0, 0), (1, 0, 0, 0, 1), (0, 1, 0, 0, 1)} <= patterns
    boxes = masks[~of_frames]
    assert 0.15 < len(boxes) / len(masks) < 0.3  # a quarter, some of which are as large as the picture
    np.testing.assert_array_equal(boxes[:, 1], boxes[:, 4])
    assert 0.2 < (boxes[:, 0] != boxes[:, 1]).any((1, 2)).mean() < 0.3
    assert 0.3 < boxes[:, 1, 0, 0].mean() < 0.7  # what is around a box as often as the box


def test_a_picture_has_boxes_and_as_often_as_asked():
    draw = jax.jit(jax.vmap(lambda key: draw_known(key, (1, 4, 6), 0.3)))
    masks = np.asarray(draw(keys(2000)))
    assert masks.any((1, 2, 3, 4)).mean() == pytest.approx(0.3, abs=0.04)
    assert (masks.mean((1, 2, 3, 4)) % 1 > 0).mean() > 0.2


def test_recipes_say_what_is_given():
    kinds = ("depth", "tile", "source")
    data = dict(video=dict(sources=("x",)), image_probability=0.0, inputs="latents", structure=kinds)
    recipe = dict(data=data, stages=(dict(name="one", steps=1),), unet=dict(inputs=(*kinds, "known"), **DROPPING))
    config = TrainConfig.from_dict(recipe)
    family = config.family(TINY)
    assert (
        family.unet == with_inputs(TINY.unet, (*kinds, "known")) and config.family(family) == family
    )  # a run that goes on grows nothing
    assert config.seen_kinds(config.stages[0], family.unet) == kinds
    objective = DenoisingObjective(family, config.unet, structure=("depth", "tile"))
    assert tuple(objective.structures) == ("depth", "tile")
    with pytest.raises(UserError, match=r"give unet\.structure_dropout"):
        DenoisingConfig(inputs=("depth", "tile"))
    with pytest.raises(UserError, match="more than 1 together"):
        DenoisingConfig(structure_dropout=0.5, all_kept=0.6, none_kept=0.6)
