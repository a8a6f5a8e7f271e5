import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.synthetic import (
    STYLES,
    contact_sheet,
    make_content,
    render,
    sample_content,
    sample_structure,
    shade_clip,
    trace_clip,
)
from gen1_jax.synthetic.benchmark import measure_throughput
from gen1_jax.synthetic.grid import Grid
from gen1_jax.synthetic.renderer import _downsample, shade_frames, trace_frames


def test_a_clip_has_the_documented_shapes_and_ranges(tiny):
    clip = tiny(3)
    assert clip.rgb.shape == (2, 32, 32, 3) and clip.rgb.dtype == np.uint8
    assert clip.depth.shape == (2, 32, 32) and clip.depth.dtype == np.float32
    assert clip.ids.shape == (2, 32, 32) and clip.ids.dtype == np.int32
    assert clip.flow.shape == (2, 32, 32, 2) and clip.flow.dtype == np.float32
    assert np.all(clip.depth > 0) and np.all(clip.depth <= 100) and np.all(np.isfinite(clip.flow))
    assert np.all((clip.depth == 100) == (clip.ids == 0))


def test_the_same_seed_gives_the_same_bytes(tiny):
    for one, other in zip(tiny(5), tiny(5), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(tiny(5).depth != tiny(6).depth)


@pytest.mark.parametrize("seed", range(4))
def test_content_changes_the_picture_and_nothing_else(tiny, seed):
    structure = sample_structure(seed)
    one = tiny(structure=structure, content=sample_content(100 + seed, structure))
    other = tiny(structure=structure, content=sample_content(200 + seed, structure))
    for name in ("depth", "ids", "flow"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert np.mean(one.rgb != other.rgb) > 0.5


def test_all_structures_and_contents_share_one_compilation(tiny):
    tiny(0)
    before = trace_frames._cache_size(), shade_frames._cache_size()
    for seed in range(20, 30):
        tiny(seed)
    assert (trace_frames._cache_size(), shade_frames._cache_size()) == before


def _two():
    structures = [sample_structure(seed) for seed in (1, 8)]
    contents = [sample_content(seed, s) for seed, s in zip((1, 8), structures, strict=True)]
    stacked = [jax.tree.map(lambda *leaves: np.stack(leaves), *group) for group in (structures, contents)]
    return structures, contents, stacked


def test_vmapped_clips_of_any_size_and_supersampling_keep_the_geometry(tiny):
    structures, contents, (stacked, _) = _two()
    wide = {"frames": 1, "size": (32, 48), "supersample": 2, "one_by_one": False}
    clips = jax.device_get(jax.jit(jax.vmap(lambda s: trace_clip(s, **wide)[2:]))(stacked))
    for index, (depths, ids, flows) in enumerate(zip(*clips, strict=True)):
        assert ids.shape == (1, 32, 48) and flows.shape == (1, 32, 48, 2)
        square = tiny(structure=structures[index], content=contents[index])
        # The shorter side carries the field of view: the middle of the wide frame is the square one.
        same = ids[0, :, 8:40] == square.ids[0]
        assert np.mean(same) > 0.995
        depth, flow = depths[0, :, 8:40][same], flows[0, :, 8:40][same]
        assert np.mean(np.isclose(depth, square.depth[0][same], rtol=1e-3)) > 0.995
        assert np.mean(np.isclose(flow, square.flow[0][same], rtol=1e-2, atol=1e-3)) > 0.995


@pytest.mark.parametrize("supersample", [1, 2, 3])
def test_downsampling_keeps_planes_where_they_are(supersample):
    grid = Grid(6, 9, supersample)
    rows, columns = (np.arange(n * supersample, dtype=np.float32) / supersample for n in (6, 9))
    slope = jnp.asarray(rows[:, None] + 2.0 * columns)
    image = np.asarray(_downsample([slope, jnp.ones_like(slope), -slope], grid))
    expected = np.arange(6.0)[:, None] + 2.0 * np.arange(9.0)
    assert image.shape == (6, 9, 3)
    np.testing.assert_allclose(image[1:-1, 1:-1, 0], expected[1:-1, 1:-1], atol=1e-5)
    np.testing.assert_allclose(image[..., 1], 1.0, atol=1e-6)


@pytest.mark.slow
def test_vmap_over_clips_agrees_with_one_by_one(tiny, options):
    structures, contents, stacked = _two()
    clips = jax.jit(jax.vmap(lambda s, c: render(s, c, one_by_one=False, **options)))(*stacked)
    for index in range(2):
        alone = tiny(structure=structures[index], content=contents[index])
        assert np.mean(np.asarray(clips.ids[index]) == alone.ids) > 0.998
        assert np.mean(np.isclose(clips.depth[index], alone.depth, rtol=1e-3)) > 0.998
        assert np.mean(np.abs(np.asarray(clips.rgb[index], np.int32) - alone.rgb) <= 2) > 0.98


def test_every_style_looks_different(options):
    structure = sample_structure(4, shapes=("car",), layout="open ground")
    geometry = trace_clip(structure, **options)
    static = {"size": options["size"], "supersample": options["supersample"]}
    pictures = [
        np.asarray(
            shade_clip(structure, make_content(("brick",), "meadow", "noon", style), geometry, **static), np.float32
        )
        for style in STYLES
    ]
    for i, one in enumerate(pictures):
        assert one.std() > 10.0
        for other in pictures[:i]:
            assert np.mean(np.abs(one - other)) > 4.0


def test_contact_sheet_is_a_grid_with_depth_first():
    structures = [sample_structure(seed) for seed in (0, 1)]
    contents = [[sample_content(10 * i + j, s) for j in range(2)] for i, s in enumerate(structures)]
    sheet = contact_sheet(structures, contents, size=32, supersample=1, frames=2)
    assert sheet.shape == (2 * 34 + 2, 3 * 34 + 2, 3) and sheet.dtype == np.uint8
    depth = sheet[2:34, 2:34]
    assert np.all(depth[..., 0] == depth[..., 1]) and depth.max() == 255


def test_impossible_sizes_are_refused():
    structure = sample_structure(0)
    content = sample_content(0, structure)
    for wrong in ({"frames": 0, "size": 8}, {"frames": 1, "size": 1}, {"frames": 1, "size": 8, "supersample": 0}):
        with pytest.raises(ValueError, match="need at least"):
            render(structure, content, **wrong)


def test_throughput_counts_all_frames():
    result = measure_throughput(clips=2, frames=2, size=32, supersample=1, threads=2)
    assert result.frames == 4 and result.frames_per_second > 0
