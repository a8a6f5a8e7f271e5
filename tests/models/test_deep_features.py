"""The U-Net's finest level alone, with deep features of an evaluation before (DeepCache)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error
from test_conditions import normal, trained

from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import Bound, flatten, unflatten
from gen1_jax.models.unet import ControlConfig, UNetConfig

CONFIG = UNetConfig(
    block_out_channels=(4, 8),
    attention_levels=(True, False),
    layers_per_block=1,
    num_attention_heads=2,
    cross_attention_dim=6,
    norm_num_groups=2,
    max_frames=4,
)
PUBLIC = dataclasses.replace(
    CONFIG,
    structure_channels=0,
    content_kind="text",
    temporal="animatediff",
    controls=tuple(ControlConfig(kind=kind, hint_channels=(4, 8)) for kind in ("depth", "canny")),
)
DEEP = ("down_blocks.1.", "down_blocks.0.downsample.", "mid_block.", "up_blocks.0.", "mid_zero.", "down_zero.2.")
TIMESTEPS = jnp.array([7, 700])


def told(config, batch=2, frames=3, height=5, width=6):
    """Of each branch of guidance, in one batch; latents have an odd height, so that skips are cropped."""
    channels = config.structure_channels or config.block_out_channels[0]
    maps = (normal(i, batch, frames, height, width, channels) for i in range(2))
    signals = {kind: Signal.of(x) for kind, x in zip(config.kinds, maps, strict=False)}
    video = Conditions(content={config.content_kind: normal(4, batch, 1, 6)}, structure=signals)
    null = video.without_content()
    return null.frames().together(null, video)


@pytest.fixture(scope="module", params=[CONFIG, PUBLIC], ids=["gen1", "public"])
def unet(request):
    return trained(request.param)


def spoiled(unet):
    """The same with nothing but nan in whatever lies deeper than the finest level."""
    flat = flatten(unet.params)
    deep = {path for path in flat if any(f".{part}" in f".{path}" for part in DEEP)}
    assert 0 < len(deep) < len(flat)
    return Bound(unet.module, unflatten({path: x * jnp.nan if path in deep else x for path, x in flat.items()}))


def test_features_of_the_same_evaluation_give_its_prediction_by_the_finest_level_alone(unet):
    latents, conditions = normal(1, 2, 3, 5, 6, 4).repeat(3, axis=0), told(unet.config)
    asked = latents, TIMESTEPS.repeat(3), conditions
    whole, features = unet.denoise(*asked)
    abstract = unet.module.deep_features(latents.shape)
    assert (abstract.shape, abstract.dtype) == (features.shape, features.dtype)
    in_part, kept = spoiled(unet).denoise(*asked, features)
    assert relative_error(in_part, whole) < 1e-5
    np.testing.assert_array_equal(kept, features)
    assert not jnp.isfinite(spoiled(unet).denoise(*asked)[0]).any()


def test_features_of_another_step_give_another_prediction_which_still_depends_on_latents_and_structure(unet):
    latents, conditions, timesteps = normal(1, 6, 3, 5, 6, 4), told(unet.config), TIMESTEPS.repeat(3)
    whole, _ = unet.denoise(latents, timesteps, conditions)
    _, before = unet.denoise(latents + 0.3 * normal(2, *latents.shape), timesteps + 50, conditions)
    in_part, _ = unet.denoise(latents, timesteps, conditions, before)
    assert 1e-4 < relative_error(in_part, whole) < 1
    other, _ = unet.denoise(-latents, timesteps, conditions, before)
    assert relative_error(other, in_part) > 1e-2
    weightless = {kind: dataclasses.replace(x, weight=0 * x.weight) for kind, x in conditions.structure.items()}
    without = dataclasses.replace(conditions, structure=weightless)
    assert relative_error(unet.denoise(latents, timesteps, without, before)[0], in_part) > 1e-3


def test_a_network_of_one_level_has_none_that_is_deeper():
    one = dataclasses.replace(CONFIG, block_out_channels=(8,), attention_levels=(False,))
    assert CONFIG.keeps_features and not one.keeps_features
