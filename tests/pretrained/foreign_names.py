"""diffusers' names as the authors of the networks spell them (tables of diffusers' conversion, the other way)."""

import re

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


def ldm_name(name, layers=2):
    """That of Stable Diffusion's own file for a tensor of diffusers' U-Net or ControlNet, so many layers a level."""
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
        return f"input_blocks.{(layers + 1) * (level + 1)}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"output_blocks.{(layers + 1) * level + layers}.{1 if level == 0 else 2}.conv.{leaf}"
    block = (
        f"input_blocks.{(layers + 1) * level + layer + 1}"
        if side == "down"
        else f"output_blocks.{(layers + 1) * level + layer}"
    )
    return f"{block}.{int(kind == 'attentions')}.{inside(kind, rest)}"


def ldm_vae_name(name, levels=4):
    finest = levels - 1

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
        (r"up_blocks\.(\d)\.resnets", lambda found: f"up.{finest - int(found[1])}.block"),
        (r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{finest - int(found[1])}.upsample"),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def motion_name(name):
    name = re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", name)
    name = name.replace(".pos_embed.", ".attn1.pos_encoder.")  # and the same in the second attention
    name = re.sub(r"\.attn([12])\.", lambda found: f".attention_blocks.{int(found[1]) - 1}.", name)
    name = re.sub(r"(transformer_blocks\.0)\.norm([12])\.", lambda f: f"{f[1]}.norms.{int(f[2]) - 1}.", name)
    return name.replace("transformer_blocks.0.norm3.", "transformer_blocks.0.ff_norm.")
