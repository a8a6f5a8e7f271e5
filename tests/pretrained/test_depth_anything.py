"""Depth Anything V2 as transformers has it, Video Depth Anything as its authors' file."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
from oracle import randomise, relative_error
from safetensors.numpy import save_file

from gen1_jax.models.depth import DPTConfig, DPTDepth
from gen1_jax.models.module import Bound, abstract_parameters
from gen1_jax.models.resampling import bicubic_matrix
from gen1_jax.pretrained import depth_anything
from gen1_jax.pretrained.depth_anything import depth_anything_config
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_depth import depth_checkpoint
from gen1_jax.pretrained.tensors import FolderError

PATCH, WIDTH, HEADS, MAPS, FUSION = 14, 16, 2, (8, 8, 32, 64), 32
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def theirs():
    """A tiny DepthAnythingForDepthEstimation whose depth is above zero nearly everywhere."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    backbone = dict(
        model_type="dinov2",
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        image_size=4 * PATCH,
        patch_size=PATCH,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    sizes = dict(reassemble_hidden_size=WIDTH, neck_hidden_sizes=list(MAPS), fusion_hidden_size=FUSION)
    model = randomise(DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, **sizes)))
    model.head.conv3.bias.data += 3
    return model


def pictures(*shape):
    return np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)


def normalised(pixels):
    import torch

    return torch.tensor(((pixels + 1) / 2 - MEAN) / STD, dtype=torch.float32).movedim(-1, -3)


def opened(path):
    checkpoint, config, layout = depth_checkpoint(path)
    module = DPTDepth(config)
    return Bound(module, layout.fill(abstract_parameters(module), checkpoint.tensors, "depth"))


def test_a_folder_of_transformers(theirs, tmp_path):
    """Of a picture whose patches are odd in number, so that maps meet by resizing."""
    import torch

    theirs.save_pretrained(tmp_path)
    ours, pixels = opened(tmp_path), pictures(2, 5 * PATCH, 3 * PATCH)
    with torch.no_grad():
        wanted = theirs(normalised(pixels)).predicted_depth.numpy()
    assert (wanted > 0).mean() > 0.9 and ours.config.temporal_frames == 0
    assert relative_error(ours(jnp.asarray(pixels)), wanted) <= 1e-4


def temporal_oracle(channels, frames):
    """A layer between frames as Video Depth Anything has it: (t, c, h, w) -> the same, and its parameters by name."""
    import torch
    from torch import nn

    attention = lambda: nn.ModuleDict(
        {f"to_{x}": nn.Linear(channels, channels, bias=False) for x in "qkv"}
        | {"to_out": nn.ModuleList([nn.Linear(channels, channels)])}
    )
    block = nn.ModuleDict(
        {
            "attention_blocks": nn.ModuleList([attention(), attention()]),
            "norms": nn.ModuleList([nn.LayerNorm(channels), nn.LayerNorm(channels)]),
            "ff": nn.ModuleDict(
                {
                    "net": nn.ModuleList(
                        [
                            nn.ModuleDict({"proj": nn.Linear(channels, 8 * channels)}),
                            nn.Identity(),
                            nn.Linear(4 * channels, channels),
                        ]
                    )
                }
            ),
            "ff_norm": nn.LayerNorm(channels),
        }
    )
    layer = nn.ModuleDict(
        {
            "norm": nn.GroupNorm(32, channels, eps=1e-6),
            "proj_in": nn.Linear(channels, channels),
            "transformer_blocks": nn.ModuleList([block]),
            "proj_out": nn.Linear(channels, channels),
        }
    )
    rate = 10_000.0 ** (-torch.arange(0, channels, 2) / channels)
    angles = torch.arange(frames)[:, None] * rate
    positions = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    heads = lambda x: x.unflatten(-1, (8, channels // 8)).transpose(1, 2)

    def apply(x):
        y = layer["proj_in"](layer["norm"](x).movedim(1, -1))
        t, h, w, c = y.shape
        y = y.movedim(0, 2).reshape(h * w, t, c)
        for norm, part in zip(block["norms"], block["attention_blocks"], strict=True):
            seen = norm(y) + positions[:t]
            q, k, v = (heads(part[f"to_{name}"](seen)) for name in "qkv")
            read = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            y = y + part["to_out"][0](read)
        value, gate = block["ff"]["net"][0]["proj"](block["ff_norm"](y)).chunk(2, -1)
        y = y + block["ff"]["net"][2](value * nn.functional.gelu(gate))
        y = layer["proj_out"](y).reshape(h, w, t, c).permute(2, 3, 0, 1)
        return x + y

    return randomise(layer, seed=channels), apply


TO_ORIGINAL = (
    (r"^backbone\.embeddings\.position_embeddings", "pretrained.pos_embed"),
    (r"^backbone\.embeddings\.patch_embeddings\.projection", "pretrained.patch_embed.proj"),
    (r"^backbone\.embeddings", "pretrained"),
    (r"^backbone\.layernorm", "pretrained.norm"),
    (r"^backbone\.encoder\.layer", "pretrained.blocks"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection", r"head.projects.\1"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", r"head.resize_layers.\1"),
    (r"^neck\.convs\.(\d)", lambda m: f"head.scratch.layer{int(m[1]) + 1}_rn"),
    (r"^neck\.fusion_stage\.layers\.(\d)", lambda m: f"head.scratch.refinenet{4 - int(m[1])}"),
    (r"residual_layer(\d)\.convolution(\d)", r"resConfUnit\1.conv\2"),
    (r"(refinenet\d)\.projection", r"\1.out_conv"),
    (r"^head\.conv1", "head.scratch.output_conv1"),
    (r"^head\.conv2", "head.scratch.output_conv2.0"),
    (r"^head\.conv3", "head.scratch.output_conv2.2"),
)


def original_names(tensors):
    """Tensors of transformers in the authors' names, queries, keys and values fused."""
    renamed = {}
    for name, value in tensors.items():
        if found := re.match(r"(.*)\.attention\.attention\.query\.(\w+)", name):
            parts = [tensors[f"{found[1]}.attention.attention.{part}.{found[2]}"] for part in ("query", "key", "value")]
            name, value = f"{found[1]}.attn.qkv.{found[2]}", np.concatenate(parts)
        elif ".attention.attention." in name:
            continue
        for pattern, replacement in TO_ORIGINAL:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def test_the_authors_file_of_clips(theirs, tmp_path, monkeypatch):
    import torch

    from gen1_jax.pretrained.tensors import read_tensors

    monkeypatch.setattr(depth_anything, "_STAGES", {4: (1, 2, 3, 4)})
    monkeypatch.setattr(depth_anything, "_HEAD_SIZE", WIDTH // HEADS)
    frames, places = 5, (MAPS[2], MAPS[3], FUSION, FUSION)
    layers = [temporal_oracle(channels, 32) for channels in places]
    theirs.save_pretrained(tmp_path / "hf")
    tensors = original_names(read_tensors(tmp_path / "hf"))
    for number, (layer, _) in enumerate(layers):
        prefix = f"head.motion_modules.{number}.temporal_transformer"
        tensors |= {f"{prefix}.{name}": value.numpy() for name, value in layer.state_dict().items()}
        buffer = f"{prefix}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
        tensors[buffer] = np.zeros((1, 32, places[number]), np.float32)
    file = tmp_path / "video_depth_anything_vits.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, file)

    pixels = pictures(1, frames, 4 * PATCH, 4 * PATCH)
    with torch.no_grad():  # the parts of the network of pictures, and layers between them
        states = theirs.backbone(normalised(pixels[0])).feature_maps
        maps = theirs.neck.reassemble_stage(states, 4, 4)
        maps[2:] = [layers[0][1](maps[2]), layers[1][1](maps[3])]
        maps = [conv(x) for conv, x in zip(theirs.neck.convs, maps, strict=True)]
        fusions, x = theirs.neck.fusion_stage.layers, None
        for index, features in enumerate(reversed(maps)):
            size = maps[2 - index].shape[2:] if index < 3 else None
            x = fusions[index](*([features] if x is None else [x, features]), size=size)
            x = layers[2 + index][1](x) if index < 2 else x
        wanted = theirs.head([x], 4, 4).numpy()
    ours = opened(file)
    assert ours.config.temporal_frames == 32 and ours.config.position_offset == 0.1
    assert relative_error(ours.clips(jnp.asarray(pixels))[0], wanted) <= 1e-4
    alone = ours(jnp.asarray(pixels[0]))  # pictures pass the layers by
    assert relative_error(alone, wanted) > 1e-2
    chunked = ours.clips(jnp.asarray(pixels), frames_per_chunk=2)
    assert relative_error(chunked[0], wanted) <= 1e-4

    file.rename(tmp_path / "metric_video_depth_anything_vits.safetensors")
    with pytest.raises(FolderError, match="metric"):
        depth_checkpoint(tmp_path / "metric_video_depth_anything_vits.safetensors")


def test_positions_are_resampled_as_the_authors_do():
    import torch

    x = torch.eye(37)[None, :, None]  # (1, channels, 1, length)
    for size, offset in ((66, 0.1), (21, 0.1), (50, 0.0)):
        scale = (1.0, (size + offset) / 37)
        theirs = torch.nn.functional.interpolate(x, scale_factor=scale, mode="bicubic")[0, :, 0].T
        np.testing.assert_allclose(bicubic_matrix(37, size, offset=offset), theirs.numpy(), atol=1e-5)


def test_the_small_network_and_how_large_it_looks():
    config = depth_anything_config({"model_type": "depth_anything"})
    assert (config.hidden_size, config.num_hidden_layers, config.image_size) == (384, 12, 518)
    assert config.working_size(512, 512) == (518, 518) and config.working_size(256, 448) == (518, 910)
    assert config.working_size(100, 400) == (224, 896)  # smaller where a picture is long
    for wrong in ({"depth_estimation_type": "metric"}, {"head_hidden_size": 16}, {"fusion_hidden_size": "x"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            depth_anything_config(wrong)
    assert DPTConfig().kind == "dpt"
