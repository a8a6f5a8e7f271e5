"""Folders for diffusers and transformers: run by them in another process, and read back."""

import dataclasses
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error
from PIL import Image
from processes import run_elsewhere
from tiny import save_tiny_model

from gen1_jax.cli import main
from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.editing.inputs import resize
from gen1_jax.editing.known import KnownClip
from gen1_jax.editing.maps import ready_maps
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.judge import open_judge
from gen1_jax.exporting import diffusers_format, diffusers_parity
from gen1_jax.exporting.export import export
from gen1_jax.exporting.networks import Networks
from gen1_jax.exporting.video_pipeline import compare_video_model
from gen1_jax.models.module import flatten, initialise
from gen1_jax.models.prior import PriorConfig, PriorTransformer
from gen1_jax.pretrained.family import TINY
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_prior import PRIOR, prior_config, prior_tensors, their_prior_config
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.layout import LayoutError
from gen1_jax.pretrained.tensors import FolderError, read_tensors

NARROW = PriorConfig(embedding_dim=16, text_hidden_size=12, num_attention_heads=2, attention_head_dim=4, num_layers=1)


@pytest.fixture(scope="module")
def exported(trained_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("diffusers") / "out"
    assert main(["export", "--model", str(trained_model), "--format", "diffusers", "-o", str(out)]) == 0
    return out


def import_back(folder, out):
    parts = [f"--{name}={folder / name}" for name in ("unet", "vae", "clip", "depth", "prior")]
    assert main(["import", *parts, "-o", str(out)]) == 0
    return ModelFolder(out)


def test_plain_classes_compute_what_the_model_does(trained_model, exported, tmp_path):
    normal = lambda seed, *shape: np.random.default_rng(seed).standard_normal(shape, np.float32)
    x = {
        "latents": normal(0, 2, 6, 4, 4),
        "structure": normal(1, 2, 6, 4, 4),
        "structure_level": np.array([1, 7], np.int32),
        "timesteps": np.array([20, 801], np.int32),
        "content": normal(2, 2, 1, 16),
        "images": normal(3, 2, 8, 12, 3),
        "pixels": normal(4, 2, 16, 16, 3),
        "views": normal(5, 2, 32, 32, 3),
        "noisy": normal(6, 1, 16),
    }
    theirs = run_elsewhere("diffusers", exported, x, tmp_path)
    pipe = Gen1Pipeline.from_pretrained(trained_model)
    latents, structure = (jnp.asarray(x[name])[:, None] for name in ("latents", "structure"))
    ids, mask = pipe.tokenizer(["a red cat"])
    text, states = pipe.clip.encode_text_tokens(ids)
    ours = {
        "unet": pipe.unet(latents, x["timesteps"], x["content"], structure, x["structure_level"])[:, 0],
        "encode": pipe.vae.images_to_latents(x["images"]),
        "decode": pipe.vae.decode(x["latents"]),
        "image": pipe.clip.encode_image(x["pixels"]),
        "text": text,
        "depth": pipe.depth(x["views"]),
        "prior": pipe.prior(x["noisy"], np.array([700]), text, states, mask),
    }
    for name, value in ours.items():
        assert np.ptp(np.asarray(value)) > 1e-3, name
        assert relative_error(value, theirs[name]) <= 1e-4, name


def test_clip_alone_is_a_judge(trained_model, exported, tmp_path):
    """As a folder of its own, and where a whole pipeline is named; of the same weights it judges the same."""
    out = tmp_path / "judge"
    assert main(["export", "--model", str(trained_model), "--format", "clip", "-o", str(out)]) == 0
    assert set(json.loads((out / "manifest.json").read_text())["parity"]) == {
        "clip_image",
        "clip_text",
        "clip_logit_scale",
    }
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 20, 3), np.uint8)
    own, *others = (open_judge(folder) for folder in (trained_model, out, exported))
    assert [judge.name for judge in others] == ["judge", "out"] and all(judge.alone for judge in others)
    for judge in others:
        assert relative_error(judge.embed(frames), own.embed(frames)) < 1e-5
        assert relative_error(judge.embed_texts(["a red cat", ""]), own.embed_texts(["a red cat", ""])) < 1e-5
    (out / "tokenizer.json").unlink()
    with pytest.raises(FolderError, match=r"has no vocab\.json and merges\.txt: put"):
        open_judge(out)


def test_manifest_tells_what_was_measured(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    measured = {"unet", "vae_encode", "vae_decode", "clip_image", "clip_text", "clip_logit_scale", "depth", "prior"}
    video = {"unet_image", "unet_video", "guided_step"}
    assert set(manifest["parity"]) == measured | video | {"scheduler", "tokenizer"}
    assert all(0 <= value <= 1e-4 for value in manifest["parity"].values())
    assert manifest["parity"]["unet"] > 0
    assert {"torch", "diffusers", "transformers", "jax"} <= set(manifest["versions"])
    assert manifest["parity"]["guided_step"] > 0
    assert "temporal layers are left out" in manifest["notes"]["unet"]
    assert manifest["notes"]["unet"].count("pipeline.py adds them") == (exported / "pipeline.py").is_file() == 1
    assert "padded with zeros to 16" in manifest["notes"]["prior"]
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert files - {"manifest.json"} == set(manifest["sha256"])


STEPS, W, W_T = 2, 3.0, 1.5
CLIP = np.random.default_rng(8).integers(0, 256, (TINY.num_frames + 2, 20, 28, 3), np.uint8)


@pytest.fixture(scope="module")
def load_pipeline(tmp_path_factory):
    import diffusers
    import torch

    def load(folder):
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), custom_pipeline=str(folder), trust_remote_code=True
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    torch.set_num_threads(1)
    modules = str(tmp_path_factory.mktemp("modules"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diffusers.utils.dynamic_modules_utils, "HF_MODULES_CACHE", modules)
        patch.setattr(sys, "path", [*sys.path])
        yield load


@pytest.fixture(scope="module")
def torch_pipeline(exported, load_pipeline):
    return load_pipeline(exported)


def test_the_folder_edits_videos_as_the_model_does(trained_model, torch_pipeline):
    """A clip longer than the window, of another shape than the model's, under all branches of guidance.

    Windows of the folder stay where they are.
    """
    import torch

    ours, settings = (
        Gen1Pipeline.from_pretrained(trained_model),
        EditSettings(
            num_inference_steps=STEPS,
            structure_blur=2,
            guidance_scale=W,
            temporal_guidance_scale=W_T,
            seed=3,
            shift_windows=False,
        ),
    )
    size = ours.config.working_size(*CLIP.shape[1:3])
    assert size == torch_pipeline.working_size(*CLIP.shape[1:3]) and size[0] != size[1]
    small = np.stack([resize(frame, size) for frame in CLIP])
    maps = ours.read_structure(small, settings.of(ours.config))
    content = ours.encode_content(None, [CLIP[1]], settings)
    latents = ours.sample(content, maps, settings, frames=small)
    sampler = ours.sampler(settings)
    noise = np.asarray(sampler.start(jnp.uint32(3), latents.shape, None, None, None).latents)
    scales = dict(guidance_scale=W, temporal_guidance_scale=W_T, num_inference_steps=STEPS, structure_blur=2)
    given = dict(image=Image.fromarray(CLIP[1]), latents=torch.tensor(np.moveaxis(noise, -1, 2).copy()), **scales)
    theirs = torch_pipeline(CLIP, output_type="latent", **given).frames
    assert relative_error(np.moveaxis(theirs.numpy(), 2, -1), latents) <= 1e-4
    frames = torch_pipeline([Image.fromarray(frame) for frame in CLIP], output_type="np", **given).frames
    edit = ours.edit(CLIP, image=CLIP[1], num_inference_steps=STEPS, structure_blur=2, guidance_scale=W,
                     temporal_guidance_scale=W_T, seed=3, shift_windows=False)  # fmt: skip
    assert frames.shape == (1, *CLIP.shape)
    assert np.abs(np.rint(frames[0] * 255) - edit.frames).max() <= 1  # what is rounded may fall either way
    assert (np.rint(frames[0] * 255) == edit.frames).mean() > 0.99


@pytest.fixture(scope="module")
def several(several_model, tmp_path_factory, load_pipeline):
    """A model of several inputs, its export, and the pipeline of that."""
    source, out = ModelFolder(several_model), tmp_path_factory.mktemp("several") / "out"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("measure", "compare_video_model"):
            patch.setattr(diffusers_format, name, lambda *_: {})
        manifest = export(source, out, format="diffusers")
    assert manifest["notes"]["unet.in_channels"].startswith(
        "4 of z_t, 8 of depth, 8 of edges, 8 of flow, 8 of source, 5 "
    )
    return source, out, load_pipeline(out)


def test_a_model_of_several_inputs(several):
    """Maps that are given, the video itself, with a scale of its own, and a frame that is known: as here."""
    import torch

    source, _, pipeline = several
    ours, count, w_src = Gen1Pipeline(source), TINY.num_frames, 2.0
    given = dict(num_inference_steps=STEPS, structure_blur=2, guidance_scale=W, temporal_guidance_scale=W_T)
    settings = EditSettings(structure="depth,edges,flow,source", source_guidance_scale=w_src, seed=3, **given)
    size, settings = ours.config.working_size(*CLIP.shape[1:3]), settings.of(ours.config)
    small = np.stack([resize(frame, size) for frame in CLIP[:count]])
    pictures = {"edges": CLIP[1:2], "flow": CLIP[:count, ::-1]}
    grey = np.repeat(pictures["edges"].mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    pictures["edges"] = grey
    ready = {kind: ready_maps(x, ours.config.structure_kind(kind), count, size) for kind, x in pictures.items()}
    with pytest.warns(UserWarning, match="does nothing to ready maps of edges"):
        maps = ours.read_structure(small, settings, ready)
    known = KnownClip.of({1: CLIP[4]}, count, size).encoded(ours.encode_frames, ours.config.vae.downscale)
    told = dict(frames=small, given=known, carry=False)  # a pipeline of diffusers looks for no motion
    latents = ours.sample(ours.encode_content(None, [CLIP[1]], settings), maps, settings, **told)
    noise = np.asarray(ours.sampler(settings).start(jnp.uint32(3), latents.shape, None, None, None).latents)
    given |= dict(image=Image.fromarray(CLIP[1]), latents=torch.tensor(np.moveaxis(noise, -1, 2).copy()))
    given |= dict(output_type="latent")
    told = dict(structure_maps={"depth": None, "source": None, **pictures}, known={1: Image.fromarray(CLIP[4])})
    theirs = pipeline(CLIP[:count], **told, source_guidance_scale=w_src, **given).frames
    assert relative_error(np.moveaxis(theirs.numpy(), 2, -1), latents) <= 1e-4

    depth = pipeline(CLIP[:count], **given).frames
    assert torch.equal(depth, pipeline(CLIP[:count], structure_maps={"depth": None}, **given).frames)
    both = pipeline(CLIP[:count], source_guidance_scale=w_src, **given).frames
    named = dict(structure_maps={"depth": None, "source": None}, source_guidance_scale=w_src)
    assert torch.equal(both, pipeline(CLIP[:count], **named, **given).frames) and not torch.equal(both, depth)
    none = pipeline(CLIP[:count], structure_maps={}, **given).frames
    assert relative_error(none, depth) > 1e-3 and relative_error(depth, theirs) > 1e-3
    with pytest.raises(ValueError, match="nothing here estimates edges: give structure_maps="):
        pipeline(CLIP[:count], structure_maps={"edges": None}, **given)
    with pytest.raises(ValueError, match="follows depth, edges, flow, source, not pose"):
        pipeline(CLIP[:count], structure_maps={"pose": None}, **given)
    with pytest.raises(ValueError, match="depth is given twice"):
        pipeline(CLIP[:count], structure_maps={"depth": CLIP[:1]}, depth=torch.zeros(1, count, *size), **given)
    with pytest.raises(ValueError, match="2 pictures of maps for"):
        pipeline(CLIP[:count], structure_maps={"edges": CLIP[:2]}, **given)
    with pytest.raises(ValueError, match="source_guidance_scale is for an edit that follows the source"):
        pipeline(CLIP[:count], structure_maps={"depth": None}, source_guidance_scale=2.0, **given)
    with pytest.raises(ValueError, match="known frame 9: the clip has"):
        pipeline(CLIP[:count], known={9: CLIP[0]}, **given)


def test_pictures_of_maps_are_fitted_each_by_itself(several):
    import torch

    *_, pipeline = several
    large, small = (Image.fromarray(CLIP[0]).resize(size) for size in ((56, 40), (7, 5)))
    read = lambda maps, count: pipeline.read_maps(maps, torch.zeros(count, 3, 20, 28), 3, "area")
    assert torch.equal(read(small, 3), read([small], 1).expand(-1, 3, -1, -1, -1))  # one for all, in a list or not
    both = torch.cat([read(large, 1), read(small, 1)], dim=1)
    assert torch.equal(read([large, small], 2), both) and torch.equal(read([small, large], 2), both.flip(1))


def test_a_model_that_needs_its_structures_follows_all_of_them_by_default(several, monkeypatch):
    *_, pipeline = several
    assert [*pipeline.followed(None, None, None)] == ["depth"]
    assert [*pipeline.followed(None, None, 2.0)] == ["depth", "source"]
    needs = pipeline.temporal.config.unet | {"required": ["depth", "source"]}
    monkeypatch.setattr(pipeline.temporal, "_internal_dict", type(pipeline.temporal.config)({"unet": needs}))
    assert [*pipeline.followed(None, None, None)] == ["depth", "source"] == [*pipeline.followed(None, None, 2.0)]


def test_several_inputs_are_compared_and_read_back(several, tmp_path):
    import torch

    source, out, _ = several
    networks = Networks(source, np.dtype(np.float32))
    with torch.no_grad():
        assert 0 < diffusers_parity._unet(source, networks, out / "unet")["unet"] < 1e-5
    parity = compare_video_model(source.config, networks, out)
    assert parity.keys() == {"unet_image", "unet_video", "guided_step"} and max(parity.values()) < 1e-5
    again = import_back(out, tmp_path / "again")
    assert again.config.unet.inputs == source.config.unet.inputs and again.config.unet.structure_optional
    ours, read = (flatten(model.parameters("unet"))["conv_in.kernel"] for model in (source, again))
    np.testing.assert_array_equal(read, ours)


def test_the_folder_reads_prompts_as_the_model_does(trained_model, torch_pipeline):
    import torch

    ours, text = Gen1Pipeline.from_pretrained(trained_model), "a red cat"
    generator = torch.Generator().manual_seed(5)
    steps = ours.config.prior_num_inference_steps
    noise = [torch.randn(1, ours.config.prior.embedding_dim, generator=generator).numpy() for _ in range(steps)]
    ids, mask = ours.tokenizer([text, ""])
    embeddings, states = ours.clip.encode_text_tokens(ids)
    told, empty = ((embeddings[i], states[i], mask[i]) for i in (slice(1), slice(1, 2)))
    draws = jnp.asarray(np.stack([*noise, np.zeros_like(noise[0])]))  # the last step adds none
    expected = ours.prior.denoise(draws, told, jnp.float32(ours.config.prior_guidance_scale), empty)
    with torch.no_grad():
        found = torch_pipeline.embed_prompt(text, torch.Generator().manual_seed(5))
    assert relative_error(found[:, 0], expected) <= 1e-4


def test_what_the_folder_refuses(torch_pipeline):
    with pytest.raises(ValueError, match="a prompt, an image or image_embeds"):
        torch_pipeline(CLIP)
    with pytest.raises(ValueError, match="no frames"):
        torch_pipeline([], prompt="a cat")


def test_calling_takes_the_names_of_diffusers():
    import inspect

    from diffusers import AnimateDiffVideoToVideoPipeline

    theirs = set(inspect.signature(AnimateDiffVideoToVideoPipeline.__call__).parameters)
    ours = set(inspect.signature(Gen1Pipeline.__call__).parameters)
    assert ours - theirs == {"image", "temporal_guidance_scale", "seed", "more"}


def test_import_export_import_is_exact(trained_model, exported, tmp_path, monkeypatch):
    original, first = ModelFolder(trained_model), import_back(exported, tmp_path / "first")
    assert first.config.clip == original.config.clip
    assert first.config.prior == original.config.prior
    assert first.config.schedule == original.config.schedule
    for component in first.config.components:
        ours = flatten(original.parameters(component))
        for name, value in flatten(first.parameters(component)).items():
            if not UNET.is_new(name):
                np.testing.assert_array_equal(value, ours[name], err_msg=name)
    assert first.tokenizer().json == original.tokenizer().json

    monkeypatch.setattr(diffusers_format, "measure", lambda *_: {})  # it is the writing that is tested here
    export(first, tmp_path / "again", format="diffusers", shard_bytes=20_000)
    assert (tmp_path / "again" / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
    for component in first.config.components:
        one, other = (read_tensors(folder / component) for folder in (exported, tmp_path / "again"))
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value.shape == other[name].shape
            np.testing.assert_array_equal(value, other[name], err_msg=name)
    second = import_back(tmp_path / "again", tmp_path / "second")
    assert second.config == first.config
    for name in ("tokenizer.json", "config.json", *(f"{c}.safetensors" for c in first.config.components)):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name

    from diffusers import AutoencoderKL

    vae, info = AutoencoderKL.from_pretrained(tmp_path / "again" / "vae", output_loading_info=True)
    assert not any(info.values())
    for name, value in read_tensors(exported / "vae").items():
        np.testing.assert_array_equal(vae.state_dict()[name], value, err_msg=name)


def test_what_differs_is_not_exported(trained_model, tmp_path, monkeypatch, capsys):
    write = diffusers_format.write_tensors

    def broken(folder, stem, tensors, shard_bytes):
        if folder.name == "vae":
            tensors = tensors | {"decoder.conv_out.bias": tensors["decoder.conv_out.bias"] + 0.01}
        write(folder, stem, tensors, shard_bytes)

    monkeypatch.setattr(diffusers_format, "write_tensors", broken)
    monkeypatch.setattr(diffusers_format, "measure", lambda s, n, f: vae_alone(s, n, f / "vae"))
    assert main(["export", "--model", str(trained_model), "--format", "diffusers", "-o", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "vae_decode" in message
    assert "vae_encode" not in message
    assert not list(tmp_path.iterdir())


def vae_alone(source, networks, folder):
    import torch

    from gen1_jax.exporting.diffusers_parity import _vae

    with torch.no_grad():
        return _vae(source, networks, folder)


def test_missing_libraries_are_named_before_anything_is_written(trained_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("diffusers", "torch"):
        assert main(["export", "--model", str(trained_model), "--format", name, "-o", str(tmp_path / "out")]) == 2
        message = f'gen1: --format {name} needs torch: pip install "gen1-jax[export]"\n'
        assert capsys.readouterr().err == message
    assert not list(tmp_path.iterdir())


def test_a_narrow_prior_is_padded_and_a_wide_one_refused():
    assert prior_config(their_prior_config(NARROW)) == NARROW
    with pytest.raises(ConfigError, match="text states of width 20"):
        their_prior_config(dataclasses.replace(NARROW, text_hidden_size=20))
    for width in (17, 0, "12", True):
        with pytest.raises(ConfigError, match="_text_hidden_size"):
            prior_config(their_prior_config(NARROW) | {"_text_hidden_size": width})


def test_a_padded_prior_is_read_only_if_the_rest_is_zero():
    params = initialise(PriorTransformer(NARROW), 0)
    tensors, name = prior_tensors(NARROW, params), "encoder_hidden_states_proj.weight"
    assert tensors[name].shape == (8, 16)
    filled = flatten(PRIOR.fill(params, tensors, "prior"))
    for path, value in flatten(params).items():
        np.testing.assert_array_equal(filled[path], value)
    with pytest.raises(LayoutError, match="more than 12 inputs"):
        PRIOR.fill(params, tensors | {name: tensors[name] + 1}, "prior")


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_rectified_flow_has_its_scheduler_and_comes_back(shift, tmp_path, capsys):
    schedule = NoiseSchedule(use_flow_sigmas=True, flow_shift=shift)
    unet = dataclasses.replace(TINY.unet, prediction_type="flow_prediction")
    config = dataclasses.replace(TINY, unet=unet, schedule=schedule, sampler="euler")
    model, out = save_tiny_model(tmp_path / "flow", config), tmp_path / "out"
    assert main(["export", "--model", str(model), "--format", "diffusers", "-o", str(out)]) == 0
    parity = json.loads((out / "manifest.json").read_text())["parity"]
    assert {"unet", "scheduler"} <= parity.keys() and not (out / "pipeline.py").exists()
    back = import_back(out, tmp_path / "back")
    assert (back.config.schedule, back.config.sampler) == (schedule, "euler")
    theirs, ours = (flatten(source.parameters("unet")) for source in (back, ModelFolder(model)))
    assert back.config.unet.prediction_type == "flow_prediction"
    assert all(np.array_equal(theirs[path], x) for path, x in ours.items() if "temporal" not in path)
    capsys.readouterr()
    assert main(["export", "--model", str(model), "--format", "torch", "-o", str(tmp_path / "torch")]) == 2
    assert "no sampler of rectified flow" in capsys.readouterr().err and not (tmp_path / "torch").exists()
