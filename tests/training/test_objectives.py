"""The objectives of the small networks: they learn, in the right network only, and examples do not mix."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TINY

import gen1_jax
from gen1_jax.data.batch import Batch, encode_caption
from gen1_jax.models.module import Bound, flatten, initialise
from gen1_jax.models.prior import unclip_schedule
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.training.autoencoder import AutoencoderConfig, AutoencoderObjective
from gen1_jax.training.contrastive import ContrastiveConfig, ContrastiveObjective
from gen1_jax.training.monodepth import DepthObjective, MonodepthConfig
from gen1_jax.training.objective import Calibrated, Objective
from gen1_jax.training.photometric import PhotometricConfig
from gen1_jax.training.prior import PriorObjective, cosine_alphas_cumprod, prior_statistics

B, T, H, W = 4, 2, 32, 32
CAPTIONS = ["a red car", "a dog on snow", "two trees", "a glass house"]
OPTIMIZERS = {name: optax.adam(rate) for name, rate in dict(vae=1e-2, clip=3e-3, depth=3e-3, prior=1e-2).items()}
STILL = PhotometricConfig(gamma=0.0, gain=0.0, contrast=0.0, brightness=0.0, saturation=0.0, blur=0.0, noise=0.0)


@pytest.fixture(scope="module")
def tokenizer():
    text = (Path(gen1_jax.__file__).parent / "pretrained" / "nano" / "tokenizer.json").read_text()
    return CLIPTokenizer(text, TINY.clip.text, "nano")


@pytest.fixture(scope="module")
def clip_params():
    return initialise(TINY.build("clip", np.float32), 1)


@pytest.fixture(scope="module")
def objectives(tokenizer):
    return {
        "vae": AutoencoderObjective(TINY, AutoencoderConfig(kl_weight=1e-4)),
        "clip": ContrastiveObjective(TINY, tokenizer=tokenizer),
        "depth": DepthObjective(TINY, MonodepthConfig(photometric=STILL)),
        "prior": PriorObjective(TINY, tokenizer=tokenizer),
    }


@pytest.fixture(scope="module")
def steps(objectives):
    """One compiled step of each: (params, state, frozen, inputs, keys) -> params, state, losses, metrics, slopes."""
    return {name: make_step(objective, OPTIMIZERS[name]) for name, objective in objectives.items()}


def make_step(objective, optimizer):
    def mean_loss(params, frozen, inputs, keys):
        losses, metrics = objective.loss(params, frozen, inputs, keys)
        return losses.mean(), (losses, metrics)

    @jax.jit
    def step(params, state, frozen, inputs, keys):
        slopes, aux = jax.grad(mean_loss, argnums=(0, 1), has_aux=True)(params, frozen, inputs, keys)
        updates, state = optimizer.update(slopes[0], state)
        return optax.apply_updates(params, updates), state, *aux, slopes

    return step


@pytest.fixture(scope="module")
def losses_of(starts, steps):
    """losses_of(name, inputs, keys) -> losses, metrics; always of the same parameters."""

    def losses_of(name, inputs, keys):
        params, frozen = starts[name]
        return jax.device_get(steps[name](params, OPTIMIZERS[name].init(params), frozen, inputs, keys)[2:4])

    return losses_of


def make_batch(captions=CAPTIONS, **changes) -> Batch:
    """Smooth pictures whose brightness is their inverse depth, a gradient of its own direction each."""
    angle = np.linspace(0, 2, B)[:, None, None, None] + np.linspace(0, 0.2, T)[:, None, None]
    rows, columns = np.mgrid[:H, :W] / H - 0.5
    ramp = np.cos(angle) * rows + np.sin(angle) * columns
    tint = np.array([[1, 0.5, 0], [0, 1, 0.5], [0.5, 0, 1], [1, 1, 1]])[:, None, None, None]
    pixels = (128 + 120 * ramp[..., None] * tint).clip(0, 255).astype(np.uint8)
    arrays = dict(
        pixels=pixels,
        maps={"depth": (0.5 + 0.4 * ramp).astype(np.float32)[..., None]},
        structure_level=np.zeros(B, np.int32),
        content_index=np.array([0, 1, 0, 1], np.int32),
        caption=np.stack([encode_caption(c, 32) for c in captions]),
        record=np.zeros((B, 2), np.int32),
        kind="video",
        bucket=(H, W),
    )
    return Batch(**arrays | changes)


def keys_of(seed, count=B):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def starts(objectives, clip_params):
    """Parameters and frozen parameters of each."""
    found = {}
    for name, objective in objectives.items():
        params, frozen = initialise(objective.module, 0), {"clip": clip_params} if "clip" in objective.frozen else {}
        if isinstance(objective, Calibrated):
            params = objective.calibrate(params, frozen, iter([make_batch()] * 2))
        found[name] = params, frozen
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learns_a_batch(objectives, starts, steps, name):
    objective = objectives[name]
    assert isinstance(objective, Objective) and objective.component == name
    inputs = objective.inputs(make_batch())
    assert all(len(array) == B for array in inputs.values())
    first, frozen = starts[name]
    params, state, history = first, OPTIMIZERS[name].init(first), []
    for i in range(30):
        params, state, losses, metrics, (slope, of_frozen) = steps[name](params, state, frozen, inputs, keys_of(i))
        assert all(metric.shape == losses.shape == (B,) for metric in metrics.values())
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
        assert not any(np.any(x) for x in jax.tree.leaves(of_frozen))
        history.append(float(losses.mean()))
    assert np.mean(history[-5:]) < 0.4 * history[0], history
    idle = {path for path, x in flatten(params).items() if np.array_equal(x, flatten(first)[path])}
    assert idle == set(getattr(objective, "fixed", ()))


@pytest.mark.parametrize("name", ["vae", "depth", "prior"])
def test_examples_do_not_mix(objectives, losses_of, name):
    inputs, keys, order = objectives[name].inputs(make_batch()), keys_of(5), np.array([2, 0, 3, 1])
    losses, metrics = losses_of(name, inputs, keys)
    permuted, their_metrics = losses_of(name, {k: x[order] for k, x in inputs.items()}, keys[order])
    assert np.allclose(permuted, losses[order], rtol=1e-5)
    assert len(set(losses.tolist())) == B
    for metric, value in metrics.items():
        assert np.allclose(their_metrics[metric], value[order], rtol=1e-3, atol=1e-5, equal_nan=True), metric


def test_inputs_do_not_look_at_pictures(objectives):
    """Planning gives arrays that repeat one element and take no memory."""
    picture = np.broadcast_to(np.uint8(0), (B, 8, 512, 512, 3))
    depth = np.broadcast_to(np.float32(0), (B, 8, 512, 512, 1))
    for objective in objectives.values():
        inputs = objective.inputs(make_batch(pixels=picture, maps={"depth": depth}))
        assert all(x is picture or np.may_share_memory(x, depth) or x.nbytes < 10_000 for x in inputs.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_latents_alone_are_enough_for_the_prior_only(objectives, name):
    batch = make_batch(pixels=None, maps={}, content=np.ones((B, 16), np.float32))
    if name == "prior":
        assert set(objectives[name].inputs(batch)) == {"token_ids", "text_mask", "content"}
    else:
        with pytest.raises(ValueError, match="no pixels"):
            objectives[name].inputs(batch)


def test_autoencoder_sees_pictures_and_structure(objectives, losses_of):
    inputs, structure = objectives["vae"].inputs(make_batch()), []
    for i in range(25):
        _, metrics = losses_of("vae", inputs, keys_of(i))
        structure.append(np.isnan(metrics["latent_std"]))
        assert np.array_equal(structure[-1], ~np.isnan(metrics["l1_structure"]))
    assert 30 < np.sum(structure) < 70


def test_the_autoencoders_loss_is_the_weighted_sum_of_its_parts(starts):
    weights = AutoencoderConfig(squared_weight=3.0, gradient_weight=0.2, kl_weight=0.01, structure_probability=0.0)
    objective = AutoencoderObjective(TINY, weights)
    (params, frozen), inputs = starts["vae"], objective.inputs(make_batch())
    losses, parts = jax.jit(objective.loss)(params, frozen, inputs, keys_of(0))
    squared = 4 * 10 ** (-parts["psnr"] / 10)
    expected = parts["l1"] + 3 * squared + 0.2 * parts["gradient"] + 0.01 * parts["kl"]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_the_decoder_alone_learns_and_latents_stay(starts):
    objective = AutoencoderObjective(TINY, AutoencoderConfig(decoder_only=True))
    step, optimizer = make_step(objective, OPTIMIZERS["vae"]), OPTIMIZERS["vae"]
    (params, frozen), inputs, history = starts["vae"], objective.inputs(make_batch()), []
    first, state = flatten(params), optimizer.init(params)
    for i in range(20):
        params, state, losses, metrics, _ = step(params, state, frozen, inputs, keys_of(i))
        history.append(float(losses.mean()))
    assert np.mean(history[-5:]) < 0.6 * history[0] and "latent_std" not in metrics
    idle = {path.split(".")[0] for path, x in flatten(params).items() if np.array_equal(x, first[path])}
    moved = {path.split(".")[0] for path, x in flatten(params).items() if not np.array_equal(x, first[path])}
    assert (idle, moved) == ({"encoder", "quant_conv"}, {"decoder", "post_quant_conv"})


def test_latent_std_is_that_of_the_encoder(objectives):
    objective = objectives["vae"]
    params, batch = initialise(objective.module, 0), make_batch(pixels=make_batch().pixels[:, :1], maps={})
    mean = Bound(objective.module, params).encode(jnp.asarray(batch.pixels[:, 0], jnp.float32) / 127.5 - 1).mean
    _, metrics = jax.jit(objective.loss)(params, {}, objective.inputs(batch), keys_of(0))
    assert np.allclose(metrics["latent_std"], np.asarray(mean).std((1, 2, 3)), rtol=1e-4)
    assert np.isnan(metrics["l1_structure"]).all()


def test_same_captions_are_no_negatives(tokenizer):
    batch = make_batch(captions=["a red car", "two trees", "a red car", ""])
    params = initialise(TINY.build("clip", np.float32), 0)

    def losses(exclude):
        objective = ContrastiveObjective(TINY, ContrastiveConfig(exclude_same_captions=exclude), tokenizer=tokenizer)
        return jax.device_get(jax.jit(objective.loss)(params, {}, objective.inputs(batch), keys_of(0)))

    (excluded, metrics), (counted, _) = losses(True), losses(False)
    assert np.isclose(excluded[1], counted[1])  # its negatives are the same
    assert (excluded[[0, 2]] < counted[[0, 2]]).all()
    assert excluded[3] == 0 and np.isnan(metrics["image_to_text_accuracy"][3])  # no caption


def test_depth_is_trained_as_it_is_used(objectives):
    objective = objectives["depth"]
    bound = Bound(objective.module, initialise(objective.module, 0))
    images = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (3, 24, 20, 3)), jnp.float32)  # cubics overshoot
    assert np.allclose(bound.estimate(images), jax.jit(objective.estimate)(bound.params, images), rtol=1e-4, atol=1e-5)


def test_dropped_captions_are_the_empty_text(objectives, losses_of):
    captioned, empty = (objectives["prior"].inputs(make_batch(captions)) for captions in (CAPTIONS, [""] * B))
    both = [[losses_of("prior", inputs, keys_of(i))[0] for i in range(50)] for inputs in (captioned, empty)]
    assert 5 < np.sum(np.equal(*both)) < 40  # 10% of 200


def test_calibration_standardises_the_embeddings(objectives, starts, clip_params):
    objective, batch = objectives["prior"], make_batch()
    params, _ = starts["prior"]
    pictures = objective._clip.preprocess(jnp.asarray(batch.content_frame))
    embeddings = np.asarray(Bound(objective._clip, clip_params).encode_image(pictures))
    assert params["clip_mean"].shape == params["clip_std"].shape == (1, 16)
    assert np.allclose(params["clip_mean"][0], embeddings.mean(0), atol=1e-5)
    assert np.allclose(params["clip_std"][0], embeddings.std(0), atol=1e-5)
    with pytest.raises(ValueError, match="1 embeddings"):
        prior_statistics(embeddings[:1])


def test_noise_is_that_of_the_sampler():
    """What training adds, the sampler's steps take away: they lead from one marginal q(x_t | x_0) to the next."""
    schedule, alpha_bar = unclip_schedule(1000), cosine_alphas_cumprod().astype(np.float64)
    assert np.array_equal(schedule.timestep, np.arange(1000)[::-1])
    here, before = alpha_bar[::-1], np.append(alpha_bar[-2::-1], 1)
    a, b = (x.astype(np.float64) for x in (schedule.x0_weight, schedule.sample_weight))
    certain = slice(0, 700)  # nearer to step 0 the float32 sampler has few digits of 1 - alpha_bar
    assert np.allclose((a + b * np.sqrt(here))[certain], np.sqrt(before)[certain], atol=1e-5)
    assert np.allclose((b**2 * (1 - here) + schedule.noise_scale**2)[certain], (1 - before)[certain], atol=1e-5)
