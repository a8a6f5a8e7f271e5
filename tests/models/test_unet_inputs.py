"""Further inputs of a U-Net: the same network until they are trained, any subset of them, and what is known."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Signal
from gen1_jax.models.denoiser_inputs import conditions_of, known_signal
from gen1_jax.models.growing import grow, with_inputs
from gen1_jax.models.module import Bound, flatten, initialise
from gen1_jax.models.unet import SpaceTimeUNet, UNetConfig
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.growing import GrownModel, grown

INPUTS = ("depth", "canny", "tile", "known")
BEFORE = TINY.unet
AFTER = with_inputs(BEFORE, INPUTS)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


LATENTS, MAPS, TIMESTEPS = normal(2, 3, 4, 6, 4), normal(2, 3, 4, 6, 4, seed=1), jnp.array([3, 900])
MASK = jnp.zeros((2, 3, 4, 6, 1)).at[:, 0].set(1)
DEPTH = conditions_of(BEFORE, normal(2, 1, 16), MAPS, jnp.array([0, 5]))


@pytest.fixture(scope="module")
def params():
    return randomise(initialise(SpaceTimeUNet(BEFORE), 0), 7)


@pytest.fixture(scope="module")
def trained():
    """A network with all inputs, none of whose rows are zeros."""
    return Bound(SpaceTimeUNet(AFTER), randomise(initialise(SpaceTimeUNet(AFTER), 0), 8))


def randomise(params, seed):
    """Parameters as after training: none is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), params)


def told(**signals):
    return dataclasses.replace(DEPTH, structure=DEPTH.structure | signals)


def predict(network, conditions):
    return np.asarray(network.denoise(LATENTS, TIMESTEPS, conditions)[0])


def test_a_grown_network_is_the_same_bit_for_bit_and_to_rounding_whatever_the_new_inputs_are_given(params):
    larger = Bound(SpaceTimeUNet(AFTER), grow(params, BEFORE, AFTER))
    expected = predict(Bound(SpaceTimeUNet(BEFORE), params), DEPTH)
    np.testing.assert_array_equal(predict(larger, DEPTH), expected)
    given = told(canny=Signal.of(2 * MAPS), known=known_signal(LATENTS, MASK))
    np.testing.assert_allclose(predict(larger, given), expected, atol=1e-5)


def test_a_network_that_is_told_guidance_is_the_same_bit_for_bit_until_it_is_trained(params):
    after = dataclasses.replace(BEFORE, guidance_embedded=True)
    network = Bound(SpaceTimeUNet(after), grow(params, BEFORE, after))
    expected = predict(Bound(SpaceTimeUNet(BEFORE), params), DEPTH)
    for conditions in (DEPTH, DEPTH.with_guidance(1.0, 1.0), DEPTH.with_guidance(jnp.array([3.0, 1.0]), 1.5)):
        np.testing.assert_array_equal(predict(network, conditions), expected)
    trained = Bound(SpaceTimeUNet(after), randomise(network.params, 9))
    one, other = (predict(trained, DEPTH.with_guidance(jnp.array([1.0, w]), 1.0)) for w in (1.0, 3.0))
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[1] - other[1]).max() > 1e-3  # each clip has its own
    np.testing.assert_array_equal(predict(trained, DEPTH), one)
    with pytest.raises(UserError, match="not told scales of guidance"):
        predict(Bound(SpaceTimeUNet(BEFORE), params), DEPTH.with_guidance(1.0, 1.0))


def test_rows_go_by_name_and_the_newest_inputs_come_last_but_for_what_is_known():
    with_known = with_inputs(BEFORE, ("depth", "known"))
    after = with_inputs(with_known, ("known", "canny", "depth"))
    assert list(after.inputs.items()) == [("depth", 8), ("canny", 8), ("known", 5)] and after.in_channels == 4 + 21
    kernel = np.arange(17, dtype=np.float32)[None, None, :, None]
    rows = grow({"conv_in": {"kernel": kernel}}, with_known, after)["conv_in"]["kernel"].ravel()
    assert rows.tolist() == [*range(12), *[0] * 8, *range(12, 17)]


def test_an_absent_structure_is_one_without_weight_and_none_is_told_from_zeros(trained):
    zeros = jnp.zeros_like(MAPS)
    absent = predict(trained, DEPTH)
    weightless = predict(trained, told(canny=Signal.of(MAPS, weight=jnp.zeros(2))))
    np.testing.assert_allclose(absent, weightless, atol=1e-5)
    assert np.abs(absent - predict(trained, told(canny=Signal.of(zeros)))).max() > 1e-3
    nothing = dataclasses.replace(DEPTH, structure={})
    assert np.abs(absent - predict(trained, nothing)).max() > 1e-3


def test_what_is_known_counts_where_it_is_given_alone(trained):
    known = known_signal(LATENTS, MASK)
    assert known.maps.shape[-1] == 5 and not known.maps[:, 1:].any()
    seen = predict(trained, told(known=known))
    elsewhere = LATENTS.at[:, 1:].add(3.0)
    np.testing.assert_array_equal(seen, predict(trained, told(known=known_signal(elsewhere, MASK))))
    assert np.abs(seen - predict(trained, told(known=known_signal(LATENTS.at[:, 0].add(3.0), MASK)))).max() > 1e-3


def test_inputs_are_refused_by_name(params):
    for inputs, problem in {
        ("depth", "depth"): "depth twice",
        ("canny",): "lacks depth",
    }.items():
        with pytest.raises(UserError, match=problem):
            with_inputs(BEFORE, inputs)
    with pytest.raises(UserError, match="known"):
        UNetConfig(structure_kinds=("known",))
    with pytest.raises(UserError, match="takes only depth, not known"):
        predict(Bound(SpaceTimeUNet(BEFORE), params), told(known=known_signal(LATENTS, MASK)))


def test_a_grown_model_is_written_and_configurations_of_before_stay(tiny_model, tmp_path):
    source = ModelFolder(tiny_model)
    assert grown(source, BEFORE) is source
    model = grown(source, AFTER)
    assert isinstance(model, GrownModel) and model.parameters("vae").keys() == source.parameters("vae").keys()
    kernels = [flatten(m.parameters("unet"))["conv_in.kernel"] for m in (source, model)]
    np.testing.assert_array_equal(kernels[0], kernels[1][:, :, :12])
    assert kernels[1].shape[2] == AFTER.in_channels and not kernels[1][:, :, 12:].any()
    values = json.loads(json.dumps(model.config.to_dict()))
    assert Gen1Config.from_dict(values) == model.config
    assert values["unet"]["known"] is True and values["unet"]["structure_optional"] is True
    assert not {"known", "structure_optional"} & TINY.to_dict()["unet"].keys()


def test_conditions_of_a_window_cut_what_is_known(trained):
    part = told(known=known_signal(LATENTS, MASK)).window(1, 2)
    assert jax.tree.leaves(part.structure["known"])[0].shape[1] == 2
