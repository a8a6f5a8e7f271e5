"""Edits by public weights: equal to diffusers', and all that the command takes."""

import json
import shlex

import jax
import numpy as np
import pytest
from oracle import relative_error
from pretrained.hub_files import arguments, edit_json
from pretrained.sd_files import (
    FOLDERS,
    FRAMES,
    LORA,
    RANK,
    given,
    lora_tensors,
    per_frame,
    save_files,
    save_folders,
    sd_networks,
)
from tiny import TINY_PUBLIC, save_tiny_model

from gen1_jax import Gen1Pipeline
from gen1_jax.cli import main
from gen1_jax.editing.record import read_record
from gen1_jax.editing.settings import EditSettings
from gen1_jax.kept import KeptProgram
from gen1_jax.media import write_image
from gen1_jax.media.clips import load_video, save_video

SIDE, STEPS = 64, 4
PROMPT, NEGATIVE = "an oil painting of two cars", "snowy"


@pytest.fixture(scope="module")
def networks():
    return sd_networks()


@pytest.fixture(scope="module")
def public(networks, tmp_path_factory):
    root = tmp_path_factory.mktemp("public")
    save_folders(networks, root)
    save_files(networks, root)
    return root


@pytest.fixture(scope="module")
def model(public, tmp_path_factory):
    """All that can be imported but a network for soft edges."""
    folder = tmp_path_factory.mktemp("imported") / "model"
    kinds = {"canny": "canny", "depth": "tile", "openpose": "tile", "softedge": "tile"}
    parts = dict(
        controlnets={kind: public / FOLDERS[name] for kind, name in kinds.items()},
        depth=public / FOLDERS["depth"],
        ip_adapter=public / "ip.safetensors",
        image_encoder=public / FOLDERS["encoder"],
    )
    assert main(arguments(given(public, **parts), folder)) == 0
    edit_json(folder / "config.json", height=SIDE, width=SIDE)
    return folder


@pytest.fixture(scope="module")
def pipeline(model):
    return Gen1Pipeline.from_pretrained(model)


def pictures(seed, channels=3, frames=FRAMES):
    """Blocks: what blur leaves something of."""
    blocks = np.random.default_rng(seed).integers(0, 256, (frames, 8, 8, channels), np.uint8)
    return blocks.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2).repeat(3 // channels, 3)


CLIP = pictures(0)
HINTS = {"canny": pictures(1, 1), "depth": pictures(2, 1)}


@pytest.fixture(scope="module")
def theirs(networks, public):
    """diffusers' latents of an edit with both hints."""
    import diffusers
    import torch
    from PIL import Image
    from transformers import CLIPTokenizer

    tokenizer, motion = public / "sd" / "tokenizer", networks.motion
    pipe = diffusers.AnimateDiffVideoToVideoControlNetPipeline(
        vae=networks.vae,
        text_encoder=networks.text,
        tokenizer=CLIPTokenizer(
            vocab=str(tokenizer / "vocab.json"), merges=str(tokenizer / "merges.txt"), model_max_length=77
        ),
        unet=per_frame(diffusers.UNetMotionModel.from_unet2d(networks.unet, motion)),
        motion_adapter=motion,
        controlnet=[networks.canny, networks.tile],
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False, steps_offset=1
        ),
    )
    pipe.set_progress_bar_config(disable=True)
    conditions = [[Image.fromarray(picture) for picture in HINTS[kind]] for kind in ("canny", "depth")]

    def run(noise, *, strength, weights, ends):
        start = noise
        if strength < 1:
            with torch.no_grad():
                pixels = torch.tensor(CLIP / 127.5 - 1, dtype=torch.float32).movedim(-1, 1)
                clean = networks.vae.encode(pixels).latent_dist.mode() * networks.vae.config.scaling_factor
            pipe.scheduler.set_timesteps(STEPS)
            first = pipe.scheduler.timesteps[STEPS - int(STEPS * strength)]
            clean = np.moveaxis(clean.numpy(), 1, -1)[None]
            start = pipe.scheduler.add_noise(torch.tensor(clean), torch.tensor(noise), first[None]).numpy()
        frames = pipe(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            latents=torch.tensor(np.moveaxis(start, -1, 1)),
            conditioning_frames=conditions,
            height=SIDE,
            width=SIDE,
            num_inference_steps=STEPS,
            strength=strength,
            guidance_scale=7.5,
            controlnet_conditioning_scale=weights,
            control_guidance_end=ends,
            output_type="latent",
        ).frames
        return np.moveaxis(frames.numpy(), 1, -1)

    return run


@pytest.mark.parametrize(("strength", "end"), [(1.0, 0.5), (0.8, 0.75)])
def test_a_whole_edit_equals_diffusers(pipeline, theirs, strength, end):
    """Prompts, hints, start, guidance, steps, scales and the part of the steps that a control has."""
    text = f"canny=0.8,depth=0.4@0:{end}"
    settings = EditSettings(structure=text, num_inference_steps=STEPS, strength=strength).of(pipeline.config)
    assert settings.guidance_scale == 7.5 and settings.sampler == "ddim"
    content = pipeline.encode_content(PROMPT, [], settings, NEGATIVE)
    kind = pipeline.config.structure_kind
    ready = {name: np.asarray(kind(name).from_pictures(x)) for name, x in HINTS.items()}
    maps = pipeline.read_structure(CLIP, settings, ready)
    ours = pipeline.sample(content, maps, settings, frames=CLIP)
    first, _ = jax.random.split(jax.random.key(settings.seed))
    noise = np.asarray(jax.random.normal(first, ours.shape))
    expected = theirs(noise, strength=strength, weights=[0.8, 0.4], ends=[1.0, end])
    assert relative_error(ours, expected) <= 1e-4
    if strength == 1:  # so when a control ends can be seen
        assert relative_error(theirs(noise, strength=1.0, weights=[0.8, 0.4], ends=[1.0, 1.0]), expected) > 1e-3


def test_each_setting_matters_and_compiles_nothing(pipeline, monkeypatch):
    base = dict(prompt=PROMPT, structure="canny=0.8,depth=0.4@0:0.5", num_inference_steps=2)
    edit = lambda **changes: pipeline.edit(CLIP, **base | changes).frames
    first = edit()
    sampler = pipeline.sampler(EditSettings(num_inference_steps=2))
    compiled = sampler.advance.jitted._cache_size()
    for change in (
        {"prompt": "a red cube"},
        {"negative_prompt": NEGATIVE},
        {"clip_skip": 2},
        {"structure": "canny=0.1,depth=0.4@0:0.5"},
        {"structure": "canny=0.8,depth=0.4@0.5:1"},
        {"structure_blur": 2},
        {"structure_from": HINTS},
        {"strength": 0.5},
        {"guidance_scale": 3.0},
        {"num_inference_steps": 3},
        {"seed": 1},
    ):
        assert (edit(**change) != first).mean() > 0.05, change
    monkeypatch.setattr(pipeline.networks, "low_memory", True)
    for _ in range(2):
        np.testing.assert_array_equal(edit(), first)
        assert {name for name, network in pipeline.networks.kept.items() if network.params is not None} <= {"depth"}
    assert sampler.advance.jitted._cache_size() == compiled


@pytest.fixture
def files(tmp_path, monkeypatch):
    """In the folder of the test: clip.mkv, longer than a window, hints.mkv of it, a.jpg, b.jpg, lora and other."""
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    for name, seed in (("clip", 0), ("hints", 1)):
        save_video(pictures(seed, 3 - 2 * seed, frames=FRAMES + 1), f"{name}.mkv", 8)
    for name in "ab":
        write_image(f"{name}.jpg", pictures(ord(name))[0])
    query = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    of_unet = {
        f"{query}.lora_{side}.weight": np.ones(shape, np.float32)
        for side, shape in (("down", (1, 64)), ("up", (64, 1)))
    }
    save_file(lora_tensors() | of_unet, "lora.safetensors")
    name = "lora_te_" + LORA.replace(".", "_")
    save_file(lora_tensors() | {f"{name}.lora_down.weight": np.ones((RANK, 768), np.float32)}, "other.safetensors")
    return tmp_path


OPTIONS = shlex.split(
    "--negative-prompt snowy --image a.jpg:0.6 --image b.jpg:0.6 --structure depth=0.9,canny=0.4@0:0.5"
    " --structure-from canny=hints.mkv --structure-blur 2 --strength 0.8 --sampler lcm --steps 3 --guidance-scale 1.5"
    " --lora lora.safetensors:0.8 --clip-skip 2 --no-shift-windows --seed 3"
)


def test_every_option_of_the_command(model, files, capsys, monkeypatch):
    run = lambda output, *given: main(["edit", "clip.mkv", "-o", output, "--model", str(model), *given])
    assert run("one.mkv", "--prompt", PROMPT, *OPTIONS) == 0
    record = read_record("one.mkv")
    expected = dict(
        prompt=PROMPT,
        negative_prompt="snowy",
        image=["a.jpg", "b.jpg"],
        image_scale=0.6,
        structure="depth=0.9,canny=0.4@0:0.5",
        structure_from=["hints.mkv"],
        structure_blur=2,
        strength=0.8,
        sampler="lcm",
        num_inference_steps=3,
        guidance_scale=1.5,
        loras=["lora.safetensors:0.8"],
        clip_skip=2,
        shift_windows=False,
        seed=3,
    )
    assert {name: record[name] for name in expected} == expected
    assert "structure_blur 2 does nothing to ready maps of canny" in capsys.readouterr().err
    assert main(["info", "one.mkv", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told.pop("provenance") is None  # mkv holds no manifest
    assert told == json.loads(json.dumps(record))

    needed = "--structure-from canny=hints.mkv --image a.jpg --image b.jpg --lora lora.safetensors:0.8"
    again = shlex.split(needed)
    monkeypatch.setattr(KeptProgram, "_make", lambda *args: pytest.fail("a program is traced again"))
    assert run("two.mkv", "--settings-from", "one.mkv", "--low-memory", *again) == 0
    again[-1] = "lora.safetensors:-3"
    assert run("three.mkv", "--settings-from", "one.mkv", *again) == 0
    first = load_video("one.mkv")
    assert len(first) == FRAMES + 1
    np.testing.assert_array_equal(load_video("two.mkv"), first)
    assert (load_video("three.mkv") != first).mean() > 0.05


def test_a_check_asks_all_that_the_model_can_be_told(model, files, capsys):
    command = ["info", str(model), "--check", "--clip", "clip.mkv"]
    assert main(command) == 2
    assert "--clip needs --prompt" in capsys.readouterr().err
    assert main([*command, "--prompt", PROMPT, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    against = {finding["name"]: finding["against"] for finding in found["findings"]}
    assert against == {
        "frame by frame": "a guess without a network",
        "video": "frame by frame",
        "video, frames out of order": "video",
        "without the prompt": "video",
        "with a frame as a picture": "video",
        "with canny": "video",
        "with canny mirrored": "with canny",
        "with depth": "video",
        "with depth mirrored": "with depth",
    }
    assert len({finding["errors"]["500"] for finding in found["findings"]}) == len(against)  # each is of another error
    assert [name.split()[0] for name in found["skipped"]] == ["openpose", "softedge"]
    assert "frame by frame" in found["suspicious"] and "suspicious" in found["verdict"]  # these weights are random


REFUSED = {
    "--structure sculpture": "there is no structure of kind 'sculpture', only canny",
    "--structure tile": "--structure tile: this model follows canny, depth, openpose, softedge",
    "--structure openpose": "nothing here estimates openpose: give its maps with --structure-from openpose=FILE",
    "--structure softedge": "has no softedge network to estimate softedge with",
    "--structure depth=much": "say KIND, KIND=WEIGHT or KIND=WEIGHT@START:END",
    "--structure depth=11": "the weight of depth must be 0 to 10, got 11",
    "--structure depth=nan": "the weight of depth must be 0 to 10, got nan",
    "--structure depth=1@0.9:0.1": "depth from 0.9 to 0.1 is no part of 0 to 1",
    "--structure depth,depth=2": "names a kind twice",
    "--structure-from canny=hints.mkv --structure depth": "--structure-from canny: the edit follows depth",
    "--structure-from canny=nowhere.mkv": "nowhere.mkv: no such file",
    "--clip-skip 3": "--clip-skip is 3, not in 1 ... 2",
    "--clip-skip 0": "--clip-skip must be 1 or more",
    "--sampler euler": "unknown sampler 'euler'; choose one of: ddim",
    "--sampler lcm --steps 51": "--steps must be between 1 and 50",
    "--strength 0.1 --steps 4": "--strength 0.1 of num_inference_steps 4 leaves no step",
    "--strength 1.5": "--strength must be above 0 and at most 1",
    "--lora nowhere.safetensors": "nowhere.safetensors is not there",
    "--lora other.safetensors:0.5": "other.safetensors is for another model",
    "--lora lora.safetensors:nan": "argument --lora: the strength of lora.safetensors is nan",
    "--image nowhere.jpg": "nowhere.jpg: no such file",
    "--image a.jpg:0.6 --image b.jpg:0.7": "--image: pictures count together, by one scale, not 0.6, 0.7",
    "--image a.jpg --image b.jpg:0.7": "--image: pictures count together, by one scale, not 0.7, 1.0",
}


def test_wrong_input_is_told_in_one_line(model, files, capsys, tmp_path):
    before = sorted(tmp_path.iterdir())
    run = lambda model, given: main(["edit", "clip.mkv", "-o", "out.mkv", "--model", str(model), *given.split()])

    def check(model, options, said):
        capsys.readouterr()
        try:
            code = run(model, f"--prompt x {options}")
        except SystemExit as stopped:
            code = stopped.code
        out, err = capsys.readouterr()
        assert code == 2 and out == "" and said in err and err.count("\n") == 1, (options, err)
        assert sorted(tmp_path.iterdir()) == before

    for options, said in REFUSED.items():
        check(model, options, said)
    alone = save_tiny_model(files.parent / f"{files.name}_alone", TINY_PUBLIC)
    check(alone, "--image a.jpg", "takes no image: import it with --ip-adapter")


def test_blur_that_leaves_no_lines_is_told(pipeline):
    settings = EditSettings(structure="canny", structure_blur=3).of(pipeline.config)
    with pytest.warns(UserWarning, match="structure_blur 3 leaves canny hardly a line"):
        pipeline.read_structure(CLIP, settings)
