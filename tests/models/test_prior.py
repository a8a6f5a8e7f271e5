import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error

from gen1_jax.models.module import Bound, abstract_parameters, initialise
from gen1_jax.models.prior import PriorConfig, PriorTransformer, unclip_schedule, unclip_step
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_prior import PRIOR, prior_config
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import read_json, read_tensors

TINY = dict(num_attention_heads=2, attention_head_dim=16, num_layers=2, embedding_dim=24, num_embeddings=7)


def randomise_prior(model):
    import torch

    randomise(model)
    with torch.no_grad():
        model.proj_in.weight.mul_(4)  # x0 depends on x, as after training
        model.positional_embedding.normal_(0, 0.2)
        model.prd_embedding.normal_(0, 0.2)
        model.clip_mean.normal_(0, 0.2)
        model.clip_std.uniform_(0.5, 1.5)
    return model


def texts(config, *lengths, seed=0):
    """Embedding, states and mask of texts of some numbers of tokens."""
    rng = np.random.default_rng(seed)
    batch, tokens = len(lengths), config.num_embeddings
    return (
        jnp.asarray(rng.normal(size=(batch, config.embedding_dim)), jnp.float32),
        jnp.asarray(rng.normal(size=(batch, tokens, config.text_hidden_size)), jnp.float32),
        jnp.arange(tokens) < jnp.array(lengths)[:, None],
    )


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def to_torch(*arrays):
    import torch

    return [torch.tensor(np.asarray(x)) for x in arrays]


def torch_prior(model, x, timesteps, text):
    import torch

    with torch.no_grad():
        return model(*to_torch(x, timesteps, *text)).predicted_image_embedding


def torch_scheduler():
    from diffusers import UnCLIPScheduler

    return UnCLIPScheduler(  # karlo-v1-alpha's prior_scheduler
        variance_type="fixed_small_log", clip_sample=True, clip_sample_range=10.0, prediction_type="sample"
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from diffusers import PriorTransformer as TheirPrior

    folder = tmp_path_factory.mktemp("prior")
    model = randomise_prior(TheirPrior(**TINY))
    model.save_pretrained(folder)
    module = PriorTransformer(prior_config(read_json(folder / "config.json")))
    tensors = read_tensors(folder)
    return model, tensors, Bound(module, PRIOR.fill(abstract_parameters(module), tensors, "prior"))


def test_imported_model_equals_diffusers_with_partial_masks(tiny):
    model, _, bound = tiny
    text = texts(bound.config, 2, 5, 7)
    x, timesteps = 3 * normal(3, 24), jnp.array([0, 431, 999])
    ours = bound(x, timesteps, *text)
    assert relative_error(ours, torch_prior(model, x, timesteps, text)) <= 1e-4
    full = bound(x, timesteps, *text[:2], jnp.ones_like(text[2]))
    assert relative_error(full[:2], ours[:2]) > 1e-2  # the mask matters
    np.testing.assert_allclose(full[2], ours[2], rtol=1e-5)


def test_padding_is_not_read(tiny):
    _, _, bound = tiny
    embedding, states, mask = texts(bound.config, 2, 4)
    x, timesteps = normal(2, 24), jnp.array([10, 900])
    other = jnp.where(mask[..., None], states, 7.0)
    np.testing.assert_allclose(
        bound(x, timesteps, embedding, states, mask), bound(x, timesteps, embedding, other, mask), atol=1e-5
    )


@pytest.mark.parametrize("steps", [2, 7, 25, 1000])
def test_every_step_equals_unclip_scheduler(steps):
    import torch

    scheduler, schedule = torch_scheduler(), unclip_schedule(steps)
    scheduler.set_timesteps(steps)
    np.testing.assert_array_equal(schedule.timestep, scheduler.timesteps.numpy())
    checked = range(steps) if steps < 100 else (0, 1, 500, steps - 2, steps - 1)
    for i in checked:
        x0, x = 6 * normal(2, 16, seed=i), normal(2, 16, seed=i + steps)  # some of x0 is beyond the clip range
        generator = torch.Generator().manual_seed(i)
        noise = torch.randn(2, 16, generator=torch.Generator().manual_seed(i))
        previous = scheduler.timesteps[i + 1] if i + 1 < steps else None
        theirs = scheduler.step(
            *to_torch(x0), scheduler.timesteps[i], *to_torch(x), prev_timestep=previous, generator=generator
        ).prev_sample
        row = jax.tree.map(lambda values, i=i: values[i], schedule)
        ours = unclip_step(row, x0, x, jnp.asarray(noise.numpy()))
        assert relative_error(ours, theirs) <= 1e-5, i


def torch_sampling(model, noise, text, uncond, guidance_scale):
    """The prior's part of UnCLIPPipeline.__call__, with the noise given."""
    import torch

    steps = len(noise) - 1
    scheduler = torch_scheduler()
    scheduler.set_timesteps(steps)
    x = to_torch(noise[0])[0]
    both = [torch.cat(pair) for pair in zip(to_torch(*uncond), to_torch(*text), strict=True)]
    for i, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            x0 = model(torch.cat([x, x]), t, *both).predicted_image_embedding
        empty, full = x0.chunk(2)
        previous = scheduler.timesteps[i + 1] if i + 1 < steps else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "diffusers.schedulers.scheduling_unclip.randn_tensor", lambda *a, i=i, **k: to_torch(noise[i + 1])[0]
            )
            x = scheduler.step(empty + guidance_scale * (full - empty), t, x, prev_timestep=previous).prev_sample
    return model.post_process_latents(x).detach()


def test_sampling_equals_a_torch_loop_with_the_same_noise(tiny):
    model, _, bound = tiny
    text, uncond = texts(bound.config, 4, 7), texts(bound.config, 2, 2, seed=5)
    noise = normal(26, 2, 24)
    ours = bound.denoise(noise, text, 4.0, uncond)
    assert relative_error(ours, torch_sampling(model, noise, text, uncond, 4.0)) <= 1e-4


def test_sampling_is_determined_by_its_key(tiny):
    _, _, bound = tiny
    text = texts(bound.config, 4, 7)
    one, again, other = (bound.sample(*text, jax.random.key(seed), num_inference_steps=3) for seed in (3, 3, 4))
    assert one.shape == (2, 24)
    assert one.dtype == jnp.float32
    np.testing.assert_array_equal(one, again)
    assert relative_error(one, other) > 1e-2


def test_guidance_needs_the_empty_text_and_its_scale_is_traced(tiny):
    _, _, bound = tiny
    text, key = texts(bound.config, 4, 7), jax.random.key(3)
    names = ("uncond_text_embedding", "uncond_hidden_states", "uncond_mask")
    uncond = dict(zip(names, texts(bound.config, 2, seed=5), strict=True))
    traces = []

    @jax.jit
    def sample(params, scale):
        traces.append(scale)
        return bound.apply(params, *text, key, scale, **uncond, method="sample", num_inference_steps=3)

    plain = bound.sample(*text, key, num_inference_steps=3)  # guidance off
    assert relative_error(sample(bound.params, 1.0), plain) < 1e-4
    assert relative_error(sample(bound.params, 4.0), plain) > 1e-2
    assert len(traces) == 1
    with pytest.raises(ValueError, match="go together"):
        bound.sample(*text, key, uncond_mask=uncond["uncond_mask"])
    with pytest.raises(ValueError, match="num_inference_steps is 1,"):
        bound.sample(*text, key, num_inference_steps=1)


def test_layout_is_strict_and_invertible(tiny):
    _, tensors, bound = tiny
    written = PRIOR.to_theirs(bound.params)
    assert written.keys() == tensors.keys()
    for name, value in written.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)

    empty = abstract_parameters(bound.module)
    PRIOR.fill(empty, tensors | {"causal_attention_mask": np.zeros((1, 11, 11))}, "prior")  # a constant
    with pytest.raises(LayoutError, match=r"lacks.*clip_mean"):
        PRIOR.fill(empty, {k: v for k, v in tensors.items() if k != "clip_mean"}, "prior")
    with pytest.raises(LayoutError, match=r"does not: norm_in\.weight"):
        PRIOR.fill(empty, tensors | {"norm_in.weight": np.ones(32)}, "prior")
    with pytest.raises(LayoutError, match="another shape: positional_embedding is"):
        PRIOR.fill(empty, tensors | {"positional_embedding": np.zeros((1, 7, 32))}, "prior")


def test_configurations():
    from diffusers import PriorTransformer as TheirPrior

    assert prior_config({}) == PriorConfig()
    config = TheirPrior(**TINY, clip_embed_dim=24, time_embed_dim=32).config
    assert prior_config(dict(config)) == PriorConfig(**TINY, text_hidden_size=24)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("norm_in_type", "layer"),
        ("embedding_proj_norm_type", "layer"),
        ("encoder_hid_proj_type", None),
        ("added_emb_type", None),
        ("additional_embeddings", 3),
        ("time_embed_dim", 8192),
        ("embedding_proj_dim", 1280),
        ("clip_embed_dim", 1280),
        ("num_layers", "20"),
        ("num_attention_heads", 0),
        ("_class_name", "UNet2DConditionModel"),
    ],
)
def test_unsupported_configurations_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        prior_config({key: value})


def test_fresh_model_samples_finite_embeddings():
    module = PriorTransformer(PriorConfig(**TINY, text_hidden_size=20), dtype=jnp.bfloat16)
    bound = Bound(module, initialise(module, 0))
    assert bound.params["clip_std"].min() == 1
    x = bound.sample(*texts(bound.config, 3), jax.random.key(0), num_inference_steps=3)
    assert x.dtype == jnp.float32
    assert jnp.isfinite(x).all()
    assert jnp.abs(x).max() > 0


@pytest.mark.slow
def test_full_size_import_equals_diffusers():
    """1 B parameters, 4 GB, shared by both models: ours are views of torch's."""
    import torch
    from diffusers import PriorTransformer as TheirPrior

    with torch.device("meta"):
        model = TheirPrior()
    config = prior_config(dict(model.config))
    assert config == PriorConfig()
    model = randomise_prior(model.to_empty(device="cpu"))
    model.causal_attention_mask.copy_(torch.full((1, 81, 81), -10000.0).triu(1))  # a buffer, lost on "meta"
    text, x, timesteps = texts(config, 9, 77), normal(2, 768), jnp.array([20, 800])
    theirs = torch_prior(model, x, timesteps, text).numpy()

    module = PriorTransformer(config)
    tensors = {name: value.detach().numpy() for name, value in model.named_parameters()}
    params = PRIOR.fill(abstract_parameters(module), tensors, "prior")
    del model, tensors
    ours = Bound(module, params)(x, timesteps, *text)
    error = relative_error(ours, theirs)
    print(f"relative error {error:.2e}")
    assert error <= 1e-4
