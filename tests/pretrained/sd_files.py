"""The smallest Stable Diffusion with what is published for it: networks, folders, and the same as single files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from oracle import randomise
from pretrained.foreign_names import ldm_name, ldm_vae_name, motion_name
from pretrained.hub_files import CAPTIONS, DPT, TOKENS, write_json

from gen1_jax.pretrained.importing import HuggingFaceFolders

WIDTHS, TEXT_WIDTH, FRAMES = [32, 64], 64, 8
EMBEDDING, RANK = 12, 2
HINT = (4, 8, 12, 16)
DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")


def sd_networks(tokens: int = TOKENS) -> SimpleNamespace:
    """Random networks of diffusers and transformers. Heads and groups are those that single files are read with.

    Args:
        tokens: in the vocabulary of the text encoder.
    """
    import diffusers
    import transformers

    shared = dict(block_out_channels=WIDTHS, layers_per_block=1, norm_num_groups=32)
    attention = dict(down_block_types=DOWN, cross_attention_dim=TEXT_WIDTH, attention_head_dim=8, **shared)
    motion = dict(block_out_channels=WIDTHS, motion_layers_per_block=1, motion_max_seq_length=FRAMES)
    networks = SimpleNamespace(
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), **attention
        ),
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            **shared | {"block_out_channels": [32] * 4},
        ),
        text=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=TEXT_WIDTH,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=1,
                vocab_size=tokens,
                bos_token_id=tokens - 2,
                eos_token_id=tokens - 1,
            )
        ),
        motion=diffusers.MotionAdapter(**motion),
        v3=diffusers.MotionAdapter(**motion, use_motion_mid_block=False),
        canny=diffusers.ControlNetModel(**attention, conditioning_embedding_out_channels=HINT),
        tile=diffusers.ControlNetModel(**attention, conditioning_embedding_out_channels=HINT),
    )
    networks.depth = transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPT))
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    vision |= dict(image_size=16, patch_size=8, hidden_act="gelu", projection_dim=EMBEDDING)
    networks.encoder = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**vision))
    for seed, network in enumerate(vars(networks).values()):
        randomise(network, seed)
    networks.depth.head.head[4].bias.data.fill_(1.0)  # the last relu would leave little
    return networks


FOLDERS = dict(
    unet="sd/unet",
    vae="sd/vae",
    text="sd/text_encoder",
    motion="motion_v2",
    v3="motion_v3",
    canny="control_canny",
    tile="control_tile",
    encoder="image_encoder",
    depth="dpt",
)


def save_folders(networks: SimpleNamespace, root: Path) -> None:
    """As a hub has them; the tokenizer, too."""
    from gen1_jax.pretrained.tokenizer import train_tokenizer

    for name, folder in FOLDERS.items():
        getattr(networks, name).save_pretrained(root / folder)
    (root / "sd" / "tokenizer").mkdir()
    train_tokenizer(CAPTIONS, TOKENS).model.save(str(root / "sd" / "tokenizer"))
    write_json(root / "sd" / "scheduler" / "scheduler_config.json", {"beta_schedule": "scaled_linear"})


def save_files(networks: SimpleNamespace, root: Path) -> None:
    """sd, vae, canny, motion, ip, hed and lora, each .safetensors, in their authors' names."""
    from safetensors.numpy import save_file

    for name, tensors in (("ip", ip_adapter_tensors(networks.unet)), ("hed", hed_tensors()), ("lora", lora_tensors())):
        save_file(tensors, root / f"{name}.safetensors")

    def arrays(name, spelling, prefix=""):
        state = getattr(networks, name).state_dict()
        return {prefix + spelling(key): np.ascontiguousarray(value.numpy()) for key, value in state.items()}

    unet = arrays("unet", lambda key: ldm_name(key, 1), "model.diffusion_model.")
    vae = arrays("vae", lambda key: ldm_vae_name(key, 4))
    for key, value in vae.items():
        if ".attn_1." in key and value.ndim == 2:
            vae[key] = value[..., None, None]  # 1x1 convolutions there
    text = arrays("text", lambda key: key.removeprefix("text_model."), "cond_stage_model.transformer.text_model.")
    text["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
    others = {"betas": np.ones(3, np.float32), "model_ema.decay": np.ones((), np.float32)}
    save_file(unet | {f"first_stage_model.{key}": x for key, x in vae.items()} | text | others, root / "sd.safetensors")
    save_file(vae, root / "vae.safetensors")
    save_file(arrays("canny", lambda key: ldm_name(key, 1), "control_model."), root / "canny.safetensors")
    motion = arrays("motion", motion_name, "module.")
    second = {key.replace(".0.pos_", ".1.pos_"): value for key, value in motion.items() if key.endswith(".pe")}
    save_file(motion | second, root / "motion.safetensors")


def ip_adapter_tensors(unet) -> dict[str, np.ndarray]:
    """An IP-Adapter of the base kind, its attentions numbered as diffusers counts those of the U-Net."""
    normal = np.random.default_rng(7).normal
    tensors = {"image_proj.proj.weight": normal(size=(4 * TEXT_WIDTH, EMBEDDING))}
    tensors |= {"image_proj.proj.bias": normal(size=4 * TEXT_WIDTH), "image_proj.norm.bias": normal(size=TEXT_WIDTH)}
    tensors["image_proj.norm.weight"] = 1 + 0.1 * normal(size=TEXT_WIDTH)
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            tensors |= {f"ip_adapter.{number}.to_{x}_ip.weight": 0.2 * normal(size=(width, TEXT_WIDTH)) for x in "kv"}
    return {name: value.astype(np.float32) for name, value in tensors.items()}


LORA = "text_model.encoder.layers.0.mlp.fc1"


def lora_tensors() -> dict[str, np.ndarray]:
    """A LoRA of one layer of the text encoder, in kohya's spelling; alpha is half the rank."""
    name, rng = "lora_te_" + LORA.replace(".", "_"), np.random.default_rng(8)
    down, up = rng.normal(size=(RANK, TEXT_WIDTH)), rng.normal(size=(32, RANK))
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.array(RANK / 2)}
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def hed_tensors() -> dict[str, np.ndarray]:
    """An edge detector as ControlNetHED.pth names it, of a width each block."""
    tensors, previous = {"norm": np.full((1, 3, 1, 1), 100.0)}, 3
    for block, layers in enumerate((2, 2, 3, 3, 3), 1):
        for layer in range(layers):
            tensors[f"block{block}.convs.{layer}.weight"] = np.ones((2, previous, 3, 3))
            tensors[f"block{block}.convs.{layer}.bias"] = np.zeros(2)
            previous = 2
        tensors |= {
            f"block{block}.projection.weight": np.ones((1, 2, 1, 1)),
            f"block{block}.projection.bias": np.ones(1),
        }
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def given(root, **changes) -> HuggingFaceFolders:
    """What an import takes: the base, motion modules, and ControlNets of two kinds; with changes."""
    path = {name: root / folder for name, folder in FOLDERS.items()}
    base = {name: path[name] for name in ("unet", "vae", "text", "motion")}
    controlnets = {kind: path[kind] for kind in ("canny", "tile")}
    return HuggingFaceFolders(**base | {"controlnets": controlnets} | changes)


def per_frame(module):
    """diffusers' motion modules normalise over the clip; they were trained with norms over each frame."""
    import torch

    class PerFrame(torch.nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            folded = x.transpose(1, 2).flatten(0, 1)
            return self.norm(folded).unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)

    for part in module.modules():
        if type(part).__name__ == "AnimateDiffTransformer3D":
            part.norm = PerFrame(part.norm)
    return module
