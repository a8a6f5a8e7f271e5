"""What may be named in place of a network's folder, and what a U-Net's folders tell of its training."""

import contextlib
import dataclasses
import json
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hub_files import arguments, write_json
from tiny import save_tiny_model

from gen1_jax import cli
from gen1_jax.checkpoints.trained import TrainedModel
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.errors import UserError
from gen1_jax.evaluation.info import describe, render
from gen1_jax.pretrained.family import TINY, Gen1Config
from gen1_jax.pretrained.folder import AssembledModel, ModelFolder, open_model
from gen1_jax.pretrained.hf_pipeline import network_folder, trained_content
from gen1_jax.pretrained.importing import import_huggingface
from gen1_jax.pretrained.tensors import tensor_files

SD15 = {"_class_name": "StableDiffusionPipeline"}
VARIATIONS = {"_class_name": "StableDiffusionImageVariationPipeline"}


def folder_of(root, name, class_name):
    root.mkdir(exist_ok=True)
    key = {"architectures": [class_name]} if class_name.startswith(("CLIP", "DPT")) else {"_class_name": class_name}
    write_json(root / name / "config.json", key)
    return root / name


@pytest.mark.parametrize(
    ("root", "index", "beside", "config", "told"),
    [
        ("sd", {}, [], {}, "unknown"),
        ("sd", {}, ["text_encoder"], {}, "text"),
        ("sd", {}, ["image_encoder"], {}, "image"),
        ("sd", {}, ["image_encoder", "text_encoder"], {}, "unknown"),
        ("sd", SD15, ["image_encoder", "text_encoder"], {}, "text"),
        ("sd", VARIATIONS, [], {}, "image"),
        ("sd", {}, [], {"_name_or_path": "CompVis/stable-diffusion-v1-4"}, "text"),
        ("sd", {}, [], {"_name_or_path": "lambdalabs/sd-image-variations-diffusers"}, "image"),
        ("stable-diffusion-v1-5", {}, [], {}, "text"),
        ("sd-image-variations", {}, [], {"_name_or_path": "stable-diffusion"}, "image"),
        ("models--stable-diffusion-v1-5--stable-diffusion-v1-5/snapshots/abc", {}, [], {}, "text"),
    ],
)
def test_what_a_unet_was_trained_on_is_read_from_what_lies_around_it(tmp_path, root, index, beside, config, told):
    unet = tmp_path / root / "unet"
    for name in ("unet", *beside):
        (tmp_path / root / name).mkdir(parents=True)
    if index:
        write_json(tmp_path / root / "model_index.json", index)
    assert trained_content(unet, config) == told


def test_a_unet_of_texts_is_said_to_need_training_at_import_and_in_use(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("warnings.showwarning", None)  # restored afterwards, the command sets it
    (folders.unet.parent / "text_encoder").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert cli.main(arguments(folders, tmp_path / "model")) == 0
        said = capsys.readouterr().err.splitlines()
        assert [line for line in said if "sd/unet" in line and "until it is trained (gen1 train)" in line] == said[-1:]
    model = ModelFolder(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["learned_content"] == "text"
    with pytest.warns(UserWarning, match="^model: its U-Net was trained on the states of a text's tokens"):
        Gen1Pipeline(model)
    assert model.warning is None  # it is trained, so that a training begins with its weights
    description = describe(str(tmp_path / "model"))
    assert description["caution"] == model.config.caution and model.config.caution in render(description)


def test_one_of_pictures_or_of_before_warns_of_nothing(folders, tmp_path):
    (folders.unet.parent / "image_encoder").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert import_huggingface(folders, tmp_path / "model").learned_content == "image"
        Gen1Pipeline(ModelFolder(tmp_path / "model"))
    plain = TINY.to_dict()
    del plain["learned_content"]  # a folder of before
    assert Gen1Config.from_dict(plain) == TINY and TINY.caution is None


def test_what_a_unet_had_learned_goes_with_it(tmp_path):
    texts = ModelFolder(save_tiny_model(tmp_path / "texts", dataclasses.replace(TINY, learned_content="text")))
    tiny = open_model("tiny")
    assert AssembledModel(tiny, {"unet": texts}).config.caution
    assert AssembledModel(texts, {"vae": tiny}).config.caution
    assert not AssembledModel(texts, {"unet": tiny}).config.caution


def test_the_folder_of_a_pipeline_will_do(folders, tmp_path):
    root, karlo = folders.unet.parent, folders.prior.parent
    import_huggingface(folders, tmp_path / "a")
    by_root = dataclasses.replace(folders, unet=root, vae=root, prior=karlo, scheduler=root)
    import_huggingface(by_root, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_what_could_have_been_named_is_named(tmp_path):
    root = tmp_path / "sd15"
    unet, vae = folder_of(root, "unet", "UNet2DConditionModel"), folder_of(root, "vae", "AutoencoderKL")
    text = folder_of(root, "text_encoder", "CLIPTextModel")
    assert network_folder(root, "unet") == unet and network_folder(tmp_path, "vae") == vae
    folder_of(root, "decoder", "UNet2DConditionModel")
    assert network_folder(root, "unet") == unet  # by its name
    (root / "v1-5.safetensors").touch()
    for named, part, said in (
        (text, "vae", f"text_encoder/config.json is of CLIPTextModel, not of AutoencoderKL: name {vae}"),
        (root, "prior", "sd15 has no PriorTransformer, only decoder (UNet2DConditionModel), text_encoder (CLIPText"),
        (root / "v1-5.safetensors", "unet", "v1-5.safetensors is a file: name a folder of safetensors"),
        (root / "vea", "vae", f"vea is not a folder; {root} has vae, which is one"),
        (tmp_path / "no" / "where", "vae", "where is not a folder"),
    ):
        with pytest.raises(UserError) as refused:
            network_folder(named, part)
        assert said in str(refused.value) and "\n" not in str(refused.value)
    shutil.rmtree(unet)
    folder_of(root, "another", "UNet2DConditionModel")
    with pytest.raises(ValueError, match="sd15 has several of UNet2DConditionModel: name one of another, decoder in"):
        network_folder(root, "unet")


def test_files_of_half_precision_alone_are_read_and_other_weights_are_not(tmp_path):
    from safetensors.numpy import save_file

    for name in ("fp16", "non_ema", "fp16-00001-of-00001"):
        save_file({"a": np.zeros(1)}, tmp_path / f"diffusion_pytorch_model.{name}.safetensors")
    assert [file.name for file in tensor_files(tmp_path)] == ["diffusion_pytorch_model.fp16.safetensors"]
    (tmp_path / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no index \(diffusion_pytorch_model.fp16-00001.*non_ema.*: keep the one"):
        tensor_files(tmp_path)
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.fp16.json"
    write_json(index, {"weight_map": {"a": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}})
    assert [file.name for file in tensor_files(tmp_path)] == ["diffusion_pytorch_model.fp16-00001-of-00001.safetensors"]


def test_no_repository_is_named_that_is_gone():
    import gen1_jax

    root = ModelFolder(gen1_jax.__path__[0] + "/pretrained/nano").path.parents[2]
    texts = [path for room in ("gen1_jax", "colabs", "configs", "launch") for path in (root / room).rglob("*")]
    for path in [root / "README.md", *(path for path in texts if path.suffix in (".md", ".py", ".ipynb", ".yaml"))]:
        assert "runwayml/" not in path.read_text(), path


@pytest.mark.parametrize(("component", "cautious"), [("unet", False), ("vae", True)])
def test_a_unet_that_has_been_trained_here_is_past_it(tmp_path, monkeypatch, component, cautious):
    config = dataclasses.replace(TINY, learned_content="text")
    base = save_tiny_model(tmp_path / "texts", config)
    record = {"config": {"component": component, "model": str(base)}, "model": config.to_dict()}
    checkpoints = SimpleNamespace(steps=[3], record=lambda step: record)
    monkeypatch.setattr(TrainedModel, "_checkpoints", lambda self: contextlib.nullcontext(checkpoints))
    assert bool(TrainedModel(tmp_path / "run").config.caution) == cautious
