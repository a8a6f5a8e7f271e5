import dataclasses
import errno
import re

import numpy as np
import pytest
from hub_files import CAPTIONS, arguments, edit_json, write_json

from gen1_jax.pretrained.importing import import_huggingface
from gen1_jax.pretrained.tensors import FolderError, checkpoint_files, stored_tensors


def weights(folder):
    return next(folder.glob("*.safetensors"))


def only_a_pickle(folder, suffix):
    weights(folder).rename(folder / f"pytorch_model.{suffix}")


def pickle_renamed(folder):
    import torch

    torch.save({"a": torch.zeros(3)}, weights(folder))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def index(folder, **weight_map):
    weights(folder).unlink()
    write_json(folder / "diffusion_pytorch_model.safetensors.index.json", {"weight_map": weight_map})


def rewrite(folder, change):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights(folder))
    change(tensors)
    save_file(tensors, weights(folder))


def other_vocabulary(folder):
    from gen1_jax.pretrained.tokenizer import train_tokenizer

    train_tokenizer(CAPTIONS, 540).model.save(str(folder))


REFUSALS = {
    "bin": (lambda f: only_a_pickle(f.unet, "bin"), "unet/pytorch_model.bin is a pickle", "weights_only=True"),
    "pt": (lambda f: only_a_pickle(f.depth, "pt"), "dpt/pytorch_model.pt is a pickle"),
    "ckpt": (lambda f: only_a_pickle(f.vae, "ckpt"), "vae/pytorch_model.ckpt is a pickle"),
    "pickle renamed": (lambda f: pickle_renamed(f.clip), "clip/model.safetensors is not a readable"),
    "truncated": (lambda f: truncate(weights(f.prior)), "prior/diffusion_pytorch_model.safetensors is not a readable"),
    "empty": (lambda f: weights(f.prior).write_bytes(b""), "diffusion_pytorch_model.safetensors is not a readable"),
    "no tensors": (lambda f: weights(f.prior).unlink(), "karlo/prior has no .safetensors file"),
    "two candidates": (
        lambda f: [weights(f.vae).rename(f.vae / "a.safetensors"), (f.vae / "b.safetensors").touch()],
        "vae has several safetensors files",
    ),
    "index outside": (lambda f: index(f.unet, a="../vae/diffusion_pytorch_model.safetensors"), "unet", "outside"),
    "index to a shard that is not there": (lambda f: index(f.unet, a="x.safetensors"), "unet lacks x.safetensors"),
    "index of nothing": (lambda f: index(f.unet), "unet/diffusion_pytorch_model.safetensors.index.json has no weight"),
    "no config": (lambda f: (f.vae / "config.json").unlink(), "vae has no config.json"),
    "config not JSON": (lambda f: truncate(f.vae / "config.json"), "vae/config.json is not JSON"),
    "config a list": (lambda f: write_json(f.vae / "config.json", []), "vae/config.json does not hold a JSON object"),
    "config too deep": (lambda f: (f.vae / "config.json").write_text("[" * 10**5), "vae/config.json is not JSON"),
    "config not text": (lambda f: (f.vae / "config.json").write_bytes(b"\xff\xfe"), "vae/config.json cannot be read"),
    "another unet": (lambda f: edit_json(f.unet / "config.json", _class_name="FluxModel"), "unet/config.json", "Flux"),
    "another clip": (lambda f: edit_json(f.clip / "config.json", model_type="siglip"), "clip/config.json", "siglip"),
    "another depth": (lambda f: edit_json(f.depth / "config.json", model_type="glpn"), "dpt/config.json", "glpn"),
    "ill-typed": (lambda f: edit_json(f.unet / "config.json", layers_per_block="2"), "unet/config.json", "layers_per"),
    "null levels": (lambda f: edit_json(f.unet / "config.json", down_block_types=["DownBlock2D"]), "up_block_types"),
    "schedule": (
        lambda f: edit_json(f.unet.parent / "scheduler" / "scheduler_config.json", beta_start="small"),
        "scheduler/scheduler_config.json",
        "beta_start",
    ),
    "prediction": (
        lambda f: edit_json(f.unet.parent / "scheduler" / "scheduler_config.json", prediction_type="flow"),
        "scheduler/scheduler_config.json",
        "prediction_type",
    ),
    "epsilon of pure noise": (
        lambda f: edit_json(f.unet.parent / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True),
        "prediction_type is epsilon",
    ),
    "parts that do not fit": (
        lambda f: edit_json(f.unet / "config.json", cross_attention_dim=24),
        "do not fit together: unet.cross_attention_dim is 24, but clip.projection_dim is 16",
    ),
    "missing tensor": (
        lambda f: rewrite(f.depth, lambda tensors: tensors.pop("head.head.0.bias")),
        "dpt lacks tensors: head.head.0.bias",
    ),
    "extra tensor": (
        lambda f: rewrite(f.unet, lambda tensors: tensors.update(lora=np.zeros(3))),
        "unet has tensors that the network does not: lora",
    ),
    "wrong shape": (
        lambda f: rewrite(f.unet, lambda tensors: tensors.update({"conv_in.weight": np.zeros((8, 3, 3, 3))})),
        "unet has tensors of another shape: conv_in.weight is (8, 3, 3, 3)",
    ),
    "quantised": (
        lambda f: rewrite(f.vae, lambda t: t.update({"quant_conv.weight": np.zeros((8, 8, 1, 1), np.int8)})),
        "vae has tensors that are not floating point: quant_conv.weight is I8",
    ),
    "no tokenizer": (
        lambda f: (f.clip / "merges.txt").unlink(),
        "clip has no vocab.json and merges.txt",
        "--tokenizer",
    ),
    "no vocabulary": (lambda f: (f.clip / "vocab.json").unlink(), "clip/vocab.json"),
    "damaged vocabulary": (lambda f: truncate(f.clip / "vocab.json"), "clip/vocab.json"),
    "damaged merges": (lambda f: (f.clip / "merges.txt").write_text("nothing to merge here"), "clip/vocab.json with"),
    "vocabulary of another model": (
        lambda f: other_vocabulary(f.clip),
        "clip ends texts with token 539",
        "expects 549",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_damaged_folders_are_refused_and_leave_nothing(folders, tmp_path, check_refusal, case):
    damage, *named = REFUSALS[case]
    damage(folders)
    output = tmp_path / "new" / "model"
    check_refusal(lambda: import_huggingface(folders, output), arguments(folders, output), *named)
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_a_folder_that_is_none_is_named(hub, tmp_path, check_refusal):
    for component in ("unet", "clip", "prior"):
        folders = dataclasses.replace(hub, **{component: tmp_path / "nowhere"})
        command = arguments(folders, tmp_path / "model")
        check_refusal(lambda f=folders: import_huggingface(f, tmp_path / "model"), command, "nowhere is not a folder")


def test_outputs_that_cannot_be_made(hub, tmp_path, check_refusal):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    for output, named in (
        (tmp_path / "there", "there exists already: choose another name"),
        (tmp_path / "file", "file exists already"),
        (tmp_path / "file" / "model", "file/model cannot be written"),
        (tmp_path / "new" / ("x" * 300), "cannot be written: File name too long"),
    ):
        check_refusal(lambda o=output: import_huggingface(hub, o), arguments(hub, output), named)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_import_leaves_nothing(hub, tmp_path, error):
    def interrupt(component):
        if component == "depth":
            assert list((tmp_path / "new").glob(".model.*/clip.safetensors"))  # it was under way
            raise error

    with pytest.raises(type(error)):
        import_huggingface(hub, tmp_path / "new" / "model", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_and_leaves_nothing(hub, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gen1_jax.pretrained.tensors.save_file", full)
    with pytest.raises(FolderError, match="model cannot be written: No space left on device"):
        import_huggingface(hub, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_is_converted_by_the_lines_that_its_refusal_names(tmp_path, monkeypatch):
    import torch

    for suffix in ("ckpt", "pth", "bin", "pt"):
        pickle = tmp_path / f"model.v1.{suffix}"
        torch.save({"state_dict": {"a": torch.arange(3.0), "b": torch.ones(2, 3).T}, "epoch": 3}, pickle)
        for read in (lambda file=pickle: checkpoint_files(file), lambda: checkpoint_files(tmp_path)):
            with pytest.raises(FolderError, match=f"{pickle.name} is a pickle, which could run any code") as refused:
                read()
            assert "\n" not in str(refused.value)
        if suffix != "pt":
            pickle.unlink()
    monkeypatch.chdir(tmp_path)
    exec("\n".join(re.findall("`(.+?)`", str(refused.value))), {})
    tensors = stored_tensors(checkpoint_files(tmp_path / "model.v1.safetensors"))
    assert tensors.keys() == {"a", "b"} and tensors["b"].shape == (3, 2)
    np.testing.assert_array_equal(tensors["a"], [0, 1, 2])
