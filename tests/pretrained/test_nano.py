"""The model that ships: its files are what its manifest says, and its edits are edits."""

import dataclasses
import functools
import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange, reduce
from PIL import Image

from gen1_jax import Gen1Pipeline
from gen1_jax.editing.enlarging import scale_of
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import frame_consistency, psnr
from gen1_jax.models.module import flatten, unflatten
from gen1_jax.models.quantized import is_quantizable, quantise
from gen1_jax.pretrained import folder
from gen1_jax.pretrained.family import NANO
from gen1_jax.pretrained.folder import AssembledModel, ModelFolder, SeededModel, open_model

FOLDER = Path(folder.__file__).parent / "nano"
STEPS = 6
IN_ONE = dict(num_inference_steps=STEPS, guidance_interval=(0.0, 1.0))  # as nano's was when its edits were recorded
SIZE = 64  # half of what it was trained at, for the time that it takes


class Recorded(NamedTuple):
    """The first worlds, of `SIZE`: rendered once, for it takes XLA longer to compile the renderer than nano to edit."""

    source: np.ndarray
    answer: np.ndarray
    prompts: tuple[str, ...]


def edit_all(pipeline, worlds, **settings):
    """The edits of all worlds, in few steps: what is asked of them is not much."""
    return [
        pipeline.edit(clip, prompt=prompt, **IN_ONE | settings).frames
        for clip, prompt in zip(worlds.source, worlds.prompts, strict=True)
    ]


def read_clips(name):
    """Clips in a picture: a clip a row, a frame a column."""
    picture = np.asarray(Image.open(Path(__file__).parent / name))
    return rearrange(picture, "(n h) (t w) c -> n t h w c", h=SIZE, w=SIZE)


@pytest.fixture(scope="module")
def worlds():
    source, answer = read_clips("nano_worlds.png").reshape(3, 2, 4, SIZE, SIZE, 3).swapaxes(0, 1)
    return Recorded(source, answer, Worlds(3, frames=4, height=SIZE, width=SIZE).prompts)


@pytest.fixture(scope="module")
def pipeline():
    source = open_model("nano")
    source.config = dataclasses.replace(source.config, height=SIZE, width=SIZE)
    return Gen1Pipeline(source)


@pytest.fixture(scope="module")
def edits(pipeline, worlds):
    return edit_all(pipeline, worlds)


def test_the_files_are_those_of_the_manifest():
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    hashes = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in manifest["sha256"]}
    assert hashes == manifest["sha256"]
    assert manifest["dtype"] == "bfloat16" and manifest["parity"] == {"tensors": 0.0}
    assert "unet" in manifest["parts"] and all(part["ema"] is True for part in manifest["parts"].values())
    weights = {path.name: path.stat().st_size for path in FOLDER.glob("*.safetensors")}
    assert weights.keys() <= hashes.keys()
    assert max(weights.values()) <= 16 * 2**20 and sum(weights.values()) <= 34e6


@pytest.fixture(scope="module")
def fast():
    source = open_model("nano-fast")
    source.config = dataclasses.replace(source.config, height=SIZE, width=SIZE)
    return Gen1Pipeline(source)


@pytest.mark.parametrize("name", ["nano-fast", "nano2", "nano-upscaler"])
def test_a_unet_beside_nano(name):
    source, nano = open_model(name), open_model("nano")
    manifest = json.loads((source.path / "manifest.json").read_text())
    assert {"unet.safetensors", "config.json"} <= manifest["sha256"].keys()
    for file, digest in manifest["sha256"].items():
        assert hashlib.sha256((source.path / file).read_bytes()).hexdigest() == digest
    assert sum(path.stat().st_size for path in source.path.iterdir()) < 11e6
    assert source.name == name and source.warning is None and source.is_quantized and source.words == nano.words
    for network in ("vae", "clip", "depth", "prior"):
        theirs = flatten(source.stored(network))
        assert all((np.asarray(theirs[path]) == x).all() for path, x in flatten(nano.parameters(network)).items())


def test_what_they_are_made_for(fast):
    assert (fast.config.sampler, fast.config.num_inference_steps) == ("ddim", 4) and fast.config.distilled_scales
    assert {"depth", "edges", "source", "pose"} <= {*open_model("nano2").config.unet.kinds}
    assert scale_of(open_model("nano-upscaler").config) == 2


def test_four_evaluations_of_nano_fast_are_an_edit(fast, worlds):
    """Of pictures, whose program has no layers between frames to compile."""
    asked = zip(worlds.source[:, :1], worlds.prompts, strict=True)
    one = np.stack([fast.edit(picture, prompt=prompt).frames for picture, prompt in asked])
    to_images = lambda pictures: jnp.asarray(pictures, jnp.float32) / 255
    nearness = lambda pictures: psnr(to_images(pictures), to_images(worlds.answer[:, :1])).mean()
    assert nearness(one) > nearness(np.roll(one, 1, 0)) + 4  # each that of its own prompt and clip


def test_nano_upscaler_is_nearer_than_bicubic(worlds):
    """Of one picture."""
    large = worlds.answer[0, :1]
    small = np.rint(reduce(large.astype(np.float32), "t (h i) (w j) c -> t h w c", "mean", i=2, j=2)).astype(np.uint8)
    upscaled = Gen1Pipeline.from_pretrained("nano-upscaler").upscale(small, num_inference_steps=2).frames
    bicubic = np.asarray(Image.fromarray(small[0]).resize(large.shape[2:0:-1], Image.Resampling.BICUBIC))[None]
    to_images = lambda pictures: jnp.asarray(pictures[None], jnp.float32) / 255
    ours, theirs = (psnr(to_images(pictures), to_images(large)).item() for pictures in (upscaled, bicubic))
    assert ours > theirs + 0.5


def test_nano2_goes_on_from_what_is_known(worlds):
    """Of pictures, as above, but of the size that it knows: stripes are known, its own or those of another answer."""
    edit = functools.partial(Gen1Pipeline.from_pretrained("nano2").edit, **IN_ONE)
    stripes = np.broadcast_to(np.arange(128) // 16 % 2, (1, 128, 128))
    to_images = lambda pictures: jnp.asarray(pictures[None][..., stripes[0, 0] == 0, :], jnp.float32) / 255
    sources, answers = (clips[:2, :1].repeat(2, axis=2).repeat(2, axis=3) for clips in worlds[:2])
    nearer = []
    for clip, answer, other, prompt in zip(sources, answers, answers[::-1], worlds.prompts, strict=False):
        both = (edit(clip, prompt=prompt, known=(known, stripes)).frames for known in (answer, other))
        own, others = (psnr(to_images(picture), to_images(answer)).item() for picture in both)
        nearer.append(own - others)
    assert np.mean(nearer) > 2


def test_it_is_nano_and_trained():
    model = open_model("nano")
    assert isinstance(model, ModelFolder) and model.warning is None and model.name == "nano"
    same = {"vae": {**model.config.to_dict()["vae"], "scaling_factor": NANO.vae.scaling_factor}}
    assert model.config.to_dict() | same == NANO.to_dict()


def test_the_card_says_what_it_is_for_and_its_licence():
    card = (FOLDER / "README.md").read_text()
    header, body = card.split("---\n")[1:3]
    assert "license: apache-2.0" in header.splitlines()
    for section in ("## Intended use", "## Limits", "## Training", "## Measured"):
        assert section in body
    assert (FOLDER / "training.png").stat().st_size > 10_000
    licence = (FOLDER.parents[2] / "LICENSE").read_text()
    assert "Apache License" in licence


def test_the_example_of_the_readme_runs(pipeline, monkeypatch, tmp_path):
    """As it is printed, but in two steps: what is asked is whether it runs, with its own clip's size."""
    example = re.search(r"```python\n(.*?)```", (FOLDER.parents[2] / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "gen1_jax").symlink_to(FOLDER.parents[1])
    monkeypatch.chdir(tmp_path)  # where it writes
    monkeypatch.setattr(Gen1Pipeline, "from_pretrained", lambda name: pipeline)
    monkeypatch.setattr(pipeline, "edit", functools.partial(pipeline.edit, num_inference_steps=2))
    names = {}
    exec(example, names)
    assert names["out"].frames.shape == names["frames"].shape == (8, 256, 256, 3)
    assert names["out"].frames.std() > 10 and (names["out"].frames != names["frames"]).any()


def test_edits_are_nearer_to_the_answer_than_the_input_and_random_weights(pipeline, worlds, edits):
    random = AssembledModel(pipeline.source, {"unet": SeededModel(pipeline.config, 0, "random", FOLDER)})
    (noise,) = edit_all(Gen1Pipeline(random), Recorded(worlds.source[:1], worlds.answer[:1], worlds.prompts[:1]))
    to_images = lambda clips: jnp.asarray(clips, jnp.float32) / 255
    nearness = lambda clips: psnr(to_images(clips), to_images(worlds.answer[: len(clips)]))
    assert nearness(edits).mean() > nearness(worlds.source).mean() + 2
    assert nearness(edits)[0] > nearness(noise[None])[0] + 2


@pytest.fixture(scope="module")
def smooth(pipeline, worlds):
    return edit_all(pipeline, worlds, temporal_guidance_scale=1.5)


def test_edits_are_those_that_were_recorded(edits, smooth):
    """By commit 69739ad, before conditions, branches and structures were rewritten.

    With the compiler as it is here they are within 1 of 255, and 3 of 196,608 values differ. That commit's own edits
    move by 2 in 9 values, and by 1 in 1%, between XLA's levels of optimisation: so much is left to other processors.
    """
    recorded = read_clips("nano_edits.png")
    ours = np.stack([*edits, smooth[0]])
    difference = np.abs(ours.astype(int) - recorded)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.02 and (difference > 1).sum() < 20


def test_edits_in_eight_bits_are_within_35_db(pipeline, worlds, edits):
    """The programs are those of floating point, which are compiled; layers of int8 compute the same of them."""
    held = {name: pipeline.network(name).params for name in pipeline.config.components}
    rounded = lambda path, x: quantise(x).weights() if is_quantizable(path, x.shape) else x
    try:
        for name, params in held.items():
            flat = {path: rounded(path, np.asarray(x)) for path, x in flatten(params).items()}
            pipeline.network(name).params = jax.device_put(unflatten(flat))
        eight_bits = edit_all(pipeline, worlds)
    finally:
        for name, params in held.items():
            pipeline.network(name).params = params
    to_images = lambda clips: jnp.asarray(clips, jnp.float32) / 255
    nearness = psnr(to_images(eight_bits), to_images(edits))
    assert (nearness > 35).all() and (nearness < 70).all()


def test_frames_agree_the_more_the_larger_w_t(pipeline, worlds, edits, smooth):
    def agreement(clips):
        embed = lambda clip: np.asarray(pipeline.clip.encode_image(pipeline.clip.preprocess(clip)))
        return np.mean([frame_consistency(embed(clip)) for clip in clips])

    drawn = edit_all(pipeline, worlds, temporal_guidance_scale=0.0)
    assert agreement(drawn) < agreement(edits) < agreement(smooth)
