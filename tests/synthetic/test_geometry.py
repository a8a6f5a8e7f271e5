import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.synthetic import sample_structure
from gen1_jax.synthetic.animation import camera_view, part_poses
from gen1_jax.synthetic.terrain import ground_waves

SIZE, FPS = 32, 12.0
camera_view, part_poses = jax.jit(camera_view), jax.jit(part_poses)


def _rays(view, x, y):
    """World directions with unit length along the optical axis, from the definition of the camera."""
    scale = float(view.tangent) * 2.0 / SIZE
    u, v = (x - (SIZE - 1) / 2) * scale, ((SIZE - 1) / 2 - y) * scale
    axes = np.asarray(view.axes)
    return u[..., None] * axes[0] + v[..., None] * axes[1] + axes[2]


def _pixels():
    y, x = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32), indexing="ij")
    return x, y


def test_plane_and_sphere_have_their_analytic_depth(tiny):
    structure = sample_structure(12, shapes=("sphere",), layout="open ground")
    clip = tiny(structure=structure)
    for frame in range(2):
        time = frame / FPS
        view, pose = camera_view(structure.camera, time), part_poses(structure, time)
        eye, ray = np.asarray(view.eye), _rays(view, *_pixels())
        plane = np.where(ray[..., 1] < 0, -eye[1] / np.minimum(ray[..., 1], -1e-9), np.inf)
        radius = structure.parts.shape[0, 5]
        offset = eye - np.asarray(pose.centre[0])
        a, b = np.sum(ray * ray, -1), ray @ offset
        root = b * b - a * (offset @ offset - radius**2)
        sphere = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
        expected_ids = np.where(np.minimum(plane, sphere) >= 100, 0, np.where(sphere < plane, 3, 1))
        edge = np.abs(root) < 0.01 * np.abs(root).max()  # within a fraction of a pixel of the outline
        same = clip.ids[frame] == expected_ids
        assert np.all(same | edge)
        assert np.sum(expected_ids == 3) > 50 and np.sum(expected_ids == 1) > 50
        seen = same & ~edge & (expected_ids > 0)
        np.testing.assert_allclose(clip.depth[frame][seen], np.minimum(plane, sphere)[seen], rtol=2e-4)


def test_hills_are_hit_on_their_surface(tiny):
    structure = sample_structure(2, layout="hills")
    clip = tiny(structure=structure)
    view = camera_view(structure.camera, 0.0)
    point = np.asarray(view.eye) + clip.depth[0][..., None] * _rays(view, *_pixels())
    ground = clip.ids[0] == 1
    height = np.asarray(
        ground_waves(jax.tree.map(jnp.asarray, structure.terrain), *map(jnp.asarray, (point[..., 0], point[..., 2])))
    )
    assert np.sum(ground) > 100
    assert np.max(np.abs(point[..., 1] - height)[ground]) < 2e-3


@pytest.mark.parametrize("seed", [0, 1, 3, 14, 17, 23])
def test_flow_leads_to_the_same_surface_in_the_next_frame(tiny, seed):
    structure = sample_structure(seed)
    clip = tiny(structure=structure)
    x, y = _pixels()
    next_x, next_y = x + clip.flow[0, ..., 0], y + clip.flow[0, ..., 1]
    i, j = np.round(next_y).astype(int), np.round(next_x).astype(int)
    inside = (i >= 1) & (i < SIZE - 1) & (j >= 1) & (j < SIZE - 1)
    i, j = np.clip(i, 1, SIZE - 2), np.clip(j, 1, SIZE - 2)
    whole = np.ones_like(inside)  # the target's neighbourhood shows one surface: neither an edge nor an occlusion
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            whole &= clip.ids[1][i + di, j + dj] == clip.ids[1][i, j]
    fair = inside & whole
    assert fair.sum() > 200
    assert np.mean((clip.ids[1][i, j] == clip.ids[0])[fair]) > 0.96
    # Still things: the point behind a pixel, seen from the next camera, has the depth found where the flow ends.
    view, later = camera_view(structure.camera, 0.0), camera_view(structure.camera, 1 / FPS)
    point = np.asarray(view.eye) + clip.depth[0][..., None] * _rays(view, x, y)
    expected = (point - np.asarray(later.eye)) @ np.asarray(later.axes)[2]
    still = fair & (clip.ids[0] == 1) & (clip.ids[1][i, j] == 1)
    top, left = np.floor(next_y).astype(int).clip(0, SIZE - 2), np.floor(next_x).astype(int).clip(0, SIZE - 2)
    dy, dx = next_y - top, next_x - left
    inverse = 1.0 / clip.depth[1]
    found = (inverse[top, left] * (1 - dx) + inverse[top, left + 1] * dx) * (1 - dy)
    found = found + (inverse[top + 1, left] * (1 - dx) + inverse[top + 1, left + 1] * dx) * dy
    error = np.abs(found * expected - 1.0)[still]
    assert np.quantile(error, 0.9) < 0.02


def test_flow_of_a_moving_object_is_its_own(tiny):
    structure = sample_structure(5, shapes=("car",), layout="open ground", camera="hand-held")
    rate = structure.motion.path[0, 1]
    assert rate != 0.0
    still = structure.camera.__class__(**{**vars(structure.camera), "shake": structure.camera.shake * 0})
    structure = structure.__class__(**{**vars(structure), "camera": still})
    clip = tiny(structure=structure)
    length = np.linalg.norm(clip.flow[0], axis=-1)
    assert np.max(length[clip.ids[0] <= 1]) < 1e-3
    assert np.mean(length[clip.ids[0] == 3]) > 0.1


@pytest.mark.parametrize("seed", range(30, 42))
def test_the_camera_sees_the_objects_from_outside(tiny, seed):
    structure = sample_structure(seed)
    clip = tiny(structure=structure)
    assert clip.depth.min() > 0.2
    assert np.mean(clip.ids >= 3) > 0.02
    assert len(set(np.unique(clip.ids)) & set(range(3, 8))) >= max(1, len(structure.names) - 1)
