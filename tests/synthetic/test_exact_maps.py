"""Exact maps of worlds, and what worlds looked like before they were edited."""

import jax
import numpy as np
import pytest

from gen1_jax.synthetic import (
    SKELETONS,
    exact_maps,
    render_with_maps,
    sample_content,
    sample_source,
    sample_structure,
    trace_clip,
)
from gen1_jax.synthetic.skeletons import MAX_JOINTS


@pytest.fixture(scope="module")
def walker():
    return sample_structure(20, shapes=("person", "sphere"), layout="open ground")


@pytest.fixture(scope="module")
def traced(walker, options):
    geometry = trace_clip(walker, **options)
    return jax.device_get((geometry, exact_maps(walker, geometry, size=32, supersample=1)))


def test_edges_lie_where_something_ends(traced):
    geometry, maps = traced
    edges, ids = maps["edges"], geometry.ids
    assert edges.dtype == bool and edges.shape == ids.shape
    jumps = ids[:, :, 1:] != ids[:, :, :-1]
    assert edges[:, :, :-1][jumps].all() and 0.01 < edges.mean() < 0.4
    sky = ids == 0
    assert sky.any()
    inside = sky & np.roll(sky, -1, 1) & np.roll(sky, -1, 2)
    assert not edges[:, :-1, :-1][inside[:, :-1, :-1]].any()


def test_normals_are_unit_vectors_towards_the_camera(traced):
    geometry, maps = traced
    normals = maps["normals"]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-3)
    assert (normals[..., 2] > -0.2).all()  # all that is seen faces the eye, up to perspective
    np.testing.assert_allclose(normals[geometry.ids == 0], np.tile([0, 0, 1], ((geometry.ids == 0).sum(), 1)))
    ground = normals[geometry.ids == 1]
    assert ground[:, 1].mean() > 0.6  # and the camera looks down a little


def test_joints_lie_on_their_figure_and_go_where_it_goes(traced):
    geometry, maps = traced
    joints = maps["joints"]
    assert joints.shape == (2, 5, MAX_JOINTS, 3) and not joints[:, 1:, :, 2].any()  # a ball has none
    person = SKELETONS["person"]
    seen = joints[0, 0, : len(person.joints)]
    assert (seen[:, 2] == 1).sum() > 6 and not joints[0, 0, len(person.joints) :, 2].any()
    errors = []
    for number, (x, y, visible) in enumerate(seen):
        column, row = round(float(x)), round(float(y))
        if visible and 0 <= row < 32 and 0 <= column < 32:
            around = geometry.ids[0, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            assert (around == 3).any(), number
            if geometry.ids[0, row, column] == 3:  # though it may be another limb that is seen there
                errors.append(np.abs(joints[1, 0, number, :2] - seen[number, :2] - geometry.flow[0, row, column]).max())
    assert len(errors) > 3 and np.median(errors) < 0.5
    head, ankles = seen[0], seen[[8, 14]]
    assert head[1] < ankles[:, 1].min()


def test_the_clip_is_that_of_render_and_the_source_differs_as_it_is_said(tiny, walker, options):
    content = sample_content(20, walker)
    other, change = sample_source(20, walker, content)
    clip, maps, (source,) = render_with_maps(walker, content, ("edges",), others=(other,), **options)
    np.testing.assert_array_equal(clip.rgb, tiny(structure=walker, content=content).rgb)
    assert list(maps) == ["edges"] and source.shape == clip.rgb.shape and np.any(np.asarray(source) != clip.rgb)
    fields = {"object": {"materials"}, "place": {"environment", "light"}, "style": {"style"}}
    seen = set()
    for seed in range(12):
        before, change = sample_source(seed, walker, content)
        different = {n for n in vars(content) if np.any(vars(before)[n] != vars(content)[n])}
        assert different and different <= fields.get(change, set(vars(content)))
        seen.add(change)
        chosen, change = sample_source(seed, walker, content, change="style")
        assert change == "style" and {n for n in vars(content) if np.any(vars(chosen)[n] != vars(content)[n])} == {
            "style"
        }
    assert len(seen) >= 3
