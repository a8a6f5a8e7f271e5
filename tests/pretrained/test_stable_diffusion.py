"""Stable Diffusion with motion modules and ControlNets: imported, and compared with diffusers."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from hub_files import arguments, edit_json
from oracle import relative_error
from safetensors.numpy import load_file, save_file
from sd_files import (
    EMBEDDING,
    FOLDERS,
    FRAMES,
    RANK,
    TEXT_WIDTH,
    given,
    ip_adapter_tensors,
    lora_tensors,
    save_files,
    save_folders,
    sd_networks,
)

from gen1_jax import cli
from gen1_jax.errors import UserError
from gen1_jax.exporting import diffusers_format
from gen1_jax.exporting.export import export
from gen1_jax.exporting.public_parity import normalising_frames
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import Bound, flatten
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.importing import HuggingFaceFolders, import_huggingface
from gen1_jax.pretrained.stable_diffusion import text_model


@pytest.fixture(scope="module")
def networks():
    return sd_networks()


@pytest.fixture(scope="module")
def public(networks, tmp_path_factory):
    """Folders and single files of the networks."""
    root = tmp_path_factory.mktemp("public")
    save_folders(networks, root)
    save_files(networks, root)
    return root


@pytest.fixture(scope="module")
def model(public, tmp_path_factory):
    told = []
    folder = tmp_path_factory.mktemp("imported") / "model"
    import_huggingface(given(public), folder, tell=told.append)
    assert told == [
        "noise schedule: linear, 0.00085 to 0.012, predicting epsilon, as the motion modules were trained",
    ]
    return ModelFolder(folder)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def theirs(x):
    import torch

    return torch.tensor(np.moveaxis(x, -1, -3) if x.ndim > 3 else x)


LATENTS, TEXT = normal(1, FRAMES, 8, 8, 4), normal(1, 5, TEXT_WIDTH, seed=1)
PICTURES = {kind: np.random.default_rng(i).random((1, FRAMES, 64, 64, 3), np.float32) for i, kind in enumerate(FOLDERS)}


def residuals(networks, frames, weights):
    """What diffusers' ControlNets add, summed: arguments of its U-Nets."""
    import torch

    total = None
    for kind, weight in weights.items():
        down, mid = getattr(networks, kind)(
            theirs(LATENTS[0, :frames]),
            417,
            torch.tensor(TEXT).expand(frames, -1, -1),
            controlnet_cond=theirs(PICTURES[kind][0, :frames]),
            conditioning_scale=weight,
            return_dict=False,
        )
        total = [a + b for a, b in zip(total, [*down, mid], strict=True)] if total else [*down, mid]
    return {"down_block_additional_residuals": total[:-1], "mid_block_additional_residual": total[-1]}


def ours(model, frames, weights, **more):
    unet = Bound(model.config.build("unet", np.float32), model.parameters("unet"))
    signals = {
        kind: Signal.of(unet.hint(PICTURES[kind][:, :frames], kind=kind), weight=jnp.array([weight]))
        for kind, weight in weights.items()
    }
    conditions = Conditions(**{"content": {"text": TEXT}} | more, structure=signals)
    return unet.denoise(LATENTS[:, :frames], jnp.array([417]), conditions)[0]


def test_a_clip_with_two_controls_equals_diffusers(model, networks):
    import copy

    import diffusers
    import torch

    unet = diffusers.UNetMotionModel.from_unet2d(copy.deepcopy(networks.unet), copy.deepcopy(networks.motion)).eval()
    weights = {"canny": 0.7, "tile": 0.4}
    with torch.no_grad():
        added = residuals(networks, FRAMES, weights)
        clip = theirs(LATENTS).transpose(1, 2)
        text = torch.tensor(TEXT).expand(FRAMES, -1, -1)
        by_clip = unet(clip, torch.tensor([417]), text, **added).sample
        by_frame = normalising_frames(unet)(clip, torch.tensor([417]), text, **added).sample
    expected = np.moveaxis(by_frame.numpy(), 1, -1)
    assert relative_error(ours(model, FRAMES, weights), expected) <= 1e-4
    assert relative_error(np.moveaxis(by_clip.numpy(), 1, -1), expected) > 1e-2  # so the norm matters


@pytest.fixture(scope="module")
def adapted(public, tmp_path_factory):
    """Without motion modules; with an adapter for pictures, an edge detector and a LoRA."""
    extras = dict(
        motion=None,
        controlnets={"canny": public / FOLDERS["canny"]},
        ip_adapter=public / "ip.safetensors",
        image_encoder=public / FOLDERS["encoder"],
        softedge=public / "hed.safetensors",
        loras=((public / "lora.safetensors", 0.5),),
    )
    folder = tmp_path_factory.mktemp("adapted") / "model"
    assert cli.main(arguments(given(public, **extras), folder)) == 0
    return ModelFolder(folder)


def test_a_picture_with_a_control_and_an_adapter_equals_diffusers(adapted, networks):
    import copy

    import torch

    assert adapted.config.components == ("unet", "vae", "text", "image_encoder", "image_tokens", "softedge")
    unet, embedding = copy.deepcopy(networks.unet), normal(1, EMBEDDING, seed=3)
    state = {"image_proj": {}, "ip_adapter": {}}
    for name, value in ip_adapter_tensors(unet).items():
        group, _, rest = name.partition(".")
        state[group][rest] = torch.tensor(value)
    unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        processor.scale = [0.6]
    with torch.no_grad():
        added = residuals(networks, 1, {"canny": 0.7}) | {
            "added_cond_kwargs": {"image_embeds": [torch.tensor(embedding)[:, None]]}
        }
        expected = unet(theirs(LATENTS[0, :1]), 417, torch.tensor(TEXT), **added).sample
    module = adapted.config.build("image_tokens", np.float32)
    tokens = Bound(module, adapted.parameters("image_tokens"))(embedding)
    picture = dict(content={"text": TEXT, "image": tokens}, strength={"image": jnp.array([0.6])})
    out = ours(adapted, 1, {"canny": 0.7}, **picture)[0]
    assert relative_error(out, np.moveaxis(expected.numpy(), 1, -1)) <= 1e-4


def test_a_lora_is_merged_for_good(adapted, model):
    before, after = (flatten(source.parameters("text")) for source in (model, adapted))
    (changed,) = [path for path in before if (before[path] != after[path]).any()]
    assert changed == "layers.0.fc1.kernel"
    lora = {name.split(".", 1)[1]: x for name, x in lora_tensors().items()}
    delta = lora["alpha"] / RANK * (lora["lora_up.weight"] @ lora["lora_down.weight"])
    np.testing.assert_allclose(after[changed], before[changed] + 0.5 * delta.T, rtol=1e-5, atol=1e-6)


def test_what_the_importer_decides(model):
    config = model.config
    assert (config.height, config.width, config.guidance_scale, config.num_inference_steps) == (512, 512, 7.5, 25)
    assert (config.num_frames, config.window_overlap, config.unet.max_frames) == (FRAMES, 6, FRAMES)
    assert (config.unet.temporal, config.unet.motion_mid_block, config.unet.content_kind) == (
        "animatediff",
        True,
        "text",
    )
    assert (config.unet.structure_channels, config.unet.prediction_type) == (0, "epsilon")
    assert (config.schedule.beta_schedule, config.schedule.set_alpha_to_one) == ("linear", True)
    assert [control.kind for control in config.unet.controls] == ["canny", "tile"]
    assert config.components == ("unet", "vae", "text") and config.caution is None


def parameters(folder):
    source = ModelFolder(folder)
    return {component: flatten(source.parameters(component)) for component in source.config.components}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for component, tensors in one.items():
        assert tensors.keys() == other[component].keys()
        for name, value in tensors.items():
            np.testing.assert_array_equal(value, other[component][name], err_msg=name)


def test_single_files_are_the_same_model(public, model, tmp_path):
    """In their authors' names: checkpoint, ControlNet and motion modules; and the VAE in place of the checkpoint's."""
    files = given(
        public,
        unet=None,
        vae=public / "vae.safetensors",
        text=None,
        checkpoint=public / "sd.safetensors",
        motion=public / "motion.safetensors",
        controlnets={"canny": public / "canny.safetensors", "tile": public / FOLDERS["tile"]},
        tokenizer=public / "sd",
    )
    assert cli.main(arguments(files, tmp_path / "model")) == 0
    assert_same(parameters(tmp_path / "model"), parameters(model.path))
    assert ModelFolder(tmp_path / "model").config == model.config


def configure(folder, **changes):
    edit_json(folder / "config.json", **changes)


def without(folder, name):
    file = next(folder.glob("*.safetensors"))
    tensors = load_file(file)
    del tensors[name]
    save_file(tensors, file)


FIRST = "down_blocks.0.motion_modules.0.norm.bias"
REFUSED = {
    f"motion_v2 lacks tensors: {FIRST}": lambda f: without(f.motion, FIRST),
    "motion_max_seq_length is 24, of AnimateDiff v1": lambda f: configure(f.motion, motion_max_seq_length=24),
    "block_out_channels is (32, 128), only (32, 64)": lambda f: configure(f.motion, block_out_channels=[32, 128]),
    "conv_in_channels is 9": lambda f: configure(f.motion, conv_in_channels=9),
    "motion_transformer_layers_per_block is 2": lambda f: configure(f.motion, motion_transformer_layers_per_block=2),
    "cross_attention_dim is 1024, only 64": lambda f: configure(f.controlnets["tile"], cross_attention_dim=1024),
    "channel_order is 'bgr'": lambda f: configure(f.controlnets["tile"], controlnet_conditioning_channel_order="bgr"),
    "[], not a list of widths": lambda f: configure(f.controlnets["tile"], conditioning_embedding_out_channels=[]),
    "sd/unet predicts v_prediction, but motion modules": lambda f: edit_json(
        f.unet.parent / "scheduler" / "scheduler_config.json", prediction_type="v_prediction"
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_variants_and_parts_of_other_models_are_refused(public, tmp_path, said):
    for name in ("sd", "motion_v2", "control_canny", "control_tile"):
        shutil.copytree(public / name, tmp_path / name)
    folders = given(tmp_path)
    REFUSED[said](folders)
    with pytest.raises(UserError) as refused:
        text_model(folders)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_weights_that_are_no_numbers_leave_nothing_behind(public, tmp_path, capsys):
    for name in ("sd", "motion_v2"):
        shutil.copytree(public / name, tmp_path / name)
    folders = given(tmp_path, controlnets={})
    file = next(folders.vae.glob("*.safetensors"))
    tensors = load_file(file)
    tensors["encoder.conv_in.bias"][3] = np.nan
    save_file(tensors, file)
    assert cli.main([*arguments(folders, tmp_path / "new" / "model"), "--json"]) == 2
    said = f"gen1: {folders.vae} is damaged: encoder.conv_in.bias is not finite everywhere\n"
    assert capsys.readouterr() == ("", said)
    assert not (tmp_path / "new").exists()


SWAPPED = {
    "motion": ("canny.safetensors", "canny.safetensors is a ControlNet, not motion modules: give it with --controlnet"),
    "checkpoint": ("vae.safetensors", "vae.safetensors is an autoencoder, not a whole model in one file"),
    "vae": ("motion.safetensors", "motion.safetensors is motion modules, not an autoencoder: give it with --motion"),
    "text": ("motion_v2", "motion_v2 is motion modules, not a text encoder"),
}


@pytest.mark.parametrize("option", SWAPPED)
def test_swapped_checkpoints_are_told(public, tmp_path, check_refusal, option):
    name, said = SWAPPED[option]
    base = {"unet": None} if option == "checkpoint" else {}
    folders = given(public, **base | {option: public / name})
    check_refusal(lambda: import_huggingface(folders, tmp_path / "model"), arguments(folders, tmp_path / "model"), said)


def test_controls_of_other_names_and_files(public, tmp_path, check_refusal):
    for kind, name, said in (
        ("clouds", "control_tile", "there is no structure of kind 'clouds', only canny"),
        ("canny", "motion.safetensors", "is motion modules, not a ControlNet: give it with --motion"),
        ("canny", "sd", "sd has no ControlNetModel, only"),
        ("canny", "nowhere", "nowhere is not a folder"),
    ):
        folders = given(public, controlnets={kind: public / name})
        with pytest.raises(UserError, match=said):
            import_huggingface(folders, tmp_path / "model")
    command = arguments(given(public, controlnets={}), tmp_path / "model")
    assert cli.main([*command, "--controlnet=canny=a", "--controlnet=canny=b"]) == 2


def test_options_that_do_not_go_together(public):
    for changes, said in (
        ({"checkpoint": public}, "either unet .* or checkpoint"),
        ({"vae": None}, "give a vae"),
        ({"clip": public}, "clip and prior are for"),
        ({"prior": public}, "clip and prior are for"),
        ({"text": None, "clip": public, "depth": public}, "^motion goes with content of text"),
        ({"text": None, "depth": public}, "either clip .* or a text encoder"),
        ({"controlnets": {"depth": public}}, "give a depth network"),
        ({"ip_adapter": public}, "ip_adapter and image_encoder go together"),
    ):
        with pytest.raises(UserError, match=said):
            given(public, **changes)


def test_the_middle_is_told_by_the_tensors_and_animatelcm_by_its_files(public, tmp_path):
    """Configurations of v1 and v3 say that there is a module in the middle, which there is not."""
    shutil.copytree(public / FOLDERS["v3"], tmp_path / "v3")
    edit_json(tmp_path / "v3" / "config.json", use_motion_mid_block=True)
    folders = given(public, motion=tmp_path / "v3", controlnets={})
    assert not text_model(folders).config.unet.motion_mid_block
    tensors = {name: x for name, x in load_file(public / "motion.safetensors").items() if not name.endswith(".pe")}
    save_file(tensors, tmp_path / "x.safetensors")  # AnimateLCM's own file has no positions
    shutil.copytree(public / FOLDERS["motion"], tmp_path / "AnimateLCM")
    for motion, sampler in (
        (tmp_path / "x.safetensors", "lcm"),
        (tmp_path / "AnimateLCM", "lcm"),
        (public / FOLDERS["motion"], "ddim"),
    ):
        assert text_model(given(public, motion=motion, controlnets={})).config.sampler == sampler


def test_without_motion_modules_there_are_no_layers_between_frames(public, tmp_path):
    """And the schedule is the base's; a depth network may be there without a control of it."""
    config = text_model(given(public, motion=None, controlnets={})).config
    assert (config.unet.temporal, config.schedule.beta_schedule, config.num_frames) == ("none", "scaled_linear", 16)


def test_half_precision_halves_the_folder(public, tmp_path):
    folders = given(public, motion=None, controlnets={})
    import_huggingface(folders, tmp_path / "whole")
    assert cli.main([*arguments(folders, tmp_path / "half"), "--dtype", "bfloat16", "--json"]) == 0
    whole, half = parameters(tmp_path / "whole"), parameters(tmp_path / "half")
    for component, tensors in half.items():
        for name, value in tensors.items():
            expected = whole[component][name].astype(jnp.bfloat16 if value.ndim > 1 else np.float32)
            assert value.dtype == expected.dtype
            np.testing.assert_array_equal(value, expected)


def read_back(source, root, out, **folders):
    """The exported folders, imported, are the model again."""
    parts = {"unet": "unet", "vae": "vae", "text": "text_encoder"} | folders
    kinds = [control.kind for control in source.config.unet.controls]
    again = HuggingFaceFolders(
        **{part: root / folder for part, folder in parts.items()},
        controlnets={kind: root / f"controlnet_{kind}" for kind in kinds},
    )
    assert import_huggingface(again, out) == source.config
    assert_same(parameters(out), parameters(source.path))


def test_export_for_diffusers_measures_every_part_and_is_read_back(adapted, tmp_path):
    export(adapted, tmp_path / "theirs", format="diffusers")
    parity = json.loads((tmp_path / "theirs" / "manifest.json").read_text())["parity"]
    parts = {"unet", "controlnet_canny", "ip_adapter", "vae_encode", "vae_decode", "text", "image_encoder"}
    assert parity.keys() == parts | {"image_tokens", "scheduler", "tokenizer"}
    assert all(0 < value <= 1e-4 for part, value in parity.items() if part in parts)
    extras = dict(softedge="softedge", image_encoder="image_encoder", ip_adapter="ip_adapter/ip-adapter.safetensors")
    read_back(adapted, tmp_path / "theirs", tmp_path / "again", **extras)


def test_exported_motion_modules_are_a_motion_adapter(model, networks, tmp_path, monkeypatch):
    from diffusers import MotionAdapter

    monkeypatch.setattr(diffusers_format, "measure", lambda *_: {})  # see above; a clip takes longer to compile
    export(model, tmp_path / "theirs", format="diffusers")
    adapter, info = MotionAdapter.from_pretrained(tmp_path / "theirs" / "motion_adapter", output_loading_info=True)
    assert not any(info.values())
    for name, value in networks.motion.state_dict().items():  # positions among them
        np.testing.assert_allclose(adapter.state_dict()[name], value, atol=1e-6)
    read_back(model, tmp_path / "theirs", tmp_path / "again", motion="motion_adapter")
