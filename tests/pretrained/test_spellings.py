"""Foreign names against diffusers' own converters, over every name of the full-size networks."""

import re

import pytest

from gen1_jax.pretrained.spellings import ldm_control, ldm_text, ldm_unet, ldm_vae, motion_original

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
WHOLE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
}


def ldm_name(name):
    """That of Stable Diffusion's own file for a tensor of diffusers' U-Net or ControlNet, two layers a level."""
    module, leaf = name.rsplit(".", 1)
    if module in WHOLE:
        return f"{WHOLE[module]}.{leaf}"
    inside = lambda kind, rest: rest if kind == "attentions" else ".".join(RESNET.get(x, x) for x in rest.split("."))
    if found := re.fullmatch(r"controlnet_(down|cond_embedding\.)_?blocks\.(\d+)", module):
        k = int(found[2])
        return f"zero_convs.{k}.0.{leaf}" if found[1] == "down" else f"input_hint_block.{2 * (k + 1)}.{leaf}"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        number = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{number}.{inside(found[1], found[3])}"
    found = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    side, level, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{1 if level == 0 else 2}.conv.{leaf}"
    block = f"input_blocks.{3 * level + layer + 1}" if side == "down" else f"output_blocks.{3 * level + layer}"
    return f"{block}.{int(kind == 'attentions')}.{inside(kind, rest)}"


def ldm_vae_name(name):
    for pattern, replacement in (
        (r"conv_norm_out", "norm_out"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"mid_block\.resnets\.0", "mid.block_1"),
        (r"mid_block\.resnets\.1", "mid.block_2"),
        (r"mid_block\.attentions\.0\.group_norm", "mid.attn_1.norm"),
        (r"mid_block\.attentions\.0\.to_out\.0", "mid.attn_1.proj_out"),
        (r"mid_block\.attentions\.0\.to_", "mid.attn_1."),
        (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
        (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
        (r"up_blocks\.(\d)\.resnets", lambda found: f"up.{3 - int(found[1])}.block"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{3 - int(found[1])}.upsample"),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def motion_name(name):
    name = re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", name)
    name = re.sub(r"\.attn([12])\.", lambda found: f".attention_blocks.{int(found[1]) - 1}.", name)
    name = re.sub(r"(transformer_blocks\.0)\.norm([12])\.", lambda f: f"{f[1]}.norms.{int(f[2]) - 1}.", name)
    return name.replace("transformer_blocks.0.norm3.", "transformer_blocks.0.ff_norm.")


@pytest.fixture(scope="module")
def networks():
    """diffusers' full-size networks of Stable Diffusion 1.5, shapes alone: tensors by name."""
    import diffusers
    import torch

    vae = dict(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    with torch.device("meta"):
        motion = diffusers.MotionAdapter().state_dict()
        return {
            "unet": diffusers.UNet2DConditionModel(cross_attention_dim=768).state_dict(),
            "vae": diffusers.AutoencoderKL(**vae).state_dict(),
            "controlnet": diffusers.ControlNetModel(cross_attention_dim=768).state_dict(),
            "v3": {name: x for name, x in motion.items() if not name.startswith("mid_block.")},
            "v2": motion,
        }


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "model_ema.diffusion_model."])
def test_all_names_of_a_single_files_unet(networks, prefix):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    names = {ldm_name(name): name for name in networks["unet"]}
    assert len(names) == 686
    ours = ldm_unet({f"{prefix}{name}": name for name in names})
    if prefix.startswith("model_ema"):
        assert not ours  # a moving average is another network
        return
    config = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
    theirs = convert_ldm_unet_checkpoint({f"{prefix}{name}": name for name in names}, config)
    assert dict(ours) == theirs == {name: old for old, name in names.items()}


@pytest.mark.parametrize("prefix", ["first_stage_model.", ""])
def test_all_names_of_an_autoencoder(networks, prefix):
    import torch
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    tensors = {f"{prefix}{ldm_vae_name(name)}": torch.empty(i + 1) for i, name in enumerate(networks["vae"])}
    assert len(tensors) == 248
    others = {"model.diffusion_model.out.0.bias": 0} if prefix else {"loss.logvar": 0, "model_ema.decay": 0}
    config = {"down_block_types": (0,) * 4, "up_block_types": (0,) * 4, "layers_per_block": 2}
    theirs = convert_ldm_vae_checkpoint(tensors, config)
    ours = ldm_vae(tensors | others)
    assert {name: x.numel() for name, x in ours.items()} == {name: x.numel() for name, x in theirs.items()}
    assert ours.keys() == networks["vae"].keys()


@pytest.mark.parametrize("prefix", ["control_model.", ""])
def test_all_names_of_a_controlnet(networks, prefix):
    from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

    names = {f"{prefix}{ldm_name(name)}": name for name in networks["controlnet"]}
    assert len(names) == 340
    tensors = {name: name for name in names}
    ours = dict(ldm_control(tensors))
    theirs = convert_controlnet_checkpoint({name: name for name in names}, {"layers_per_block": 2})
    assert ours == theirs == {name: old for old, name in names.items()}


@pytest.mark.parametrize(("version", "keys"), [("v3", 540), ("v2", 567)])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_all_names_of_motion_modules(networks, version, keys, prefix):
    from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers

    assert len(networks[version]) == keys
    parameters = [name for name in networks[version] if not name.endswith(".pe")]
    originals = {motion_name(name): name for name in parameters}
    positions = {
        motion_name(name).replace("pos_embed", f"{attention}.pos_encoder"): 0
        for name in networks[version].keys() - set(parameters)
        for attention in ("attention_blocks.0", "attention_blocks.1")
    }
    file = {f"{prefix}{name}": name for name in originals} | positions
    theirs = convert_animatediff_checkpoint_to_diffusers({name.removeprefix(prefix): x for name, x in file.items()})
    ours = {name: x for name, x in motion_original(file).items() if not name.endswith(".pe")}
    assert ours == theirs == {name: old for old, name in originals.items()}
    assert dict(motion_original(networks[version])) == networks[version]  # a MotionAdapter's stay as they are


@pytest.mark.parametrize("prefix", ["cond_stage_model.transformer.", "cond_stage_model.transformer.text_model."])
def test_a_single_files_text_encoder_with_and_without_text_model(prefix):
    names = ("embeddings.token_embedding.weight", "encoder.layers.11.mlp.fc1.bias", "final_layer_norm.weight")
    buffers = {f"{prefix}embeddings.position_ids": 0, "cond_stage_model.transformer.logit_scale": 0}
    projection = {"cond_stage_model.transformer.text_projection.weight": 0, "cond_stage_model.logit_scale": 0}
    file = {f"{prefix}{name}": name for name in names} | buffers | projection
    assert dict(ldm_text(file)) == {f"text_model.{name}": name for name in names}
