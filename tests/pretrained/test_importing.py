import dataclasses
import inspect
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub_files import CAPTIONS, SCHEDULER, TEXT, VISION, arguments, edit_json, write_json
from oracle import randomise, relative_error

from gen1_jax import Gen1Pipeline, cli
from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.editing.settings import EditSettings
from gen1_jax.models.module import flatten
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.hf_unet import noise_schedule, their_scheduler_config
from gen1_jax.pretrained.importing import import_huggingface


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def to_torch(array, channels_first=False):
    import torch

    tensor = torch.tensor(np.asarray(array))
    return tensor.movedim(-1, -3) if channels_first else tensor


def from_torch(tensor):
    return tensor.detach().movedim(-3, -1).numpy()


@pytest.fixture(scope="module")
def model(hub, tmp_path_factory):
    """The imported family. Its networks are for pictures too small for the default size."""
    folder = tmp_path_factory.mktemp("imported") / "model"
    import_huggingface(hub, folder)
    edit_json(folder / "config.json", height=16, width=24)
    return folder


@pytest.fixture(scope="module")
def pipeline(model):
    return Gen1Pipeline.from_pretrained(model)


@pytest.mark.parametrize("frames", [1, 8])
def test_unet_equals_diffusers_frame_by_frame(pipeline, torch_family, frames):
    latents, content = normal(1, frames, 6, 8, 4), normal(1, 1, 16, seed=1)
    structure, level = normal(1, frames, 6, 8, 4, seed=2), jnp.array([3])
    ours = pipeline.unet(latents, jnp.array([417]), content, structure, level)
    tokens = to_torch(content).expand(frames, -1, -1)
    theirs = torch_family["unet"](to_torch(latents[0], channels_first=True), 417, tokens).sample
    assert relative_error(ours[0], from_torch(theirs)) <= 1e-4


def test_vae_equals_diffusers(pipeline, torch_family):
    images, latents = normal(2, 12, 16, 3), normal(2, 6, 8, 4)
    encoded = torch_family["vae"].encode(to_torch(images, channels_first=True)).latent_dist
    decoded = torch_family["vae"].decode(to_torch(latents, channels_first=True)).sample
    ours = pipeline.vae.encode(images)
    assert relative_error(ours.mean, from_torch(encoded.mean)) <= 1e-4
    assert relative_error(ours.log_variance, from_torch(encoded.logvar)) <= 1e-4
    assert relative_error(pipeline.vae.decode(latents), from_torch(decoded)) <= 1e-4


def test_clip_equals_transformers_from_the_prompt_on(pipeline, torch_family, hub):
    import transformers

    pixels = normal(2, 16, 16, 3)
    clip = torch_family["clip"]
    summary = clip.vision_model(to_torch(pixels, channels_first=True)).pooler_output
    theirs = clip.visual_projection(summary).detach().numpy()
    assert relative_error(pipeline.clip.encode_image(pixels), theirs) <= 1e-4

    tokenizer = transformers.CLIPTokenizer(vocab=str(hub.clip / "vocab.json"), merges=str(hub.clip / "merges.txt"))
    tokens = tokenizer(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt")
    summary = clip.text_model(tokens.input_ids).pooler_output
    ids, _ = pipeline.tokenizer(CAPTIONS)
    theirs = clip.text_projection(summary).detach().numpy()
    assert relative_error(pipeline.clip.encode_text(ids), theirs) <= 1e-4


def test_depth_equals_transformers(pipeline, torch_family):
    pixels = normal(2, 32, 32, 3)
    theirs = torch_family["depth"](to_torch(pixels, channels_first=True)).predicted_depth.detach().numpy()
    assert (theirs > 0).mean() > 0.3
    assert relative_error(pipeline.depth(pixels), theirs) <= 1e-4


def test_prior_equals_diffusers(pipeline, torch_family):
    text = normal(2, 16), normal(2, 77, 16, seed=1), np.arange(77) < np.array([[9], [77]])
    noisy, timesteps = normal(2, 16, seed=2), np.array([20, 800])
    theirs = torch_family["prior"](*map(to_torch, (noisy, timesteps, *text))).predicted_image_embedding
    assert relative_error(pipeline.prior(noisy, timesteps, *text), theirs.detach().numpy()) <= 1e-4


def test_imported_model_edits_from_a_prompt_and_from_a_picture(pipeline):
    frames = np.random.default_rng(0).integers(0, 256, (2, 18, 30, 3), np.uint8)
    by_prompt, again, by_image = (
        pipeline.edit(frames, **content, num_inference_steps=2).frames
        for content in ({"prompt": CAPTIONS[0]}, {"prompt": CAPTIONS[0]}, {"image": frames[0]})
    )
    assert by_prompt.shape == by_image.shape == frames.shape
    np.testing.assert_array_equal(by_prompt, again)
    assert (by_prompt != by_image).any()


def test_command_line_writes_the_same_folder(hub, tmp_path, capsys):
    import_huggingface(hub, tmp_path / "a")
    assert cli.main(arguments(hub, tmp_path / "b")) == 0
    assert "a model folder" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    components = ("clip", "depth", "prior", "unet", "vae")
    assert names == sorted(["config.json", "tokenizer.json", *(f"{c}.safetensors" for c in components)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def parameters(folder):
    source = ModelFolder(folder)
    return {c: flatten(source.parameters(c)) for c in source.config.components}


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_shards_are_read_as_one_file(hub, model, torch_family, tmp_path):
    shards = {}
    for component in ("unet", "clip"):
        shards[component] = tmp_path / component
        torch_family[component].save_pretrained(shards[component], max_shard_size="20KB")
        assert len(list(shards[component].glob("*.safetensors"))) > 2
    tokenizer = hub.clip
    import_huggingface(dataclasses.replace(hub, **shards, tokenizer=tokenizer), tmp_path / "model")
    assert_same(parameters(tmp_path / "model"), parameters(model))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_widened_exactly(folders, model, torch_family, tmp_path, dtype):
    import copy

    import torch

    half = copy.deepcopy(torch_family["vae"]).to(getattr(torch, dtype))
    half.save_pretrained(folders.vae)
    import_huggingface(folders, tmp_path / "model")
    halved, full = parameters(tmp_path / "model")["vae"], parameters(model)["vae"]
    for name, value in full.items():
        assert halved[name].dtype == np.float32
        expected = torch.tensor(value).to(getattr(torch, dtype)).float().numpy()
        np.testing.assert_array_equal(halved[name], expected, err_msg=name)


def test_variants_beside_the_standard_file_do_not_count(folders, model, tmp_path):
    standard = folders.vae / "diffusion_pytorch_model.safetensors"
    for variant in ("fp16", "non_ema"):
        standard.with_suffix(f".{variant}.safetensors").write_bytes(b"not read")
    standard.with_suffix(".bin").write_bytes(b"not read")
    write_json(folders.vae / "diffusion_pytorch_model.fp16.safetensors.index.json", {})
    import_huggingface(folders, tmp_path / "model")
    assert_same(parameters(tmp_path / "model")["vae"], parameters(model)["vae"])


def test_towers_of_clip_in_folders_of_their_own(hub, tmp_path):
    import transformers

    root = tmp_path / "pipeline"
    text = randomise(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**TEXT)))
    image = randomise(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION)))
    text.save_pretrained(root / "text_encoder")
    image.save_pretrained(root / "image_encoder")
    (root / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(hub.clip / name, root / "tokenizer")
    towers = dict(clip=None, clip_text=root / "text_encoder", clip_image=root / "image_encoder")
    folders = dataclasses.replace(hub, **towers)
    assert cli.main(arguments(folders, tmp_path / "model")) == 0
    clip = parameters(tmp_path / "model")["clip"]
    np.testing.assert_array_equal(clip["text_projection.kernel"], text.text_projection.weight.detach().numpy().T)
    np.testing.assert_array_equal(clip["visual_projection.kernel"], image.visual_projection.weight.detach().numpy().T)
    with pytest.raises(ValueError, match="both of clip_text and clip_image"):
        dataclasses.replace(folders, clip_image=None)


def test_without_a_prior_a_picture_is_needed(hub, tmp_path):
    import_huggingface(dataclasses.replace(hub, prior=None), tmp_path / "model")
    pipeline = Gen1Pipeline.from_pretrained(tmp_path / "model")
    assert pipeline.prior is None
    picture = np.zeros((16, 16, 3), np.uint8)
    settings = EditSettings()
    assert pipeline.encode_content(None, [picture], settings).content["image"].shape == (1, 1, 16)
    with pytest.raises(ValueError, match=r"^model has no prior, so it cannot take a prompt: give an image$"):
        pipeline.encode_content("a cube", [], settings)


@pytest.mark.parametrize(
    ("changes", "schedule", "prediction_type"),
    [
        ({}, NoiseSchedule(), "epsilon"),
        (
            {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
            NoiseSchedule(rescale_zero_terminal_snr=True),
            "v_prediction",
        ),
        (
            {"prediction_type": "sample", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
            NoiseSchedule(beta_schedule="linear", beta_start=1e-4, beta_end=0.02),
            "sample",
        ),
    ],
)
def test_scheduler_beside_the_unet_tells_what_it_predicts(folders, tmp_path, changes, schedule, prediction_type):
    write_json(folders.unet.parent / "scheduler" / "scheduler_config.json", SCHEDULER | changes)
    config = import_huggingface(folders, tmp_path / "model")
    assert config.schedule == schedule
    assert config.unet.prediction_type == prediction_type
    assert ModelFolder(tmp_path / "model").config == config


@pytest.mark.parametrize("clean", [True, False])
def test_where_the_last_step_ends_is_read_and_written(clean):
    schedule = NoiseSchedule(beta_schedule="linear", set_alpha_to_one=clean)
    assert noise_schedule(their_scheduler_config(schedule, "epsilon")) == (schedule, "epsilon")
    written = Gen1Config(schedule=schedule).to_dict()
    assert Gen1Config.from_dict(written).schedule == schedule and ("set_alpha_to_one" in written["schedule"]) == clean


def test_where_the_last_step_ends_is_the_schedulers_default_where_it_is_not_said():
    import diffusers

    for name in ("DDIMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"):
        theirs = inspect.signature(getattr(diffusers, name)).parameters["set_alpha_to_one"].default
        assert noise_schedule({"_class_name": name})[0].set_alpha_to_one == theirs
    assert not noise_schedule({"_class_name": "EulerDiscreteScheduler"})[0].set_alpha_to_one


def test_absent_keys_of_a_scheduler_are_diffusers(folders, tmp_path):
    import diffusers

    write_json(tmp_path / "scheduler" / "scheduler_config.json", {})
    folders = dataclasses.replace(folders, scheduler=tmp_path / "scheduler")
    schedule = import_huggingface(folders, tmp_path / "model").schedule
    theirs = diffusers.DDIMScheduler().alphas_cumprod.numpy()
    np.testing.assert_allclose(schedule.alphas_cumprod, theirs, rtol=1e-4)


def test_old_attention_names_of_stable_diffusions_vae(folders, model, tmp_path):
    from safetensors.numpy import load_file, save_file

    file = folders.vae / "diffusion_pytorch_model.safetensors"
    spelling = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, value in load_file(file).items():
        for new, before in spelling.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{before}.")
        old[name] = value
    assert sum(".query." in name for name in old) == 4
    save_file(old, file)
    import_huggingface(folders, tmp_path / "model")
    assert_same(parameters(tmp_path / "model")["vae"], parameters(model)["vae"])


def test_tokenizer_json_serves_without_vocabulary_files(folders, model, tmp_path):
    from transformers import CLIPTokenizer

    names = folders.clip / "vocab.json", folders.clip / "merges.txt"
    CLIPTokenizer(vocab=str(names[0]), merges=str(names[1])).save_pretrained(folders.clip)
    for name in names:
        name.unlink()
    import_huggingface(folders, tmp_path / "model")
    for ours, theirs in zip(*(ModelFolder(f).tokenizer()(CAPTIONS) for f in (tmp_path / "model", model)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
