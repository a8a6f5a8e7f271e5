"""Kinds of structure from worlds to batches: by records, and straight from the renderer."""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np
import pytest
from oracle import relative_error

from gen1_jax import synthetic
from gen1_jax.cli import main
from gen1_jax.data.config import DataConfig, SourceConfig, StreamConfig
from gen1_jax.data.dataset import open_dataset
from gen1_jax.data.latents import held_levels
from gen1_jax.data.mixture import Mixture
from gen1_jax.data.precompute import PrecomputeRecipe, check_latents, precompute_dataset
from gen1_jax.data.render import RenderRecipe, Scene, WorldRenderer, render_dataset
from gen1_jax.data.sources import open_source
from gen1_jax.data.walk import batch_picture
from gen1_jax.data.world import recorded_maps, world_maps
from gen1_jax.models.structure import structure_kind
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.synthetic.skeletons import MAX_JOINTS

FRAMES, SIZE, CLIPS = 2, 16, 6
KINDS = ("depth", "edges", "normals", "flow", "segmentation", "pose", "source")
ENCODED = ("depth", "edges", "flow", "source")


def quick(structure, content, names=(), *, frames, size, others=(), **_):
    """Stands in for `synthetic.render_with_maps`, which takes long to compile; every clip is another."""
    shape, far = (frames, *size), jnp.asarray(structure.camera.distance, jnp.float32)
    y, x = (jnp.asarray(side, jnp.float32) for side in np.mgrid[: size[0], : size[1]] / size[0])
    left = 0.6 * jnp.sin(4 * x)
    number = jnp.arange(5 * MAX_JOINTS * 3).reshape(5, MAX_JOINTS, 3)
    maps = {
        "edges": jnp.broadcast_to(jnp.sin(99 * far * (x + 2 * y)) > 0.8, shape),
        "normals": jnp.broadcast_to(jnp.stack([left, 0 * x, jnp.sqrt(1 - left**2)], -1), (*shape, 3)),
        "joints": jnp.broadcast_to(8 + 7 * jnp.sin(far * number), (frames, *number.shape)),
    }
    shade = lambda c: jnp.broadcast_to((40 + 3 * c.environment + 40 * x)[..., None], (*shape, 3)).astype(jnp.uint8)
    clip = synthetic.Clip(
        shade(content),
        jnp.broadcast_to(1 + x + y, shape),
        jnp.broadcast_to((x * 4).astype(jnp.int32), shape),
        jnp.broadcast_to(jnp.array([1.5, -0.5]), (*shape, 2)),
    )
    return clip, {name: maps[name] for name in names}, tuple(map(shade, others))


@pytest.fixture(scope="module", autouse=True)
def quickly():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "render_with_maps", quick)
        patch.setattr(synthetic, "render", lambda *programs, **settings: quick(*programs, **settings)[0])
        yield


@pytest.fixture(scope="module")
def model(tiny_model):
    return ModelFolder(tiny_model)


@pytest.fixture(scope="module")
def straight(model, tmp_path_factory):
    """Latents of worlds, of which there were no records."""
    directory = tmp_path_factory.mktemp("straight")
    precompute_dataset(directory, recipe(f"worlds:{CLIPS}@5"), model)
    return directory


def recipe(data, **more):
    given = {
        "structure": ENCODED,
        "record": ENCODED,
        "levels": "two",
        "frames": FRAMES,
        "height": SIZE,
        "width": SIZE,
        **more,
    }
    return PrecomputeRecipe(data=str(data), **given)


def test_records_give_back_the_maps_of_the_renderer(tmp_path):
    worlds = RenderRecipe(clips=2, frames=FRAMES, height=SIZE, width=SIZE, maps=KINDS)
    render_dataset(tmp_path, worlds)
    renderer = WorldRenderer(worlds, 1)
    record = open_dataset(tmp_path, "train")[1]
    ((scene, world),) = next(renderer.clips([1]))
    assert scene.source is not None and Scene.draw(RenderRecipe(clips=2), 1).source is None
    for kind, close in zip(KINDS, (1e-4, 0, 0.02, 1e-3, 0, 0.2, 0.05), strict=True):
        found, exact = recorded_maps(record, kind), world_maps(world, kind)
        assert found.shape == exact.shape == (FRAMES, SIZE, SIZE, structure_kind(kind).channels)
        assert found.dtype == np.float32 and np.abs(found - exact).max() <= close, kind
    assert "edges_bits" not in RenderRecipe(clips=1).features and "maps" not in RenderRecipe(clips=1).info()
    before = Scene.draw(dataclasses.replace(worlds, change="style"), 1)
    assert before.source.environment == before.content.environment and before.source.style != before.content.style

    stream = dict(sources=(SourceConfig(path=str(tmp_path)),), buckets=((SIZE, 2 * SIZE),), batch_size=2)
    config = DataConfig(
        video=StreamConfig(**stream, frames=FRAMES), image_probability=0.0, inputs="maps", structure=KINDS,
        flip_probability=1.0, random_crop=False,
    )  # fmt: skip
    batch = next(iter(Mixture(config, process_index=0, process_count=1)))
    (row,) = np.flatnonzero(batch.record[:, 1] == 1)
    cut = (slice(None), slice(SIZE // 2, SIZE // 2 + SIZE))
    flow = np.broadcast_to(np.float32([-3, -1]), batch.maps["flow"][row].shape)  # twice as large, and mirrored
    np.testing.assert_allclose(batch.maps["flow"][row], flow, atol=0.02)
    colours = np.kron(recorded_maps(record, "segmentation"), np.ones((1, 2, 2, 1)))[:, :, ::-1][cut]
    np.testing.assert_array_equal(batch.maps["segmentation"][row], colours.astype(np.float32))  # labels do not mix
    left = recorded_maps(record, "normals")[:, 8, ::-1, 0]
    assert np.corrcoef(batch.maps["normals"][row, :, SIZE // 2, ::2, 0].ravel(), -left.ravel())[0, 1] > 0.99
    assert batch_picture(batch).shape[-1] == 3
    with pytest.raises(ValueError, match="structure flow goes to the next frame: stride must be 1"):
        stream["sources"] = (SourceConfig(path=str(tmp_path), stride=2),)
        DataConfig(
            video=StreamConfig(**stream, frames=FRAMES), image_probability=0.0, inputs="maps", structure=("flow",)
        )


def test_worlds_become_the_same_latents_with_and_without_records(tmp_path, straight, model):
    worlds = RenderRecipe(clips=CLIPS, seed=5, frames=FRAMES, height=SIZE, width=SIZE, maps=KINDS)
    render_dataset(tmp_path / "worlds", worlds)
    precompute_dataset(tmp_path / "latents", recipe(tmp_path / "worlds"), model)
    check_latents(straight, "train", model)
    ours, theirs = open_source(str(straight)), open_source(str(tmp_path / "latents"))
    assert len(ours) == len(theirs) == CLIPS and set(ours.kinds) == set(ENCODED)
    for index in (0, CLIPS - 1):
        one, other = ours[index], theirs[index]
        assert (one["id"], one["caption"]) == (other["id"], other["caption"])
        assert one["levels"] == held_levels(2, one["id"]) == (0, one["levels"][1])
        for kind in ENCODED:
            for level in (0, 6) if kind == "edges" else one["levels"]:
                found, expected = (np.asarray(x["structure"][kind][level], np.float32) for x in (one, other))
                assert relative_error(found, expected) < (0.2 if kind == "source" else 0.06), (kind, level)
        first, second = (np.asarray(one["structure"]["source"][level], np.float32) for level in one["levels"])
        assert np.abs(first - second).max() > 0.01
        other_level = next(level for level in range(1, 8) if level not in one["levels"])
        with pytest.raises(ValueError, match=f"its flow at t_s {other_level} cannot be read"):
            one["structure"]["flow"][other_level]
    counts = {kind: len(levels) for kind, levels in ours._levels.items()}
    assert counts == {"depth": 2 * CLIPS, "edges": CLIPS, "flow": 2 * CLIPS, "source": 2 * CLIPS}
    assert precompute_dataset(straight, recipe(f"worlds:{CLIPS}@5"), model).written == 0


@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_draw_of_the_two_levels_that_are_held(straight, in_memory):
    source = open_source(str(straight))
    stream = StreamConfig(
        sources=(SourceConfig(path=str(straight)),), buckets=((SIZE, SIZE),), batch_size=6, frames=FRAMES
    )
    config = DataConfig(
        video=stream, image_probability=0.0, inputs="latents", structure=ENCODED, structure_levels=(0, 7),
        in_memory=in_memory,
    )  # fmt: skip
    batches = [batch for batch, _ in zip(Mixture(config, process_index=0, process_count=1), range(8), strict=False)]
    drawn = [(int(i), int(t)) for b in batches for (_, i), t in zip(b.record, b.structure_level, strict=True)]
    assert all(level in source[index]["levels"] for index, level in drawn)
    assert 0 in {t for _, t in drawn} and len({t for _, t in drawn}) > 2
    for row, (index, level) in enumerate(drawn[:6]):
        expected = source[index]["structure"]["depth"][level]
        np.testing.assert_array_equal(batches[0].structure["depth"][row], expected)
    assert batches[0].structure["edges"].shape == batches[0].structure["depth"].shape
    config = DataConfig.from_dict({**config.to_dict(), "structure_levels": (1, 1)})
    with pytest.raises(ValueError, match="let structure_levels begin at 0"):
        next(iter(Mixture(config, process_index=0, process_count=1)))


def test_estimates_of_the_host_and_wrong_requests(tmp_path, tiny_model, capsys, monkeypatch):
    monkeypatch.setattr("gen1_jax.commands.common.use_compilation_cache", lambda: None)
    command = ["precompute", "--data", "worlds:1", "--model", str(tiny_model), "--out", str(tmp_path / "out")]
    small = ["--size", f"{SIZE}x{SIZE}", "--frames", "2"]
    kinds = ["--structure", "flow,pose", "--record", "pose"]
    assert main([*command, *small, *kinds, "--json"]) == 0
    record = open_source(str(tmp_path / "out"))[0]
    assert record["structure"].keys() == {"flow", "pose"}
    capsys.readouterr()
    for wrong, told in (
        (["--structure", "pose"], "nothing here estimates pose: .*--record pose"),
        (["--record", "flow"], "record names flow, but structure is depth"),
        (["--structure", "tile", "--record", "tile"], "synthetic clips have no exact tile, only depth, .*source"),
    ):
        assert main([*command, *small, *wrong]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and re.search(told, said), said
    render_dataset(tmp_path / "worlds", RenderRecipe(clips=1, frames=FRAMES, height=SIZE, width=SIZE))
    with pytest.raises(ValueError, match="its records have no edges; use gen1 render --maps edges"):
        precompute_dataset(tmp_path / "more", recipe(tmp_path / "worlds"), ModelFolder(tiny_model))
