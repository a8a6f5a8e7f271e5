"""Foreign names against diffusers' own converters, over every name of the full-size networks."""

import pytest
from foreign_names import ldm_name, ldm_vae_name, motion_name

from gen1_jax.pretrained.spellings import ldm_control, ldm_text, ldm_unet, ldm_vae, motion_original


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
    positions = {motion_name(name): 0 for name in networks[version].keys() - set(parameters)}
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
