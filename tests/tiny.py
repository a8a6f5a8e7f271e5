"""A whole family of the smallest networks, for tests that need every part to run and none to be good."""

from pathlib import Path

import numpy as np

import gen1_jax
from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.models.clip import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from gen1_jax.models.depth import DPTConfig
from gen1_jax.models.module import initialise
from gen1_jax.models.prior import PriorConfig
from gen1_jax.models.unet import UNetConfig
from gen1_jax.models.vae import VAEConfig
from gen1_jax.pretrained.family import NANO, Gen1Config
from gen1_jax.pretrained.folder import save_model

_LAYERS = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)

TINY = Gen1Config(
    unet=UNetConfig(
        block_out_channels=(8, 8),
        attention_levels=(False, False),
        layers_per_block=1,
        num_attention_heads=2,
        cross_attention_dim=16,
        norm_num_groups=4,
        max_frames=4,
    ),
    vae=VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    clip=CLIPConfig(
        text=CLIPTextConfig(**_LAYERS, vocab_size=NANO.clip.text.vocab_size, eos_token_id=NANO.clip.text.eos_token_id),
        vision=CLIPVisionConfig(**_LAYERS, image_size=16, patch_size=8),
        projection_dim=16,
    ),
    depth=DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        backbone_out_indices=(0, 1, 2, 3),
        neck_hidden_sizes=(8, 8, 8, 8),
        fusion_hidden_size=8,
    ),
    prior=PriorConfig(num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16, text_hidden_size=16),
    schedule=NoiseSchedule(rescale_zero_terminal_snr=True),
    height=16,
    width=16,
    num_frames=4,
    window_overlap=2,
)


def save_tiny_model(folder: Path, config: Gen1Config = TINY) -> Path:
    """A model folder of it, with nano's vocabulary."""
    params = {c: initialise(config.build(c, np.float32), 0) for c in config.components}
    tokenizer = (Path(gen1_jax.__file__).parent / "pretrained" / "nano" / "tokenizer.json").read_text()
    save_model(folder, config, params, tokenizer)
    return folder
