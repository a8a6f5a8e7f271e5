import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from edges import edges_known
from oracle import relative_error
from tiny import TINY, TINY_PUBLIC, save_tiny_model

from gen1_jax import Gen1Pipeline
from gen1_jax.data.codec import cover_size, encode_video
from gen1_jax.data.dataset import CLIP_FEATURES, open_dataset, write_dataset
from gen1_jax.data.precompute import (
    PrecomputeRecipe,
    check_latents,
    encoder_fingerprints,
    fingerprint,
    precompute_dataset,
)
from gen1_jax.data.sources import open_source
from gen1_jax.editing.settings import EditSettings
from gen1_jax.media.windows import open_windows
from gen1_jax.models.module import Bound, initialise
from gen1_jax.pretrained.folder import ModelFolder

FRAMES, CLIPS = 3, 5
KINDS = ("depth", "sobel")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A data set of five clips of 24x16."""
    rng = np.random.default_rng(0)

    def record(i):
        video = encode_video(rng.integers(0, 256, (FRAMES, 16, 24, 3), np.uint8), 8.0)
        sizes = {"frames": FRAMES, "height": 16, "width": 24}
        return {"id": f"c{i}", "video": video, "caption": f"clip {i}", "frame_rate": 8.0, "source": "noise", **sizes}

    directory = tmp_path_factory.mktemp("clips")
    examples = lambda shard: [record(i) for i in range(CLIPS)]
    write_dataset(
        directory, name="clips", split="train", features=CLIP_FEATURES, num_shards=1, examples=examples, info={"n": 1}
    )
    return directory


@pytest.fixture(scope="module")
def model(tiny_model):
    return ModelFolder(tiny_model)


@pytest.fixture(scope="module", autouse=True)
def edges():
    """A second kind of structure, known while these tests run."""
    with edges_known() as kind:
        yield kind


@pytest.fixture(scope="module")
def latents(clips, model, edges, tmp_path_factory):
    directory = tmp_path_factory.mktemp("latents")
    recipe = PrecomputeRecipe(data=str(clips), structure=KINDS, clips_per_shard=2)
    seen = []
    summary = precompute_dataset(directory, recipe, model, progress=lambda done, total: seen.append((done, total)))
    assert summary.complete and summary.examples == CLIPS and summary.written == 3
    assert seen[-1] == (CLIPS * FRAMES, CLIPS * FRAMES)
    return directory


def test_records_hold_what_an_edit_would_compute(clips, latents, tiny_model, edges):
    records, sources = open_source(str(latents)), open_dataset(clips, "train")
    pipeline = Gen1Pipeline.from_pretrained(tiny_model)
    height, width = TINY.working_size(16, 24)
    assert len(records) == CLIPS
    record = records[3]
    assert (record["id"], record["caption"]) == (sources[3]["id"], "clip 3")
    assert (record["height"], record["width"]) == (height, width)
    h, w = height // TINY.vae.downscale, width // TINY.vae.downscale
    assert record["moments"].shape == (FRAMES, h, w, 8)
    assert record["structure"]["depth"][7].shape == (FRAMES, h, w, 4)
    assert record["content"].shape == (FRAMES, 16)

    with open_windows(sources[3]["video"]) as video:
        frames = video.window(0, FRAMES, 1, cover_size(16, 24, (height, width)))[:, :height, :width]
    maps = edges.normalise(edges.estimate(frames, {}))[None]
    for level in (0, 5):
        of_edges = edges.encode(edges.degrade(maps, jnp.array([level])), pipeline.vae.images_to_latents)[0]
        assert relative_error(np.asarray(record["structure"]["sobel"][level], np.float32), of_edges) < 0.02  # bfloat16
        settings = EditSettings(structure_blur=level).of(pipeline.config)
        depth = pipeline.read_structure(np.asarray(frames), settings)
        structure = pipeline.encode_structure(depth, settings)["depth"].maps[0]
        found = np.asarray(record["structure"]["depth"][level], np.float32)
        assert relative_error(found, structure) < 0.02  # bfloat16
    images = jnp.asarray(frames, jnp.float32) / 127.5 - 1
    mean = np.asarray(record["moments"], np.float32)[..., :4]
    assert relative_error(mean, pipeline.vae.encode(images).mean) < 0.02
    content = pipeline.clip.encode_image(pipeline.clip.preprocess(jnp.asarray(frames)))
    assert relative_error(np.asarray(record["content"], np.float32), content) < 0.02


def test_batches_of_clips_are_what_single_clips_are(clips, latents, model, tmp_path, monkeypatch):
    """As on an accelerator: five clips in batches of two, over the borders of shards."""
    monkeypatch.setattr("gen1_jax.data.encoding._AT_ONCE", {"cpu": (2, 4)})
    precompute_dataset(tmp_path, PrecomputeRecipe(data=str(clips), structure=KINDS, clips_per_shard=3), model)
    batched, single = open_source(str(tmp_path)), open_source(str(latents))
    assert [batched[i]["id"] for i in range(CLIPS)] == [single[i]["id"] for i in range(CLIPS)]
    for ours, theirs in ((batched[i], single[i]) for i in range(CLIPS)):
        pairs = [(ours[name], theirs[name]) for name in ("moments", "content")]
        pairs += [(ours["structure"][kind][4], theirs["structure"][kind][4]) for kind in KINDS]
        for one, other in pairs:
            assert relative_error(np.asarray(one, np.float32), np.asarray(other, np.float32)) < 0.01


def test_a_rerun_adds_nothing_and_another_recipe_is_refused(clips, latents, model):
    recipe = PrecomputeRecipe(data=str(clips), structure=KINDS, clips_per_shard=2)
    assert precompute_dataset(latents, recipe, model).written == 0
    with pytest.raises(ValueError, match="size"):
        precompute_dataset(latents, dataclasses.replace(recipe, height=16, width=16), model)


def test_shards_of_two_processes_make_the_same_set(clips, latents, model, tmp_path):
    recipe = PrecomputeRecipe(data=str(clips), structure=KINDS, clips_per_shard=2)
    for index in (1, 0):
        precompute_dataset(tmp_path, recipe, model, process_index=index, process_count=2)
    ours, theirs = open_dataset(tmp_path, "train"), open_dataset(latents, "train")
    for i in range(CLIPS):
        np.testing.assert_array_equal(ours[i]["moments"], theirs[i]["moments"])


def test_latents_of_another_model_are_refused(latents, model):
    check_latents(latents, "train", model)

    class Other(ModelFolder):
        def __init__(self, *parts):
            super().__init__(model.path)
            self.parts = parts

        def parameters(self, component):
            theirs, ours = initialise(self.config.build(component, np.float32), 1), super().parameters(component)
            return ours | {name: theirs[name] for name in self.parts if component == "vae"}

    with pytest.raises(ValueError, match="another vae"):
        check_latents(latents, "train", Other("encoder"))
    decoding = Other("decoder", "post_quant_conv")
    assert fingerprint(decoding, "vae") != fingerprint(model, "vae")
    check_latents(latents, "train", decoding)  # latents do not depend on it


def test_a_contract_of_structure_that_changed_is_refused(latents, model, edges, monkeypatch):
    monkeypatch.setattr(type(edges), "contract", {"operator": "another"})
    with pytest.raises(ValueError, match=r"its sobel is .*sobel.* not .*another"):
        check_latents(latents, "train", model)
    assert encoder_fingerprints(model, ("sobel",)).keys() == {"vae", "clip"}  # no other network is built or hashed


def test_a_model_with_a_control_keeps_the_maps(clips, tmp_path):
    """And no embeddings, for it has no CLIP."""
    public = ModelFolder(save_tiny_model(tmp_path / "public", TINY_PUBLIC))
    precompute_dataset(tmp_path / "latents", PrecomputeRecipe(data=str(clips)), public)
    check_latents(tmp_path / "latents", "train", public)
    record, source = open_source(str(tmp_path / "latents"))[3], open_dataset(clips, "train")[3]
    assert "content" not in record and not record["structure"]
    height, width = public.config.working_size(16, 24)
    with open_windows(source["video"]) as video:
        frames = video.window(0, FRAMES, 1, cover_size(16, 24, (height, width)))[:, :height, :width]
    depth = Bound(public.config.build("depth", np.float32), public.parameters("depth"))
    assert relative_error(record["maps"]["depth"][..., 0], depth.estimate(frames / np.float32(127.5) - 1)) < 1e-3
    with pytest.raises(ValueError, match="public has no softedge to estimate structure softedge with"):
        encoder_fingerprints(public, ("softedge",))


def test_wrong_requests_are_named(clips, latents, model, tmp_path):
    with pytest.raises(ValueError, match="no depth"):
        precompute_dataset(tmp_path, PrecomputeRecipe(data=str(clips), depth="record"), model)
    with pytest.raises(ValueError, match="no video"):
        precompute_dataset(tmp_path, PrecomputeRecipe(data=str(latents)), model)
    with pytest.raises(ValueError, match="no structure of kind 'poses', only canny, depth"):
        PrecomputeRecipe(data=str(clips), structure=("depth", "poses"))
    with pytest.raises(ValueError, match="structure canny is for edits with a ControlNet"):
        PrecomputeRecipe(data=str(clips), structure=("depth", "canny"))
    with pytest.raises(ValueError, match="depth is 'record', but structure is none"):
        PrecomputeRecipe(data=str(clips), structure=(), depth="record")
    with pytest.raises(ValueError, match="both of height and width"):
        PrecomputeRecipe(data=str(clips), height=16)
