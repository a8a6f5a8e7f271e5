"""Foreign names against diffusers' own converters, over every name of the full-size networks."""

import dataclasses
import re

import pytest
from foreign_names import ldm_name, ldm_vae_name, motion_name

from gen1_jax.models.clip import CLIPTextConfig, TextEncoder
from gen1_jax.models.denoiser_config import LEVEL_PERIOD
from gen1_jax.models.module import abstract_parameters, flatten, parameter_count
from gen1_jax.models.unet import ControlConfig, SpaceTimeUNet, UNetConfig
from gen1_jax.models.vae import AutoencoderKL, VAEConfig
from gen1_jax.pretrained.assembly import Network, Source
from gen1_jax.pretrained.hf_clip import clip_text_config
from gen1_jax.pretrained.hf_control import control_layout, control_paths, control_shape, with_control
from gen1_jax.pretrained.hf_motion import MOTION, MOTION_PATHS, motion_shape, with_motion
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.hf_unet import UNET, unet_config, unet_shape
from gen1_jax.pretrained.hf_vae import VAE, vae_config, vae_shape
from gen1_jax.pretrained.sizes import PUBLIC, TEXT_UNET
from gen1_jax.pretrained.spellings import ldm_control, ldm_text, ldm_unet, ldm_vae, motion_original
from gen1_jax.pretrained.stable_diffusion import text_shape


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


@dataclasses.dataclass
class Header:
    shape: tuple
    dtype: str = "float32"


def headers(tensors):
    return {name: Header(tuple(x.shape)) for name, x in tensors.items()}


def test_full_size_networks_fit_in_every_name_and_shape(networks):
    """Base, motion modules and a ControlNet fill one U-Net; sizes that single files show are Stable Diffusion's."""
    file = {name: headers(tensors) for name, tensors in networks.items()}
    unet = unet_config(
        unet_shape(ldm_unet({f"model.diffusion_model.{ldm_name(k)}": x for k, x in file["unet"].items()}))
    )
    assert unet == UNetConfig(prediction_type="epsilon", structure_level_period=LEVEL_PERIOD)
    plain = dataclasses.replace(unet, **TEXT_UNET, temporal="none")
    control = control_shape(ldm_control({ldm_name(k): x for k, x in file["controlnet"].items()}))
    is_motion = lambda path: re.search(MOTION_PATHS, path) is not None
    is_control = lambda path: re.search(control_paths("canny"), path) is not None
    is_base = lambda path: not is_motion(path) and not is_control(path)
    pooled = with_control(control | {"global_pool_conditions": True}, kind="tile", base=plain)
    assert pooled.controls == (ControlConfig(kind="tile", pooled=True),)
    for version, has_middle in (("v2", True), ("v3", False)):
        seen = motion_original({motion_name(k): x for k, x in file[version].items()})
        moving = with_motion(motion_shape(seen), base=plain, tensors=seen)
        assert (moving.motion_mid_block, moving.max_frames) == (has_middle, 32)
        whole = with_control(control, kind="canny", base=moving)
        assert whole.controls == (ControlConfig(kind="canny"),)
        of_depth = dataclasses.replace(whole, controls=(ControlConfig(kind="depth"),))
        assert (of_depth == PUBLIC.unet) is (version == "v3")
        sources = (
            Source(layout=UNET, tensors=file["unet"], name="base", fills=is_base),
            Source(layout=MOTION, tensors=seen, name=version, fills=is_motion),
            Source(layout=control_layout("canny"), tensors=file["controlnet"], name="control", fills=is_control),
        )
        network = Network(module=SpaceTimeUNet(whole), sources=sources)
        count = parameter_count(abstract_parameters(network.module))
        assert count == 859_520_964 + (453_209_280 if has_middle else 417_137_600) + 361_279_120


def test_the_full_size_autoencoder_and_text_encoder(networks):
    file = headers(networks["vae"])
    vae = vae_config(vae_shape(ldm_vae({ldm_vae_name(name): x for name, x in file.items()})))
    assert vae == VAEConfig()
    module = AutoencoderKL(vae)
    Network(module=module, sources=(Source(layout=VAE, tensors=file, name="vae"),))
    assert parameter_count(abstract_parameters(module)) == 83_653_863
    text = TextEncoder(CLIPTextConfig())
    tensors = {TEXT_ENCODER.their_name(path): x for path, x in flatten(abstract_parameters(text)).items()}
    seen = ldm_text({f"cond_stage_model.transformer.{name}": x for name, x in tensors.items()})
    stored = {name: Header(x.shape[::-1]) if name.endswith("fc1.weight") else x for name, x in seen.items()}
    assert clip_text_config(text_shape(stored)) == CLIPTextConfig()
    assert parameter_count(abstract_parameters(text)) == 123_060_480 and len(seen) == 196
