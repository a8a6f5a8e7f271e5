import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error
from safetensors.numpy import save_file

from gen1_jax.errors import UserError
from gen1_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from gen1_jax.models.image_tokens import ImageTokens, ImageTokensConfig, null_tokens, picture_tokens
from gen1_jax.models.module import Bound, abstract_parameters, flatten, parameter_count, unflatten
from gen1_jax.models.unet import SpaceTimeUNet, UNetConfig
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_image_tokens import (
    IMAGE_ATTENTION,
    IMAGE_ENCODER,
    IMAGE_TOKENS,
    image_attention_blocks,
    image_attention_layout,
    image_encoder_config,
    ip_adapter,
    read_ip_adapter,
)
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import FolderError, read_json, read_tensors

VISION = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=32,
    patch_size=8,
    hidden_act="gelu",
    layer_norm_eps=1e-3,
    projection_dim=20,
)
ENCODER, TOKENS = ImageEncoderConfig(**VISION), 17
UNET = UNetConfig(
    block_out_channels=(8, 16, 24),
    attention_levels=(True, True, False),
    layers_per_block=1,
    num_attention_heads=4,
    norm_num_groups=4,
    cross_attention_dim=12,
    content_kind="text",
    structure_channels=0,
    temporal="none",
    image_adapter=True,
)


def normal(rng, *shape):
    return rng.normal(0, shape[-1] ** -0.5 if len(shape) > 1 else 0.3, shape).astype(np.float32)


def projection(kind: str) -> dict[str, np.ndarray]:
    """`image_proj.*` as the authors name it; norms are not scales of one."""
    rng = np.random.default_rng(1)
    if kind == "base":
        shapes = {"proj.weight": (4 * 12, 20), "proj.bias": (48,), "norm.weight": (12,), "norm.bias": (12,)}
    elif kind == "full":
        shapes = {"proj.0.weight": (32, 32), "proj.0.bias": (32,), "proj.2.weight": (12, 32), "proj.2.bias": (12,)}
        shapes |= {"proj.3.weight": (12,), "proj.3.bias": (12,)}
    else:
        shapes = {"latents": (1, 5, 16), "proj_in.weight": (16, 32), "proj_in.bias": (16,)}
        shapes |= {
            "proj_out.weight": (12, 16),
            "proj_out.bias": (12,),
            "norm_out.weight": (12,),
            "norm_out.bias": (12,),
        }
        for i in range(4):
            for norm in ("0.norm1", "0.norm2", "1.0"):
                shapes |= {f"layers.{i}.{norm}.{leaf}": (16,) for leaf in ("weight", "bias")}
            shapes |= {f"layers.{i}.0.to_q.weight": (128, 16), f"layers.{i}.0.to_kv.weight": (256, 16)}
            shapes |= {f"layers.{i}.0.to_out.weight": (16, 128)}
            shapes |= {f"layers.{i}.1.1.weight": (64, 16), f"layers.{i}.1.3.weight": (16, 64)}
    return {f"image_proj.{name}": normal(rng, *shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def torch_unet():
    import diffusers

    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=UNET.block_out_channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_head_dim=4,
    )


@pytest.fixture(scope="module")
def attention(torch_unet):
    """`ip_adapter.*`, numbered as diffusers counts the attentions of its U-Net."""
    rng, tensors = np.random.default_rng(2), {}
    for number, name in enumerate(torch_unet.attn_processors):
        if number % 2:
            width = torch_unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            tensors |= {f"ip_adapter.{number}.to_{x}_ip.weight": normal(rng, width, 12) for x in "kv"}
    return tensors


@pytest.fixture(scope="module")
def torch_encoder():
    import transformers

    return randomise(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION)))


@pytest.fixture(scope="module")
def encoder(torch_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("image_encoder")
    torch_encoder.save_pretrained(folder)
    module = ImageEncoder(image_encoder_config(read_json(folder / "config.json")))
    return Bound(module, IMAGE_ENCODER.fill(abstract_parameters(module), read_tensors(folder), "image encoder"))


def tokens_of(kind, attention):
    """Ours, read as a file is."""
    found = ip_adapter(projection(kind) | attention, ENCODER, UNET, kind)
    module = ImageTokens(found.tokens)
    layout = IMAGE_TOKENS[found.tokens.kind]
    return Bound(module, layout.fill(abstract_parameters(module), found.projection, kind))


def to_torch(array):
    import torch

    return torch.tensor(np.asarray(array))


def test_the_encoder_equals_transformers(encoder, torch_encoder):
    import torch

    assert encoder.config == ENCODER and ENCODER.tokens == TOKENS
    pixels = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    with torch.no_grad():
        theirs = torch_encoder(to_torch(pixels).permute(0, 3, 1, 2), output_hidden_states=True)
    assert relative_error(encoder.embed(pixels), theirs.image_embeds.numpy()) <= 1e-4
    assert relative_error(encoder.states(pixels), theirs.hidden_states[-2].numpy()) <= 1e-4
    with pytest.raises(UserError, match="takes 32x32"):
        encoder.states(pixels[:, :24, :24])
    picture = np.full((1, 40, 70, 3), 255, np.uint8)
    assert encoder.preprocess(picture).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("kind", ["base", "plus", "full"])
def test_tokens_and_keys_equal_diffusers(kind, torch_unet, attention, encoder, torch_encoder):
    """Two pictures of one clip, and those of nothing; diffusers reads the same file."""
    import torch

    tokens = tokens_of(kind, attention)
    without = lambda prefix, given: {name.removeprefix(prefix): to_torch(x) for name, x in given.items()}
    state = {"image_proj": without("image_proj.", projection(kind)), "ip_adapter": without("ip_adapter.", attention)}
    torch_unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)

    pixels = jnp.asarray(np.random.default_rng(3).normal(size=(2, 32, 32, 3)), jnp.float32)
    with torch.no_grad():
        both = torch_encoder(to_torch(pixels).permute(0, 3, 1, 2), output_hidden_states=True)
        nothing = torch_encoder(torch.zeros(1, 3, 32, 32), output_hidden_states=True)
        if kind == "base":
            features, null = both.image_embeds, torch.zeros_like(both.image_embeds[:1])
        else:
            features, null = both.hidden_states[-2], nothing.hidden_states[-2]
        # (1, pictures, tokens, width), which its attention reads as one sequence
        theirs, theirs_of_nothing = (
            torch_unet.encoder_hid_proj([x[None]])[0].reshape(1, -1, 12) for x in (features, null)
        )
    count = {"base": 4, "plus": 5, "full": TOKENS}[kind]
    ours, ours_of_nothing = picture_tokens(encoder, tokens, pixels), null_tokens(encoder, tokens, pictures=2)
    assert ours.shape == ours_of_nothing.shape == (1, 2 * count, 12)
    assert relative_error(ours, theirs.numpy()) <= 1e-4
    for half in (ours_of_nothing[:, :count], ours_of_nothing[:, count:]):
        assert relative_error(half, theirs_of_nothing.numpy()) <= 1e-4

    unet = flatten(abstract_parameters(SpaceTimeUNet(UNET)))
    keys = unflatten({path: x for path, x in unet.items() if re.search(IMAGE_ATTENTION, path)})
    filled = flatten(image_attention_layout(UNET).fill(keys, attention, "ip_adapter"))
    assert len(filled) == len(attention) == 14
    for path, kernel in filled.items():
        place, leaf = path.split(".spatial.block.attn2.to_")
        processor = torch_unet.attn_processors[f"{place}.transformer_blocks.0.attn2.processor"]
        theirs = {"k_image.kernel": processor.to_k_ip, "v_image.kernel": processor.to_v_ip}[leaf][0]
        np.testing.assert_array_equal(kernel.T, theirs.weight.detach())


def test_the_sixteen_layers_of_stable_diffusion():
    names = image_attention_blocks(UNetConfig())
    full = UNetConfig(content_kind="text", image_adapter=True, structure_channels=0, temporal="animatediff")
    adapted = {path for path in flatten(abstract_parameters(SpaceTimeUNet(full))) if re.search(IMAGE_ATTENTION, path)}
    assert adapted == {f"{name}.attn2.to_{x}_image.kernel" for name in names for x in "kv"} and len(names) == 16
    by_number = {2 * i + 1: name.removesuffix(".spatial.block") for i, name in enumerate(names)}
    assert by_number[3] == "down_blocks.0.attentions.1" and by_number[11] == "down_blocks.2.attentions.1"
    assert by_number[13] == "up_blocks.1.attentions.0" and by_number[29] == "up_blocks.3.attentions.2"
    assert by_number[31] == "mid_block.attentions.0"
    layout = image_attention_layout(UNetConfig())
    path = "up_blocks.3.attentions.2.spatial.block.attn2.to_v_image.kernel"
    assert layout.their_name(path) == "ip_adapter.29.to_v_ip.weight"
    assert not re.search(IMAGE_ATTENTION, path.replace("_image", ""))


def test_full_sizes():
    count = lambda module: parameter_count(abstract_parameters(module))
    assert count(ImageEncoder(ImageEncoderConfig())) == 632_076_800
    assert count(ImageTokens(ImageTokensConfig())) == 29_918_208
    assert count(ImageTokens(ImageTokensConfig(kind="base", tokens=4, embedding_dim=1024))) == 3_150_336


def test_files_that_do_not_fit_say_what_would(attention, tmp_path):
    def refused(change=None, encoder=ENCODER, unet=UNET, kind="base", **drop):
        tensors = projection(kind) | attention | (change or {})
        with pytest.raises(LayoutError) as error:
            ip_adapter(tensors, encoder, unet, "file.safetensors")
        assert "\n" not in str(error.value) and str(error.value).startswith("file.safetensors ")
        return str(error.value)

    zeros = lambda *shape: np.zeros(shape, np.float32)
    big = dataclasses.replace(ENCODER, projection_dim=1280, hidden_size=1664)
    assert "reads embeddings of 20, but the image encoder gives 1280 (OpenCLIP ViT-bigG/14" in refused(encoder=big)
    assert "reads states of 32, but the image encoder gives 1664 (OpenCLIP ViT-bigG" in refused(
        encoder=big, kind="plus"
    )
    h14 = dataclasses.replace(ENCODER, projection_dim=1024)
    said = refused({"image_proj.proj.weight": zeros(48, 1280)}, encoder=h14)
    assert "embeddings of 1280 (OpenCLIP ViT-bigG/14, sdxl_models/image_encoder)" in said and "gives 1024" in said
    assert "makes tokens of 12, the U-Net reads 16" in refused(unet=dataclasses.replace(UNET, cross_attention_dim=16))
    assert "FaceID" in refused({"image_proj.norm.weight": zeros(12)}, kind="full")
    assert "FaceID" in refused({"ip_adapter.0.to_q_lora.down.weight": zeros(2, 2)})
    with pytest.raises(LayoutError, match=r"no IP-Adapter in its authors' names"):
        ip_adapter({"model.diffusion_model.out.0.weight": zeros(1)}, ENCODER, UNET, "sd15")

    save_file(projection("base") | attention, tmp_path / "ip-adapter.safetensors")
    found = read_ip_adapter(tmp_path / "ip-adapter.safetensors", ENCODER, UNET)
    assert found.tokens == ImageTokensConfig(kind="base", tokens=4, embedding_dim=20, cross_attention_dim=12)
    assert found.projection.keys() == projection("base").keys() and found.attention.keys() == attention.keys()
    (tmp_path / "ip-adapter_sd15.bin").write_bytes(b"")
    with pytest.raises(FolderError, match=r"ip-adapter_sd15\.bin is a pickle"):
        read_ip_adapter(tmp_path / "ip-adapter_sd15.bin", ENCODER, UNET)


def test_features_of_another_encoder_are_refused():
    base = Bound(ImageTokens(ImageTokensConfig(kind="base")), {})
    for features in (jnp.zeros((1, 5)), jnp.zeros((1, 3, 1280))):
        with pytest.raises(UserError, match="not 1280 wide"):
            base.module(features)
    with pytest.raises(UserError, match="5 states of a picture, but 257 tokens"):
        ImageTokens(ImageTokensConfig(kind="full", tokens=257))(jnp.zeros((1, 5, 1280)))


def test_configurations_of_the_encoder_folder():
    import transformers

    given = {"model_type": "clip_vision_model", "hidden_size": 64, "num_attention_heads": 4}
    ours, theirs = image_encoder_config(given), transformers.CLIPVisionConfig(**given)
    for field in dataclasses.fields(ours):
        assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    whole = {"model_type": "clip", "vision_config": {"hidden_act": "gelu"}}
    assert image_encoder_config(whole).hidden_act == "gelu"
    for change in (
        {"model_type": "siglip_vision_model"},
        {"projection_dim": 0},
        {"num_channels": 1},
        {"hidden_act": "x"},
    ):
        with pytest.raises(ConfigError, match=next(iter(change))):
            image_encoder_config(given | change)
