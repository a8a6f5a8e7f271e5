import itertools
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax import synthetic
from gen1_jax.cli import main
from gen1_jax.data import render
from gen1_jax.data.codec import inverse_depth
from gen1_jax.data.dataset import open_dataset
from gen1_jax.data.render import RenderRecipe, bench_render, render_dataset
from gen1_jax.media.windows import open_windows

RECIPE = RenderRecipe(clips=7, frames=3, height=16, width=24, clips_per_shard=2)


def quick_render(structure, content, *, frames, size, fps, supersample):
    """Stands in for `synthetic.render`, which takes a minute to compile: grey and depth tell structure and content."""
    height, width = size
    shape = (frames, height, width)
    level = jnp.asarray(structure.camera.distance, jnp.float32)
    rgb = jnp.broadcast_to((jnp.stack([content.style, content.environment, content.light]) * 9), (*shape, 3))
    depth = level * (1 + jnp.arange(width) / 100.0)
    return synthetic.Clip(
        rgb.astype(jnp.uint8),
        jnp.broadcast_to(depth, shape),
        jnp.full(shape, structure.layout),
        jnp.full((*shape, 2), fps / supersample),
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(synthetic, "render", quick_render)


def contents(directory):
    return {p.name: p.read_bytes() for p in sorted(Path(directory).rglob("*")) if p.is_file()}


def test_records_hold_the_clip_and_what_it_is(tmp_path, quick):
    seen = []
    summary = render_dataset(tmp_path, RECIPE, progress=lambda done, total: seen.append((done, total)))
    assert summary.complete and summary.examples == 7 and seen == [(done, 7) for done in range(8)]
    records = open_dataset(tmp_path, "train")
    assert len(records) == 7 and len({records[i]["id"] for i in range(7)}) == 7
    for index in range(7):
        record = records[index]
        seed = record["structure_seed"]
        assert seed == record["content_seed"] == synthetic.clip_seed("train", index)
        structure = synthetic.sample_structure(seed)
        content = synthetic.sample_content(seed, structure, "train")
        assert synthetic.parse(record["caption"]) == synthetic.describe(structure, content)
        clip = quick_render(structure, content, frames=3, size=(16, 24), fps=12.0, supersample=2)
        depth = inverse_depth(record["depth"], (3, 16, 24), record["depth_range"])
        assert np.abs(depth - 1 / np.asarray(clip.depth)).max() < 1e-5
        assert np.array_equal(record["ids"], clip.ids) and record["ids"].dtype == np.uint8
        with open_windows(record["video"]) as video:
            assert np.abs(video.window(0, 3, 1).astype(int) - clip.rgb).max() < 8
            assert (video.frames, video.frame_rate) == (3, 12.0)
        assert "flow" not in record


def test_flow_is_stored_on_request(tmp_path, quick):
    render_dataset(tmp_path, RenderRecipe(clips=1, frames=2, height=16, width=16, flow=True))
    assert np.array_equal(open_dataset(tmp_path, "train")[0]["flow"], np.full((2, 16, 16, 2), 6, np.float16))


def test_batches_and_processes_do_not_change_a_byte(tmp_path, quick):
    render_dataset(tmp_path / "one", RECIPE)
    render_dataset(tmp_path / "batched", RECIPE, batch_size=3)
    for index in (1, 0):
        render_dataset(tmp_path / "two", RECIPE, process_index=index, process_count=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "batched") == contents(tmp_path / "two")


def test_splits_and_seeds_are_disjoint(tmp_path, quick):
    for split, seed in itertools.product(synthetic.SPLITS, (0, 1)):
        recipe = RenderRecipe(clips=2, frames=1, height=16, width=16, split=split, seed=seed)
        render_dataset(tmp_path / str(seed), recipe)
    seeds = {
        open_dataset(tmp_path / str(seed), split)[index]["structure_seed"]
        for split, seed, index in itertools.product(synthetic.SPLITS, (0, 1), range(2))
    }
    assert len(seeds) == 12


def test_a_killed_rendering_continues(tmp_path, quick):
    code = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_synthetic_sets as here
        from gen1_jax import synthetic
        synthetic.render = here.quick_render
        def progress(done, total):
            print(done, flush=True)
            time.sleep(0.05)
        here.render_dataset(sys.argv[1], here.RECIPE, progress=progress)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    while process.stdout.readline() != "5\n":  # in the middle of the third shard
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list((tmp_path / "killed").glob("synthetic_clips-*"))) == 2
    seen = []
    summary = render_dataset(tmp_path / "killed", RECIPE, progress=lambda done, total: seen.append(done))
    assert (summary.written, summary.kept) == (2, 2) and seen == [4, 5, 6, 7]
    render_dataset(tmp_path / "clean", RECIPE)
    assert contents(tmp_path / "killed") == contents(tmp_path / "clean")


def test_another_recipe_is_refused(tmp_path, quick):
    render_dataset(tmp_path, RECIPE)
    with pytest.raises(ValueError, match="seed: 0, not 1"):
        render_dataset(tmp_path, RenderRecipe(**{**vars(RECIPE), "seed": 1}))
    for wrong in ({"clips": 0}, {"clips": 1, "split": "tset"}, {"clips": 1, "seed": -1}, {"clips": 1, "width": 2}):
        with pytest.raises(ValueError):
            RenderRecipe(**wrong)


def test_the_benchmark_counts(quick):
    result = bench_render(RECIPE, batch_size=2)
    assert result["batch_size"] == 2 and result["size"] == "24x16" and result["bytes_per_clip"] > 100
    assert result["render_frames_per_second"] > 0 and result["record_frames_per_second"] > 0


def test_the_commands(tmp_path, quick, capsys, monkeypatch):
    monkeypatch.setattr("gen1_jax.commands.common.use_compilation_cache", lambda: None)
    out = str(tmp_path / "worlds")
    small = ["--frames", "3", "--size", "24x16"]
    command = ["render", "--out", out, "--clips", "4", *small]
    assert main(command) == 0
    assert "1 shard of split train rendered (4 clips), 0 were there" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 shards of split train rendered (0 clips), 1 was there" in capsys.readouterr().out
    assert main([*command, "--seed", "3"]) == 2
    assert "seed: 0, not 3" in capsys.readouterr().err
    assert main(["bench", "render", "--clips", "2", *small]) == 0
    assert "frames/s of 24x16 rendered" in capsys.readouterr().out
    picture = tmp_path / "batch.png"
    walk = ["data", "--video", out, "--inputs", "depth", "--buckets", "24x16", "--frames", "2", "--batch-size", "2"]
    assert main([*walk, "--batches", "3", "--picture", str(picture)]) == 0
    assert "frames/s" in capsys.readouterr().out and picture.read_bytes().startswith(b"\x89PNG")
    for wrong in (["render", "--out", out], ["render"], ["data"], ["data", "--video", str(tmp_path / "none")]):
        assert main(wrong) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_sheet_has_a_structure_a_row_and_a_content_a_column(monkeypatch):
    def sheet(structures, contents, *, size):
        assert len(structures) == 2 and size == 32
        for row in contents:
            assert [(int(c.environment), int(c.style)) for c in row] == [
                (int(c.environment), int(c.style)) for c in contents[0]
            ]
        return np.zeros((len(structures), len(contents[0]), 3), np.uint8)

    monkeypatch.setattr(synthetic, "contact_sheet", sheet)
    assert render.render_sheet(rows=2, columns=3, size=32).shape == (2, 3, 3)


@pytest.mark.slow
def test_the_renderer_itself(tmp_path):
    render_dataset(tmp_path, RECIPE)
    record = open_dataset(tmp_path, "train")[0]
    structure = synthetic.sample_structure(record["structure_seed"])
    content = synthetic.sample_content(record["content_seed"], structure, "train")
    settings = {"frames": RECIPE.frames, "size": (RECIPE.height, RECIPE.width), "fps": RECIPE.frame_rate}
    clip = synthetic.render(structure, content, **settings)
    assert np.array_equal(record["ids"], clip.ids)
