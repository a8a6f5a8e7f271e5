"""The smallest Stable Diffusion with what is published for it: networks, folders, and the same as single files."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from foreign_names import ldm_name, ldm_vae_name, motion_name
from hub_files import CAPTIONS, TOKENS, write_json
from oracle import randomise

WIDTHS, TEXT_WIDTH, FRAMES = [32, 64], 64, 8
HINT = (4, 8, 12, 16)
DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")


def sd_networks() -> SimpleNamespace:
    """Random networks of diffusers and transformers. Heads and groups are those that single files are read with."""
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
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, **shared
        ),
        text=transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                hidden_size=TEXT_WIDTH,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=1,
                vocab_size=TOKENS,
                bos_token_id=TOKENS - 2,
                eos_token_id=TOKENS - 1,
            )
        ),
        motion=diffusers.MotionAdapter(**motion),
        v3=diffusers.MotionAdapter(**motion, use_motion_mid_block=False),
        canny=diffusers.ControlNetModel(**attention, conditioning_embedding_out_channels=HINT),
        tile=diffusers.ControlNetModel(**attention, conditioning_embedding_out_channels=HINT),
    )
    for seed, network in enumerate(vars(networks).values()):
        randomise(network, seed)
    return networks


FOLDERS = dict(
    unet="sd/unet",
    vae="sd/vae",
    text="sd/text_encoder",
    motion="motion_v2",
    v3="motion_v3",
    canny="control_canny",
    tile="control_tile",
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
    """sd.safetensors, vae.safetensors, canny.safetensors and motion.safetensors, in their authors' names."""
    from safetensors.numpy import save_file

    def arrays(name, spelling, prefix=""):
        state = getattr(networks, name).state_dict()
        return {prefix + spelling(key): np.ascontiguousarray(value.numpy()) for key, value in state.items()}

    unet = arrays("unet", lambda key: ldm_name(key, 1), "model.diffusion_model.")
    vae = arrays("vae", lambda key: ldm_vae_name(key, 2))
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
