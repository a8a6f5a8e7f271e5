import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error

from gen1_jax.models.module import Bound, abstract_parameters, flatten, initialise, parameter_count
from gen1_jax.models.unet import SpaceTimeUNet, UNetConfig
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_unet import UNET, unet_config
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import read_json, read_tensors

TINY = UNetConfig(  # of one level: several are compared below with diffusers, and in exporting/test_torch_format.py
    block_out_channels=(16,),
    attention_levels=(True,),
    layers_per_block=1,
    num_attention_heads=4,
    cross_attention_dim=24,
    norm_num_groups=8,
    max_frames=8,
)


@pytest.fixture(scope="module")
def tiny():
    module = SpaceTimeUNet(TINY)
    return Bound(module, initialise(module, 0))


def inputs(batch, frames, height=8, width=12, content=24):
    def normal(*shape):
        return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)

    return dict(
        latents=normal(batch, frames, height, width, 4),
        timesteps=jnp.arange(batch) * 400 + 3,
        content=normal(batch, 1, content),
        structure=normal(batch, frames, height, width, 4)[::-1],
        structure_level=jnp.arange(batch) % 8,
    )


def with_random_temporal_layers(params):
    """Parameters as after training: no layer is zero any more."""
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), params)


def test_fresh_video_model_is_the_image_model_on_every_frame(tiny):
    x = inputs(2, 3)
    video = tiny(**x)
    fold = lambda k, v: v.reshape(6, 1, *v.shape[2:]) if k in ("latents", "structure") else v.repeat(3, axis=0)
    images = tiny(**{k: fold(k, v) for k, v in x.items()})
    np.testing.assert_array_equal(images.reshape(video.shape), video)


def test_trained_temporal_layers_couple_frames_but_not_images(tiny):
    params = with_random_temporal_layers(tiny.params)
    trained = Bound(tiny.module, params)
    x = inputs(1, 4)
    video = trained(**x)
    moved = trained(**(x | {"latents": x["latents"].at[:, 3].add(1.0)}))
    assert jnp.abs(moved - video)[:, 0].max() > 1e-3  # the last frame reaches the first
    swapped = trained(**(x | {k: x[k][:, ::-1] for k in ("latents", "structure")}))
    assert jnp.abs(swapped[:, ::-1] - video).max() > 1e-3  # the order of frames matters

    image = {k: v[:, :1] if k in ("latents", "structure") else v for k, v in x.items()}
    no_temporal = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if "temporal" in jax.tree_util.keystr(path) else leaf, params
    )
    np.testing.assert_array_equal(trained(**image), Bound(tiny.module, no_temporal)(**image))


def test_structure_level_and_content_reach_the_output(tiny):
    x = inputs(1, 2)
    base = tiny(**x)
    for changed in (
        {"structure_level": jnp.array([5])},
        {"content": x["content"] * 0},
        {"structure": -x["structure"]},
    ):
        assert jnp.abs(tiny(**(x | changed)) - base).max() > 1e-4, changed.keys()


def test_remat_changes_neither_output_nor_gradient():
    config = dataclasses.replace(TINY, block_out_channels=(8,), attention_levels=(False,))
    params = initialise(SpaceTimeUNet(config), 0)
    x = inputs(1, 2, 4, 4)

    def gradient(module):
        bound = Bound(module, params)
        return jax.jit(jax.grad(lambda p: jnp.square(bound.apply(p, **x)).mean()))(params)

    plain, remat = gradient(SpaceTimeUNet(config)), gradient(SpaceTimeUNet(config, remat=True))
    for name, value in flatten(plain).items():
        np.testing.assert_allclose(flatten(remat)[name], value, atol=1e-6, err_msg=name)


def test_bfloat16_compute_stays_near_float32(tiny):
    x = inputs(2, 3)
    half = Bound(SpaceTimeUNet(TINY, dtype=jnp.bfloat16), tiny.params)(**x)
    assert half.dtype == jnp.float32
    assert relative_error(half, tiny(**x)) < 0.05
    # guidance multiplies differences that bfloat16 could not hold: the last convolution is float32
    assert (half != half.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9


def test_errors_name_the_limit(tiny):
    with pytest.raises(ValueError, match="max_frames"):
        tiny(**inputs(1, 9))
    with pytest.raises(ValueError, match="needs structure"):
        tiny(**(inputs(1, 1) | {"structure": None}))


def test_full_size_and_names_without_sizes():
    params = abstract_parameters(SpaceTimeUNet(UNetConfig()))
    image = sum(v.size for k, v in flatten(params).items() if not UNET.is_new(k))
    rows = 3 * 3 * 8 * 320  # structure and t_s rows of conv_in
    assert image - rows == 859_520_964  # Stable Diffusion 1.5's U-Net
    assert 1.2e9 < parameter_count(params) < 1.3e9


def torch_unet(**kwargs):
    from diffusers import UNet2DConditionModel

    return randomise(UNet2DConditionModel(**kwargs))


TINY_TORCH = dict(
    sample_size=8,
    block_out_channels=(16, 32),
    layers_per_block=1,
    cross_attention_dim=24,
    attention_head_dim=4,
    norm_num_groups=8,
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
)


def check_parity(model, module, params, height, width, frames):
    """Our video model right after import equals the torch image model frame by frame."""
    import torch

    bound = Bound(module, params)
    x = inputs(1, frames, height, width, module.config.cross_attention_dim)
    ours = bound(**x)
    with torch.no_grad():
        theirs = model(
            torch.tensor(np.asarray(x["latents"][0])).permute(0, 3, 1, 2),
            int(x["timesteps"][0]),
            torch.tensor(np.asarray(x["content"])).repeat(frames, 1, 1),
        ).sample
    assert relative_error(ours[0], theirs.permute(0, 2, 3, 1).numpy()) <= 1e-4


@pytest.fixture(scope="module")
def tiny_import(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    model = torch_unet(**TINY_TORCH)
    model.save_pretrained(folder)
    module = SpaceTimeUNet(unet_config(read_json(folder / "config.json")))
    tensors = read_tensors(folder)
    return model, module, tensors, UNET.fill(initialise(module, 0), tensors, "unet")


@pytest.mark.parametrize(("height", "width", "frames"), [(8, 8, 1), (7, 13, 1), (4, 14, 8)])
def test_imported_image_model_equals_diffusers(tiny_import, height, width, frames):
    model, module, _, params = tiny_import
    check_parity(model, module, params, height, width, frames)


def test_layout_is_strict_and_invertible(tiny_import):
    _, module, tensors, params = tiny_import
    written = UNET.to_theirs(params)
    assert written.keys() == tensors.keys()
    written["conv_in.weight"] = written["conv_in.weight"][:, :4]  # the further rows are structure and t_s
    for name, value in tensors.items():
        np.testing.assert_array_equal(written[name].reshape(value.shape), value, err_msg=name)

    lacking = {k: v for k, v in tensors.items() if k != "mid_block.resnets.0.conv1.bias"}
    with pytest.raises(LayoutError, match=r"lacks.*mid_block\.resnets\.0\.conv1\.bias"):
        UNET.fill(params, lacking, "unet")
    with pytest.raises(LayoutError, match=r"does not: extra\.weight"):
        UNET.fill(params, tensors | {"extra.weight": np.zeros(3)}, "unet")
    with pytest.raises(LayoutError, match=r"another shape: conv_out\.bias is \(5,\)"):
        UNET.fill(params, tensors | {"conv_out.bias": np.zeros(5)}, "unet")


def test_unsupported_unets_are_refused():
    with pytest.raises(ConfigError, match="addition_embed_type"):
        unet_config({"addition_embed_type": "text_time"})
    with pytest.raises(ConfigError, match="attention_head_dim"):
        unet_config({"attention_head_dim": [5, 10, 20, 20]})


@pytest.mark.slow
def test_full_size_import_equals_diffusers(tmp_path):
    model = torch_unet(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    config = unet_config(dict(model.config))
    assert dataclasses.replace(config, prediction_type="v_prediction") == UNetConfig()
    module = SpaceTimeUNet(config)
    params = UNET.fill(
        jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), abstract_parameters(module)),
        {k: v.numpy() for k, v in model.state_dict().items()},
        "unet",
    )
    check_parity(model, module, params, 24, 40, 2)
