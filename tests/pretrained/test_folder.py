import dataclasses
import json
import shutil
import weakref
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hub_files import edit_json
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tiny import TINY

from gen1_jax.models.module import flatten, initialise, unflatten
from gen1_jax.pretrained.family import FULL, NANO, Gen1Config
from gen1_jax.pretrained.folder import ModelFolder, open_model, save_model
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.tensors import FolderError


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of a good model folder, to damage."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture(scope="module")
def tokenizer_json(tiny_model):
    return (tiny_model / "tokenizer.json").read_text()


def draw(component: str, dtype):
    """Parameters of one network of the tiny family, some of them not finite."""
    params = initialise(TINY.build(component, np.float32), 1)
    first, *_ = jax.tree.leaves(params)
    first.flat[:3] = np.nan, np.inf, -0.0
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), params)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shard_bytes", [None, 4000])
def test_round_trip_is_bit_for_bit(tmp_path, tokenizer_json, dtype, shard_bytes):
    params = {component: draw(component, dtype) for component in TINY.components}
    save_model(tmp_path / "model", TINY, params, tokenizer_json, shard_bytes=shard_bytes)
    saved = ModelFolder(tmp_path / "model")
    assert saved.config == TINY
    assert (tmp_path / "model" / "tokenizer.json").read_text() == tokenizer_json
    for component in TINY.components:
        ours, read = flatten(params[component]), flatten(saved.parameters(component))
        assert ours.keys() == read.keys()
        for name, value in ours.items():
            assert read[name].dtype == value.dtype
            assert read[name].shape == value.shape
            assert read[name].tobytes() == np.asarray(value).tobytes(), name
    files = sorted((tmp_path / "model").glob("unet*"))
    assert (len(files) > 1) == (shard_bytes is not None)
    if shard_bytes:
        assert files[0].name == f"unet-00001-of-{len(files):05}.safetensors"
        assert max(len(load_file(file)) > 1 and file.stat().st_size for file in files) < 2 * shard_bytes


def test_saving_holds_one_network_at_a_time(tmp_path, tokenizer_json):
    alive = weakref.WeakSet()

    class Lazy(Mapping):
        def __getitem__(self, component):
            assert not any(array.size for array in alive), f"while {component} is read"
            params = draw(component, "float32")
            params = jax.tree.map(lambda x: np.array(x).view(Watched), params)
            alive.update(jax.tree.leaves(params))
            return params

        def __iter__(self):
            return iter(TINY.components)

        def __len__(self):
            return len(TINY.components)

    class Watched(np.ndarray):
        __hash__ = object.__hash__

    save_model(tmp_path / "model", TINY, Lazy(), tokenizer_json)
    assert ModelFolder(tmp_path / "model").config == TINY


def rewrite(folder, component, **changes):
    """Tensors of a network changed; None removes one."""
    file = folder / f"{component}.safetensors"
    tensors = load_file(file) | {name.replace("__", "."): value for name, value in changes.items()}
    save_file({name: value for name, value in tensors.items() if value is not None}, file)


def other_format(folder, component):
    (folder / f"{component}.safetensors").rename(folder / f"{component}.bin")


def damage_json(folder, *keys, **changes):
    """Fields of config.json changed, inside the objects of `keys`."""
    config = json.loads((folder / "config.json").read_text())
    section = config
    for key in keys:
        section = section[key]
    section |= changes
    (folder / "config.json").write_text(json.dumps(config))


def of_another_model(folder):
    from gen1_jax.pretrained.tokenizer import train_tokenizer

    (folder / "tokenizer.json").write_text(train_tokenizer(["a"], 520).to_str())


def two_shards_of_one_tensor(folder):
    for number in (1, 2):
        shutil.copy(folder / "vae.safetensors", folder / f"vae-0000{number}-of-00002.safetensors")
    (folder / "vae.safetensors").unlink()


def lost_shard(folder):
    tensors = load_file(folder / "vae.safetensors")
    save_file({"quant_conv.bias": tensors["quant_conv.bias"]}, folder / "vae-00001-of-00002.safetensors")
    (folder / "vae.safetensors").unlink()


REFUSALS = {
    "missing": (
        lambda f: rewrite(f, "unet", conv_out__bias=None),
        "model/unet.safetensors lacks tensors: conv_out.bias",
    ),
    "extra": (
        lambda f: rewrite(f, "depth", lora=np.zeros(2)),
        "model/depth.safetensors has tensors that the network does not: lora",
    ),
    "wrong shape": (
        lambda f: rewrite(f, "prior", clip_mean=np.zeros((16, 1))),
        "model/prior.safetensors has tensors of another shape: clip_mean is (16, 1), not (1, 16)",
    ),
    "integers": (
        lambda f: rewrite(f, "prior", clip_mean=np.zeros((1, 16), np.int8)),
        "prior.safetensors has tensors that are not floating point: clip_mean is I8",
    ),
    "lost network": (lambda f: (f / "vae.safetensors").unlink(), "model has no vae.safetensors"),
    "lost shard": (lost_shard, "model/vae.safetensors lacks tensors"),
    "same tensor twice": (two_shards_of_one_tensor, "vae-00001-of-00002.safetensors both hold"),
    "pickle": (lambda f: other_format(f, "clip"), "model/clip.bin is a pickle"),
    "pickle by another name": (
        lambda f: (f / "clip.safetensors").write_bytes(b"\x80\x04\x95cposix\nsystem\n."),
        "model/clip.safetensors is not a readable safetensors file",
    ),
    "truncated": (
        lambda f: (f / "vae.safetensors").write_bytes((f / "vae.safetensors").read_bytes()[:-1]),
        "model/vae.safetensors is not a readable safetensors file",
    ),
    "a pointer of Git": (
        lambda f: (f / "vae.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "model/vae.safetensors is a pointer of Git LFS",
        "git lfs pull",
    ),
    "a folder for a file": (
        lambda f: [(f / "vae.safetensors").unlink(), (f / "vae.safetensors").mkdir()],
        "model/vae.safetensors is not a readable safetensors file",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "model has no config.json"),
    "config of another program": (
        lambda f: damage_json(f, format="diffusers"),
        "model/config.json is not of a gen1_jax",
    ),
    "later version": (lambda f: damage_json(f, version=2), "format version 2, this program reads 1"),
    "unknown key": (lambda f: damage_json(f, "unet", colour=3), "model/config.json", "colour"),
    "unknown section": (lambda f: damage_json(f, upscaler={}), "model/config.json", "upscaler"),
    "ill-typed number": (lambda f: damage_json(f, "clip", "text", hidden_size="16"), "clip.text.hidden_size", "str"),
    "ill-typed list": (lambda f: damage_json(f, "vae", block_out_channels=8), "vae.block_out_channels", "int"),
    "ill-typed section": (lambda f: damage_json(f, schedule=[]), "model/config.json", "schedule"),
    "no section": (lambda f: damage_json(f, vae=None), "model/config.json", "vae"),
    "out of range": (lambda f: damage_json(f, num_frames=99), "num_frames is 99, not in 1 ... unet.max_frames, 4"),
    "no heads": (
        lambda f: damage_json(f, "unet", num_attention_heads=0),
        "unet.num_attention_heads is 0, which is out",
    ),
    "not a number": (lambda f: damage_json(f, "vae", scaling_factor=float("nan")), "vae.scaling_factor is nan"),
    "negative index": (
        lambda f: damage_json(f, "depth", backbone_out_indices=[-1, 0, 1, 2]),
        "indices is [-1, 0, 1, 2]",
    ),
    "parts that do not fit": (
        lambda f: damage_json(f, "unet", cross_attention_dim=17),
        "unet.cross_attention_dim is 17, but clip.projection_dim is 16",
    ),
    "unknown base": (lambda f: edit_json(f / "config.json", base={"vae": "../x"}), "not networks of models that ship"),
    "base that is none": (
        lambda f: edit_json(f / "config.json", base="nano"),
        "base is 'nano', not networks of models",
    ),
    "unhashable base": (
        lambda f: edit_json(f / "config.json", base={"vae": ["nano"]}),
        "not networks of models that ship",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "model has no tokenizer.json"),
    "damaged tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "model/tokenizer.json is not a tokenizer"),
    "binary tokenizer": (lambda f: (f / "tokenizer.json").write_bytes(b"\xff"), "model/tokenizer.json cannot be read"),
    "no marks": (
        lambda f: edit_json(f / "tokenizer.json", post_processor=None),
        "model/tokenizer.json does not put <|startoftext|>",
    ),
    "tokenizer of another model": (of_another_model, "model/tokenizer.json ends texts with token"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_damaged_model_folders_are_refused(folder, check_refusal, case):
    damage, *named = REFUSALS[case]
    damage(folder)
    check_refusal(lambda: open_model(folder), ["info", "--model", str(folder)], *named)


def test_folders_of_other_kinds_are_refused(hub, tmp_path, check_refusal):
    for path, named in (
        (tmp_path / "nowhere", "nowhere is neither a model folder nor the name of a model that ships (nano, nano-f"),
        (hub.unet, "unet/config.json is not of a gen1_jax model: make one with gen1 import"),
        (tmp_path, "has no config.json"),
    ):
        check_refusal(lambda p=path: open_model(p), ["info", "--model", str(path)], named)


def test_pickles_beside_complete_networks_do_no_harm(folder):
    (folder / "unet.bin").write_bytes(b"never opened")
    (folder / "optimizer.pt").write_bytes(b"never opened")
    assert ModelFolder(folder).config == TINY


def test_a_folder_is_called_by_its_own_name(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert open_model(".").name == "model"
    assert open_model(folder).warning is None


def test_a_failed_save_leaves_nothing(tmp_path, tokenizer_json, monkeypatch):
    params = {component: draw(component, "float32") for component in TINY.components}

    def fails(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("gen1_jax.pretrained.tensors.save_file", fails)
    with pytest.raises(FolderError, match=r"a/b/model cannot be written: I/O error: No space left"):
        save_model(tmp_path / "a" / "b" / "model", TINY, params, tokenizer_json)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("config", [FULL, NANO, TINY, dataclasses.replace(TINY, prior=None)])
def test_configurations_survive_json(config):
    assert Gen1Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def leaves(values, path=()):
    for key, value in values.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]


@pytest.mark.parametrize("wrong", ["x", {"a": 1}, [[1]], None])
def test_every_ill_typed_field_is_an_error(wrong):
    for path in leaves(NANO.to_dict()):
        values = flatten(json.loads(json.dumps(NANO.to_dict())))
        values[".".join(path)] = wrong
        with pytest.raises(ValueError):
            Gen1Config.from_dict(unflatten(values))


def test_errors_are_wrong_input():
    assert issubclass(FolderError, ValueError)
    assert issubclass(ConfigError, ValueError)
