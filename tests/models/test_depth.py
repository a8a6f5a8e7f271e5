import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error

from gen1_jax.models.depth import DPTConfig, DPTDepth
from gen1_jax.models.module import Bound, abstract_parameters, initialise
from gen1_jax.models.resampling import bilinear_matrix
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_depth import DEPTH, depth_config
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import read_json, read_tensors

TINY = dict(
    image_size=64,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=2,
    intermediate_size=48,
    backbone_out_indices=[0, 1, 2, 3],
    neck_hidden_sizes=[8, 12, 16, 20],
    fusion_hidden_size=8,
)
LARGE = dict(
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    backbone_out_indices=[5, 11, 17, 23],
    neck_hidden_sizes=[256, 512, 1024, 1024],
)


def torch_dpt(**kwargs):
    import torch
    from transformers import DPTConfig as TheirConfig
    from transformers import DPTForDepthEstimation

    model = randomise(DPTForDepthEstimation(TheirConfig(**kwargs)))
    torch.manual_seed(0)
    with torch.no_grad():
        model.dpt.embeddings.position_embeddings.normal_(0, 0.2)
        model.dpt.embeddings.cls_token.normal_(0, 0.2)
        levels = []  # let the last relu pass four pixels of five
        hook = model.head.head[4].register_forward_hook(lambda m, _, y: levels.append(y.quantile(0.2)))
        model(torch.rand(1, 3, model.config.image_size, model.config.image_size) * 2 - 1)
        hook.remove()
        model.head.head[4].bias -= levels[0]
    return model


def torch_depth(model, pixels):
    """DPTForDepthEstimation.forward, which takes every image for a square, with the shape of the patch grid given."""
    import torch

    layers, states = model.dpt.encoder.layer, {}
    hooks = [layer.register_forward_hook(lambda m, _, y, i=i: states.update({i: y})) for i, layer in enumerate(layers)]
    x = torch.tensor(np.asarray(pixels)).permute(0, 3, 1, 2)
    grid = [side // model.config.patch_size for side in x.shape[-2:]]
    with torch.no_grad():
        model.dpt(x)
        depth = model.head(model.neck([states[i] for i in model.config.backbone_out_indices], *grid))
        if grid[0] == grid[1]:
            torch.testing.assert_close(model(x).predicted_depth, depth)
    for hook in hooks:
        hook.remove()
    assert (depth > 0).float().mean() > 0.3
    return depth.numpy()


def pictures(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)), jnp.float32)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("depth")
    model = torch_dpt(**TINY)
    model.save_pretrained(folder)
    module = DPTDepth(depth_config(read_json(folder / "config.json")))
    tensors = read_tensors(folder)
    return model, tensors, Bound(module, DEPTH.fill(abstract_parameters(module), tensors, "depth"))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 32)])
def test_imported_model_equals_transformers(tiny, height, width):
    model, _, bound = tiny
    pixels = pictures(2, height, width)
    assert relative_error(bound(pixels), torch_depth(model, pixels)) <= 1e-4


def test_smaller_patches_and_many_layers_equal_transformers():
    config = TINY | dict(
        patch_size=8,
        reassemble_factors=[2, 1, 0.5, 0.25],
        qkv_bias=False,
        num_hidden_layers=12,  # more than ten: as text, 10 comes before 2
        backbone_out_indices=[1, 4, 9, 10],
    )
    model = torch_dpt(**config)
    module = DPTDepth(depth_config(model.config.to_dict()))
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    bound = Bound(module, DEPTH.fill(abstract_parameters(module), tensors, "depth"))
    pixels = pictures(1, 64, 64)
    assert relative_error(bound(pixels), torch_depth(model, pixels)) <= 1e-4


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), [(1, 2), (5, 10), (24, 17), (8, 8), (7, 1)])
def test_bilinear_matrix_equals_torch(source, target, align_corners):
    import torch

    x = torch.eye(source)[None]  # (1, channels, length)
    theirs = torch.nn.functional.interpolate(x, target, mode="linear", align_corners=align_corners)[0].T
    ours = bilinear_matrix(source, target, align_corners=align_corners)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-6)


def test_layout_is_strict_and_invertible(tiny):
    _, tensors, bound = tiny
    written = DEPTH.to_theirs(bound.params)
    unread = ("dpt.layernorm.", "neck.fusion_stage.layers.0.residual_layer1.")
    assert written.keys() == {name for name in tensors if not name.startswith(unread)}
    for name, value in written.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)

    name = "neck.reassemble_stage.layers.0.resize.weight"
    fill = abstract_parameters(bound.module), "depth"
    with pytest.raises(LayoutError, match=rf"lacks.*{name}"):
        DEPTH.fill(fill[0], {k: v for k, v in tensors.items() if k != name}, fill[1])
    with pytest.raises(LayoutError, match=r"does not: neck\.convs\.0\.bias"):
        DEPTH.fill(fill[0], tensors | {"neck.convs.0.bias": np.zeros(8)}, fill[1])
    with pytest.raises(LayoutError, match=rf"another shape: {name} is"):
        DEPTH.fill(fill[0], tensors | {name: np.zeros((8, 8, 2, 2))}, fill[1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_hybrid", True),
        ("readout_type", "add"),
        ("use_batch_norm_in_fusion_residual", True),
        ("use_bias_in_fusion_residual", False),
        ("backbone_config", {"model_type": "dinov2"}),
        ("head_in_index", 0),
        ("add_projection", True),
        ("hidden_act", "relu"),
        ("image_size", [384, 512]),
        ("num_attention_heads", 7),
        ("num_attention_heads", "12"),
        ("num_hidden_layers", 0),
        ("backbone_out_indices", [2, 5, 8, 12]),
        ("backbone_out_indices", [5, 2, 8, 11]),
        ("reassemble_factors", [4, 2, 1, 1]),
        ("neck_hidden_sizes", [96, 192]),
        ("patch_size", 14),
    ],
)
def test_unsupported_configurations_are_refused(key, value):
    depth_config({})
    with pytest.raises(ConfigError, match=key):
        depth_config({key: value})


def test_configurations_equal_transformers():
    from transformers import DPTConfig as TheirConfig

    assert depth_config({}) == depth_config(TheirConfig().to_dict())
    assert depth_config(TheirConfig(**LARGE, image_size=[384, 384]).to_dict()) == DPTConfig()


@pytest.mark.parametrize("size", [(256, 448), (448, 256), (1080, 1920), (384, 384), (100, 100), (37, 500), (192, 576)])
def test_working_size_is_the_processors(size):
    from transformers.models.dpt.image_processing_pil_dpt import get_resize_output_image_size

    ours = DPTConfig().working_size(*size)
    theirs = get_resize_output_image_size(
        np.zeros((3, *size)), output_size=(384, 384), keep_aspect_ratio=True, multiple=32
    )
    assert ours == (max(32, theirs.height), max(32, theirs.width))


def test_estimate_equals_processor_model_and_resize(tiny):
    import torch
    from transformers import DPTImageProcessorPil

    model, _, bound = tiny
    smooth = jax.image.resize(pictures(1, 6, 8), (1, 75, 130, 3), "linear")
    frame = np.asarray((smooth[0] + 1) * 127.5).round().astype(np.uint8)
    processor = DPTImageProcessorPil(
        size=dict(height=64, width=64),
        keep_aspect_ratio=True,
        ensure_multiple_of=32,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    pixels = processor(frame, return_tensors="np").pixel_values.transpose(0, 2, 3, 1)
    assert pixels.shape == (1, 64, 96, 3)
    theirs = torch.nn.functional.interpolate(torch.tensor(torch_depth(model, pixels))[None], (75, 130), mode="bilinear")
    ours = bound.estimate(jnp.asarray(frame, jnp.float32)[None] / 127.5 - 1)
    assert relative_error(ours, theirs[0].numpy()) < 0.02  # theirs is rounded to 8 bits before the model


@pytest.fixture(scope="module")
def small():
    """One layer, one map: compiles fast."""
    config = DPTConfig(
        image_size=64,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        backbone_out_indices=(0,),
        reassemble_factors=(4,),
        neck_hidden_sizes=(8,),
        fusion_hidden_size=8,
    )
    module = DPTDepth(config)
    return Bound(module, initialise(module, 0))


def test_fresh_model_is_not_dead(small):
    depth = small(pictures(3, 48, 64))
    assert (depth > 0).mean() > 0.5
    assert depth.std() > 0


def test_estimate_in_chunks(small):
    images = pictures(3, 48, 64)
    np.testing.assert_allclose(small.estimate(images, frames_per_chunk=2), small(images), rtol=1e-4)

    def temporaries(frames):
        estimate = jax.jit(lambda params, x: small.apply(params, x, method="estimate", frames_per_chunk=2))
        x = jax.ShapeDtypeStruct((frames, 80, 48, 3), jnp.float32)
        return estimate.lower(small.params, x).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(64) <= 1.1 * temporaries(4) + 64 * 80 * 48 * 4  # no more than the result


def test_bfloat16_compute_stays_near_float32(small):
    pixels = pictures(3, 48, 64)
    half = Bound(DPTDepth(small.config, dtype=jnp.bfloat16), small.params)(pixels)
    assert half.dtype == jnp.float32
    assert relative_error(half, small(pixels)) < 0.05


def test_errors_name_the_limit(tiny):
    _, _, bound = tiny
    with pytest.raises(ValueError, match="multiples of 32"):
        bound(pictures(1, 48, 64))
    with pytest.raises(ValueError, match="frames_per_chunk is 0"):
        bound.estimate(pictures(1, 48, 64), frames_per_chunk=0)
    with pytest.raises(ValueError, match="image_size"):
        dataclasses.replace(DPTConfig(), image_size=100)


@pytest.mark.slow
def test_full_size_import_equals_transformers():
    model = torch_dpt(**LARGE)
    config = depth_config(model.config.to_dict())
    assert config == DPTConfig()
    module = DPTDepth(config)
    tensors = {k: v.numpy() for k, v in model.state_dict().items()}
    bound = Bound(module, DEPTH.fill(abstract_parameters(module), tensors, "depth"))
    pixels = pictures(1, 224, 384)
    error = relative_error(bound(pixels), torch_depth(model, pixels))
    print(f"relative error {error:.2e}")
    assert error <= 1e-4
