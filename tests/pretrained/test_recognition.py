"""What checkpoints are told to be, from names and shapes alone, and how one that is not wanted is refused."""

import re
from pathlib import Path

import pytest

import gen1_jax
from gen1_jax.pretrained import recognition
from gen1_jax.pretrained.recognition import KINDS, check_is
from gen1_jax.pretrained.tensors import FolderError, checkpoint_files, stored_tensors


class Header:
    def __init__(self, *shape, dtype="float16"):
        self.shape, self.dtype = shape, dtype


def headers(*names, **shapes):
    return {name: Header(2, 2) for name in names} | {name: Header(*shape) for name, shape in shapes.items()}


M, T = "down_blocks.3.motion_modules.0.", "temporal_transformer.transformer_blocks.0."
ORIGINAL = headers(f"{M}{T}attention_blocks.0.to_q.weight", f"{M}{T}attention_blocks.1.to_q.weight")
LDM = headers("model.diffusion_model.time_embed.0.weight", "first_stage_model.encoder.conv_in.weight")
LDM["model.diffusion_model.input_blocks.0.0.weight"] = Header(320, 4, 3, 3)
LDM["model.diffusion_model.output_blocks.0.0.in_layers.0.weight"] = Header(320)
LDM["first_stage_model.encoder.conv_in.weight"] = Header(128, 3, 3, 3)
UNET = {"conv_in.weight": Header(320, 4, 3, 3)} | headers("up_blocks.0.resnets.0.norm1.bias", "time_embedding.a")
FILES = {
    "ip-adapter": {"image_proj.proj.weight": Header(3072, 1024), "ip_adapter.1.to_k_ip.weight": Header(320, 768)},
    "lora": headers("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"),
    "motion": ORIGINAL | {f"{M}{T}attention_blocks.0.pos_encoder.pe": Header(1, 32, 1280)},
    "controlnet": headers("control_model.zero_convs.0.0.weight", "control_model.input_hint_block.0.weight"),
    "checkpoint": LDM,
    "unet": UNET,
    "vae": {"encoder.conv_in.weight": Header(128, 3, 3, 3)},
    "image-encoder": headers("vision_model.post_layernorm.weight", "visual_projection.weight"),
    "clip": headers("vision_model.post_layernorm.weight", "text_model.final_layer_norm.weight"),
    "text": headers("text_model.final_layer_norm.weight"),
    "depth": headers("dpt.embeddings.cls_token", "head.head.0.weight"),
    "softedge": headers("block1.convs.0.weight", "norm"),
}
VARIANTS = {  # what is named, the option it is given with, its signs
    "is a Control-LoRA": ("controlnet", headers("lora_controlnet", "zero_convs.0.0.weight")),
    "FaceID, which needs embeddings of faces": (
        "ip-adapter",
        headers("image_proj.proj.0.weight", "image_proj.norm.weight", "ip_adapter.0.to_q_lora.down.weight"),
    ),
    "IP-Adapter of SDXL": ("ip-adapter", {"ip_adapter.1.to_k_ip.weight": Header(640, 2048)}),
    "ViT-bigG, take one for ViT-H": ("ip-adapter", {"image_proj.proj.weight": Header(3072, 1280)}),
    "HotshotXL": ("motion", headers("down_blocks.0.temporal_attentions.0.norm.weight")),
    "is AnimateLCM-I2V": ("motion", ORIGINAL | headers("img_encoder.conv_in.weight")),
    "is a SparseCtrl": ("controlnet", ORIGINAL | headers("controlnet_cond_embedding.conv_in.weight")),
    "a SparseCtrl, which": ("motion", headers(f"{M}{T}attention_blocks.0.to_q.weight")),
    "is PIA": ("motion", ORIGINAL | {"conv_in.weight": Header(320, 9, 3, 3)}),
    "v1, which were trained with the U-Net's norms over all frames of a clip": (
        "motion",
        ORIGINAL | {f"{M}{T}attention_blocks.0.pos_encoder.pe": Header(1, 24, 1280)},
    ),
    "motion modules of SDXL": ("motion", {n.replace("blocks.3", "blocks.2"): x for n, x in ORIGINAL.items()}),
    "is a T2I-Adapter": ("controlnet", headers("body.0.resnets.0.block1.weight")),
    "is a textual inversion": ("lora", headers("emb_params")),
    "of Stable Diffusion 3, only": ("checkpoint", headers("model.diffusion_model.joint_blocks.0.x.weight")),
    "of FLUX, only": ("checkpoint", headers("model.diffusion_model.double_blocks.0.x.weight")),
    "of SDXL, only": ("checkpoint", LDM | headers("conditioner.embedders.0.transformer.x")),
    "is of SDXL, only": ("unet", UNET | headers("add_embedding.linear_1.weight")),
    "of Stable Diffusion 2, only": ("checkpoint", LDM | headers("cond_stage_model.model.ln_final.weight")),
    "is of Stable Diffusion 2, only": ("unet", UNET | {"a.attn2.to_k.weight": Header(320, 1024)}),
    "a U-Net of LCM": ("unet", UNET | headers("time_embedding.cond_proj.weight")),
    "an inpainting model": (
        "checkpoint",
        LDM | {"model.diffusion_model.input_blocks.0.0.weight": Header(320, 9, 3, 3)},
    ),
    "InstructPix2Pix": ("unet", UNET | {"conv_in.weight": Header(320, 8, 3, 3)}),
    "a depth model": ("unet", UNET | {"conv_in.weight": Header(320, 5, 3, 3)}),
    "has numbers of 8 bits (up_blocks.0.x)": ("unet", UNET | {"up_blocks.0.x": Header(2, dtype="F8_E4M3")}),
}


@pytest.mark.parametrize("option", KINDS)
def test_each_kind_is_told_from_all_others(option):
    assert FILES.keys() == KINDS.keys()
    check_is(option, "x", FILES[option])
    for other in KINDS.keys() - {option}:
        with pytest.raises(
            FolderError,
            match=rf"^x is {KINDS[option][0]}, not .*: give it with --{option}".replace("(", r"\(").replace(")", r"\)"),
        ):
            check_is(other, "x", FILES[option])


@pytest.mark.parametrize("said", VARIANTS)
def test_variants_are_refused_by_name(said):
    option, tensors = VARIANTS[said]
    with pytest.raises(FolderError, match=re.escape(said)) as refused:
        check_is(option, "some.safetensors", tensors)
    assert str(refused.value).startswith("some.safetensors ") and "\n" not in str(refused.value)


def test_the_zoo_names_all_that_is_refused():
    page = (Path(gen1_jax.__file__).parent / "pretrained" / "README.md").read_text()
    refused = page[page.index("| does not fit |") :]
    for variant in recognition._VARIANTS:
        name = re.sub(r"^(an?|of) ", "", variant.what)
        assert name in refused, variant.what


def test_what_is_nothing_known_is_shown():
    for tensors, shown in ((headers("b", "a"), "x is not motion modules: it has a"), ({}, "it has no tensors")):
        with pytest.raises(FolderError, match=shown):
            check_is("motion", "x", tensors)


def test_files_that_are_none(tmp_path):
    (tmp_path / "renamed.safetensors").write_bytes(b"PK\x03\x04 not a safetensors file")
    for name, said in (("renamed.safetensors", "is not a readable"), ("no.safetensors", "is not there")):
        with pytest.raises(FolderError, match=f"{name} {said}"):
            stored_tensors(checkpoint_files(tmp_path / name))
