"""The space-time transformer: what must be equal, whatever its weights are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax.errors import UserError
from gen1_jax.models.attended import attending_to, first_frame
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser import Denoiser, build_denoiser, denoiser_kind
from gen1_jax.models.denoiser_inputs import abstract_conditions, conditions_of, known_signal
from gen1_jax.models.dit import DiTConfig, SpaceTimeDiT
from gen1_jax.models.dit.rotary import angles, pairs_of_all_axes, rotated
from gen1_jax.models.flops import count_flops
from gen1_jax.models.growing import grow, with_inputs
from gen1_jax.models.module import Bound, abstract_parameters, flatten, initialise, parameter_count, unflatten
from gen1_jax.models.norms import LayerNorm, RMSNorm
from gen1_jax.models.selection import Selection
from gen1_jax.pretrained.sizes import SIZES

FACTORISED = DiTConfig(
    width=32,
    num_layers=1,
    num_attention_heads=2,
    feed_forward_dim=32,
    attention="factorised",
    shared_modulation=False,
    cross_attention_dim=12,
    max_frames=6,
)
FULL = dataclasses.replace(FACTORISED, attention="full", shared_modulation=True, num_layers=2)
both = pytest.mark.parametrize("config", [FACTORISED, FULL], ids=lambda config: config.attention)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def trained(config, amount=0.2, **how):
    """No layer is zero any more."""
    module = SpaceTimeDiT(config, **how)
    moved = {
        name: x + amount * normal(len(name), *x.shape) / (1 if x.ndim < 2 else len(x) ** 0.5 / 2)
        for name, x in flatten(initialise(module, 0)).items()
    }
    return Bound(module, unflatten(moved))


NETWORKS = {config.attention: trained(config) for config in (FACTORISED, FULL)}


def inputs(batch=2, frames=3, height=4, width=6, tokens=2):
    return dict(
        latents=jnp.asarray(normal(1, batch, frames, height, width, 4)),
        timesteps=jnp.arange(batch) * 400 + 3,
        content=jnp.asarray(normal(2, batch, tokens, 12)),
        structure=jnp.asarray(normal(3, batch, frames, height, width, 4)),
        structure_level=jnp.arange(batch) % 8,
    )


@both
def test_a_fresh_network_predicts_zeros_through_blocks_that_are_the_identity(config):
    x = inputs()
    module = SpaceTimeDiT(config)
    fresh = initialise(module, 0)
    np.testing.assert_array_equal(Bound(module, fresh)(**x), np.zeros((2, 3, 4, 6, 4)))
    # with a last layer, it depends on nothing but the patch itself: blocks add nothing
    fresh["linear_out"]["kernel"] = normal(4, *fresh["linear_out"]["kernel"].shape)
    y = Bound(module, fresh)(**x)
    moved = Bound(module, fresh)(**(x | {"latents": x["latents"].at[:, 1, :2, :2].add(1.0), "content": -x["content"]}))
    changed = np.abs(moved - y).max(-1) > 0
    assert changed[:, 1, :2, :2].all() and changed.sum() == 2 * 4


@both
def test_the_image_model_is_each_frame_by_itself(config):
    """Equation 10's mu_pi; pictures and videos as one batch are what they are apart."""
    network, x = NETWORKS[config.attention], inputs(batch=1)
    told = conditions_of(config, x["content"], x["structure"], x["structure_level"])
    video, _ = network.denoise(x["latents"], x["timesteps"], told)
    still, _ = network.denoise(x["latents"], x["timesteps"], told.frames())
    one_by_one = [
        network(**(x | {name: x[name][:, i : i + 1] for name in ("latents", "structure")}))[:, 0] for i in range(3)
    ]
    assert relative_error(still, np.stack(one_by_one, axis=1)) < 1e-5
    assert jnp.abs(video - still).max() > 1e-2

    branches = told.frames().together(told.without_content(), told)
    rows, _ = network.denoise(x["latents"].repeat(3, axis=0), x["timesteps"].repeat(3), branches)
    null, _ = network.denoise(x["latents"], x["timesteps"], told.without_content())
    assert relative_error(rows, jnp.concatenate([still, null, video])) < 1e-5


@both
def test_frames_see_each_other_in_their_order(config):
    network, x = NETWORKS[config.attention], inputs(batch=1)
    video = network(**x)
    moved = network(**(x | {"latents": x["latents"].at[:, 2].add(1.0)}))
    assert jnp.abs(moved - video)[:, 0].max() > 1e-3
    backwards = network(**(x | {name: x[name][:, ::-1] for name in ("latents", "structure")}))[:, ::-1]
    assert jnp.abs(backwards - video).max() > 1e-3


@both
def test_clips_know_nothing_of_each_other(config):
    network, x = NETWORKS[config.attention], inputs()
    order = jnp.array([1, 0])
    assert relative_error(network(**{name: y[order] for name, y in x.items()}), network(**x)[order]) < 1e-5


@both
def test_all_that_it_is_told_reaches_the_output(config):
    network, x = NETWORKS[config.attention], inputs(batch=1)
    base = network(**x)
    for changed in (
        {"timesteps": x["timesteps"] + 300},
        {"structure_level": jnp.array([5])},
        {"content": x["content"] * 0},
        {"structure": -x["structure"]},
    ):
        assert jnp.abs(network(**(x | changed)) - base).max() > 1e-4, changed.keys()


def test_positions_turn_by_their_distance_alone():
    pairs = pairs_of_all_axes(16)
    assert sum(pairs) == 8 and all(pairs)
    by = angles(pairs, 3, 4, 5).reshape(3, 4, 5, 8)
    query, key = normal(0, 1, 1, 2, 16), normal(1, 1, 1, 2, 16)
    at = lambda x, *where: rotated(jnp.asarray(x), by[where][None])
    scores = lambda a, b: np.einsum("nshd,nshd->h", at(query, *a), at(key, *b))
    np.testing.assert_allclose(scores((1, 2, 3), (0, 1, 1)), scores((2, 3, 4), (1, 2, 2)), rtol=1e-4)
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert np.abs(scores((1, 2, 3), (0, 1, 1)) - scores(other, (0, 1, 1))).max() > 1e-3
    assert rotated(jnp.ones((1, 1, 1, 16), jnp.bfloat16), by[1, 1, 1][None]).dtype == jnp.bfloat16


def test_norms_without_and_with_a_mean():
    x = normal(0, 5, 8)
    for norm, expected in (
        (RMSNorm(8), x / np.sqrt((x**2).mean(-1, keepdims=True))),
        (LayerNorm(8), (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)),
    ):
        norm.config = None
        np.testing.assert_allclose(Bound(norm, initialise(norm, 0))(x), expected, atol=1e-4)


@both
def test_recomputed_activations_change_no_gradient_and_half_precision_little(config):
    config = dataclasses.replace(config, num_layers=1)
    network, x = trained(config), inputs(batch=1, frames=2)
    gradient = lambda module: jax.jit(jax.grad(lambda p: jnp.square(Bound(module, p).apply(p, **x)).mean()))(
        network.params
    )
    plain, remat = (flatten(gradient(SpaceTimeDiT(config, remat=remat))) for remat in (False, True))
    for name, value in plain.items():
        assert jnp.abs(value).max() > 0, name
        np.testing.assert_allclose(remat[name], value, atol=1e-5, err_msg=name)
    half = Bound(SpaceTimeDiT(config, dtype=jnp.bfloat16), network.params)(**x)
    assert half.dtype == jnp.float32 and relative_error(half, network(**x)) < 0.05


def test_training_on_images_leaves_what_is_between_frames_the_identity():
    config = dataclasses.replace(FACTORISED, shared_modulation=True)
    network, fresh = trained(config), initialise(SpaceTimeDiT(config), 0)
    params = network.params | {"temporal": fresh["temporal"]}
    assert Selection(("motion",)).chosen(params) == {"temporal": params["temporal"]}
    told = conditions_of(config, *(inputs()[name] for name in ("content", "structure")))
    video, still = (
        Bound(network.module, params).denoise(inputs()["latents"], inputs()["timesteps"], x)[0]
        for x in (told, told.frames())
    )
    np.testing.assert_array_equal(video, still)


@both
def test_new_inputs_add_nothing_until_they_are_trained(config):
    before, x = NETWORKS[config.attention], inputs()
    after = dataclasses.replace(with_inputs(config, ("depth", "edges", "known")), guidance_embedded=True)
    grown = Bound(SpaceTimeDiT(after), grow(before.params, config, after))
    depth, edges = Signal.of(x["structure"], x["structure_level"]), Signal.of(x["structure"] * 2)
    known = known_signal(x["latents"], jnp.ones((2, 3, 4, 6, 1)))
    told = Conditions(content={"image": x["content"]}, structure={"depth": depth, "edges": edges, "known": known})
    expected, found = before(**x), []
    for conditions in (told, dataclasses.replace(told, structure={"depth": depth}), told.with_guidance(3.0, 0.5)):
        found.append(grown.denoise(x["latents"], x["timesteps"], conditions)[0])
        assert relative_error(found[-1], expected) < 1e-5
    with pytest.raises(UserError, match="from scratch"):
        grow(before.params, SIZES["tiny"].unet, config)


def test_what_it_cannot_be_told_is_refused_in_a_line():
    network, x = NETWORKS["full"], inputs()
    assert isinstance(build_denoiser(FULL), Denoiser)
    with pytest.raises(UserError, match="max_frames"):
        network(**inputs(frames=7))
    with pytest.raises(UserError, match="patches of 2x2"):
        network(**inputs(height=5))
    with pytest.raises(UserError, match="needs structure"):
        network(**(x | {"structure": None}))
    with attending_to(first_frame), pytest.raises(UserError, match="is a dit"):
        network.apply(network.params, **x)
    with pytest.raises(UserError, match="multiple of 8"):
        DiTConfig(width=100)
    with pytest.raises(UserError, match="one of unet, dit"):
        denoiser_kind("mlp")


def forward_flops(config, frames):
    module = config.build("unet", jnp.bfloat16)
    network = Bound(module, abstract_parameters(module))
    shape = (1, frames, config.height // config.vae.downscale, config.width // config.vae.downscale, 4)
    told = abstract_conditions(config.unet, shape, 1, jnp.bfloat16)
    latents, timesteps = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    run = lambda params, *args: network.apply(params, *args, method="denoise")[0]
    return parameter_count(network.params), count_flops(run, network.params, latents, timesteps, told)


def test_full_size_and_its_operations_by_hand():
    parameters, counted = forward_flops(SIZES["dit"], 8)
    assert 1.2e9 < parameters < 1.35e9
    width, tokens, frames, layers = 1536, 8 * 16 * 28, 8, 28
    a_token = 4 * width**2 + 2 * width**2 + 3 * width * 6144 + 2 * tokens * width  # self, cross, feed-forward, scores
    per_layer = tokens * a_token + frames * 2 * 768 * width  # the content's keys and values, for each frame
    ends = tokens * width * (4 * 12 + 16) + 256 * width + width**2 + (6 + 2) * width**2
    assert counted == 2 * (layers * per_layer + ends)


def test_nanos_transformer_is_as_large_and_as_dear_as_its_unet():
    for frames in (8, 1):
        unet, dit = (forward_flops(SIZES[name], frames) for name in ("nano", "nano-dit"))
        assert all(0.7 < ours / theirs < 1.05 for ours, theirs in zip(dit, unet, strict=True))
