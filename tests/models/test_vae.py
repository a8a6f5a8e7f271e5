import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error

from gen1_jax.models.module import Bound, abstract_parameters, parameter_count
from gen1_jax.models.vae import AutoencoderKL, Posterior, VAEConfig
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_vae import VAE, vae_config
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import read_json, read_tensors

TINY_TORCH = dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)
TINY = VAEConfig(**TINY_TORCH)
IMAGES, LATENTS = (5, 10, 18, 3), (5, 5, 9, 4)  # one shape for all that can share its compilation


def torch_vae(block_out_channels, **kwargs):
    from diffusers import AutoencoderKL as TorchVAE

    levels = len(block_out_channels)
    return randomise(
        TorchVAE(
            block_out_channels=block_out_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            **kwargs,
        )
    )


def images_of(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


def latents_of(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 3, shape), jnp.float32)


def parity(model, vae, images, latents):
    """Relative errors of mean, log-variance and decoded pictures."""
    import torch

    def channels_first(x):
        return torch.tensor(np.asarray(x)).permute(0, 3, 1, 2)

    with torch.no_grad():
        posterior = model.encode(channels_first(images)).latent_dist
        theirs = [posterior.mean, posterior.logvar, model.decode(channels_first(latents)).sample]
    ours = [*vae.encode(images), vae.decode(latents)]
    return [relative_error(a, b.permute(0, 2, 3, 1).numpy()) for a, b in zip(ours, theirs, strict=True)]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    model = torch_vae(**TINY_TORCH)
    model.save_pretrained(folder)
    module = AutoencoderKL(vae_config(read_json(folder / "config.json")))
    tensors = read_tensors(folder)
    return model, Bound(module, VAE.fill(abstract_parameters(module), tensors, "vae")), tensors


def test_imported_autoencoder_equals_diffusers(imported):
    model, vae, _ = imported
    assert vae.config == TINY
    assert max(parity(model, vae, images_of(*IMAGES), latents_of(*LATENTS))) <= 1e-4


def test_sizes_that_are_no_multiples_are_cut_as_in_diffusers(imported):
    import torch

    model, vae, _ = imported
    images = images_of(1, 11, 7, 3)
    with torch.no_grad():
        theirs = model.encode(torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)).latent_dist.mean
    assert relative_error(vae.encode(images).mean, theirs.permute(0, 2, 3, 1).numpy()) <= 1e-4


def test_log_variance_is_clipped(imported):
    _, vae, _ = imported
    quant_conv = vae.params["quant_conv"]
    bias = np.array([0, 0, 0, 0, -500, 500, -500, 500], np.float32)
    extreme = Bound(vae.module, vae.params | {"quant_conv": quant_conv | {"bias": bias}})
    posterior = extreme.encode(images_of(1, 8, 8, 3))
    np.testing.assert_array_equal(posterior.log_variance[0, 0, 0], [-30, 20, -30, 20])


def test_chunks_change_nothing_but_memory(imported):
    _, vae, _ = imported
    chunked = Bound(AutoencoderKL(TINY, frames_per_chunk=2), vae.params)
    images, latents = images_of(*IMAGES), latents_of(*LATENTS)  # five are chunks of 2, 2 and 1
    for ours, whole in (
        (chunked.encode(images[None]).mean[0], vae.encode(images).mean),
        (chunked.decode(latents[None])[0], vae.decode(latents)),
    ):
        assert relative_error(ours, whole) < 1e-5
    ours = vae.images_to_latents(images[0])  # no leading axis at all
    assert relative_error(ours, vae.encode(images).mean[0] * 0.18215) < 1e-5


def test_memory_does_not_grow_with_frames(imported):
    _, vae, _ = imported

    def temporary_bytes(frames):
        latents = jax.ShapeDtypeStruct((frames, 8, 8, 4), jnp.float32)
        module = Bound(AutoencoderKL(TINY, frames_per_chunk=2), vae.params)
        run = jax.jit(lambda params, z: module.apply(params, z, method="decode"))
        memory = run.lower(vae.params, latents).compile().memory_analysis()
        return memory.temp_size_in_bytes

    pictures = 4 * 64 * 16 * 16 * 3  # bytes; copies of the result itself may grow
    assert temporary_bytes(64) < temporary_bytes(4) + 2 * pictures


def test_unet_latents_are_scaled(imported):
    _, vae, _ = imported
    images, latents = images_of(*IMAGES), latents_of(*LATENTS)
    scaled, decoded = vae.images_to_latents(images), vae.latents_to_images(latents * 0.18215)
    assert relative_error(scaled, vae.encode(images).mean * 0.18215) < 1e-5
    assert relative_error(decoded, vae.decode(latents)) < 1e-5


def test_samples_follow_the_posterior():
    shape = (100, 100, 4)
    posterior = Posterior(jnp.full(shape, 3.0), jnp.full(shape, jnp.log(0.25)))
    draw = jax.jit(lambda p, seed: p.sample(jax.random.key(seed)))  # a posterior is a pytree
    first, again, second = (draw(posterior, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert jnp.abs(first - second).max() > 0.1
    assert abs(first.mean() - 3.0) < 0.02
    assert abs(first.std() - 0.5) < 0.02


def test_bfloat16_compute_stays_near_float32(imported):
    _, vae, _ = imported
    half = Bound(AutoencoderKL(TINY, dtype=jnp.bfloat16), vae.params)
    images = images_of(*IMAGES)
    ours = half.encode(images).mean
    assert ours.dtype == jnp.float32
    assert relative_error(ours, vae.encode(images).mean) < 0.05


def test_layout_is_strict_and_invertible(imported):
    _, vae, tensors = imported
    written = VAE.to_theirs(vae.params)
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)

    lacking = {k: v for k, v in tensors.items() if k != "decoder.mid_block.attentions.0.group_norm.bias"}
    with pytest.raises(LayoutError, match=r"lacks.*decoder\.mid_block\.attentions\.0\.group_norm\.bias"):
        VAE.fill(vae.params, lacking, "vae")
    with pytest.raises(LayoutError, match=r"does not: loss\.logvar"):
        VAE.fill(vae.params, tensors | {"loss.logvar": np.zeros(())}, "vae")
    with pytest.raises(LayoutError, match=r"another shape: quant_conv\.weight is \(8, 4, 1, 1\)"):
        VAE.fill(vae.params, tensors | {"quant_conv.weight": np.zeros((8, 4, 1, 1))}, "vae")


def test_old_spellings_of_attention_are_read(imported):
    _, vae, tensors = imported
    old, attentions = {}, 0
    for name, value in tensors.items():
        for new, spelling in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            attentions += f".{new}." in name
            name = name.replace(f".{new}.", f".{spelling}.")
        old[name] = value
    assert attentions == 16
    filled = VAE.fill(abstract_parameters(vae.module), old, "vae")
    jax.tree.map(np.testing.assert_array_equal, filled, vae.params)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shift_factor", 0.1),
        ("latents_mean", [0.0]),
        ("act_fn", "relu"),
        ("down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        ("up_block_types", ["UpDecoderBlock2D"] * 3),
        ("mid_block_add_attention", False),
        ("use_quant_conv", False),
        ("use_post_quant_conv", False),
        ("out_channels", 1),
        ("_class_name", "AutoencoderTiny"),
        ("block_out_channels", "64"),
        ("block_out_channels", []),
        ("layers_per_block", [1, 2]),
        ("norm_num_groups", 7),
        ("scaling_factor", 0),
    ],
)
def test_unsupported_configurations_are_refused(imported, key, value):
    config = dict(imported[0].config)
    with pytest.raises(ConfigError, match=key):
        vae_config(config | {key: value})


def test_configurations():
    assert VAEConfig().downscale == 8
    assert TINY.downscale == 2
    assert parameter_count(abstract_parameters(AutoencoderKL(VAEConfig()))) == 83_653_863  # Stable Diffusion's
    with pytest.raises(ValueError, match="norm_num_groups"):
        VAEConfig(block_out_channels=(48,))
    with pytest.raises(ValueError, match="frames_per_chunk"):
        AutoencoderKL(TINY, frames_per_chunk=0)


@pytest.mark.slow
def test_full_size_import_equals_diffusers():
    model = torch_vae((128, 256, 512, 512), layers_per_block=2)
    config = vae_config(dict(model.config) | {"_class_name": "AutoencoderKL"})
    assert config == VAEConfig()
    module = AutoencoderKL(config)
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    vae = Bound(module, VAE.fill(abstract_parameters(module), tensors, "vae"))
    errors = parity(model, vae, images_of(1, 64, 96, 3), latents_of(1, 8, 12, 4))
    print("relative errors of mean, log-variance, pictures:", errors)
    assert max(errors) <= 1e-4
