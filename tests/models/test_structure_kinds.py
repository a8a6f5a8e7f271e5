"""Edges, normals, flow, segmentation and pose: what their estimators find, and what mirroring does to their maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gen1_jax.models.module import Bound
from gen1_jax.models.structure import (
    Bone,
    Edges,
    Flow,
    Normals,
    Pose,
    Segmentation,
    colours_of,
    draw_bones,
    structure_kind,
)

T, H, W = 3, 32, 48


@pytest.fixture(scope="module")
def moving():
    """A box of noise that goes 2 pixels to the right and 1 down each frame, before noise that stands still."""
    rng = np.random.default_rng(0)
    smooth = lambda h, w: np.kron(rng.integers(60, 190, (h // 4, w // 4, 3)), np.ones((4, 4, 1)))
    behind, box = smooth(H, W) // 2, smooth(16, 16) // 2 + 120
    frames = np.stack([behind] * T)
    for t in range(T):
        frames[t, 8 + t : 24 + t, 12 + 2 * t : 28 + 2 * t] = box
    return frames.astype(np.uint8)


class Plane(nnx.Module):
    """Stands for a depth network that sees a floor: inverse depth grows linearly towards the bottom."""

    config = None

    def estimate(self, images, frames_per_chunk=4):
        return jnp.broadcast_to(jnp.linspace(0.2, 1, images.shape[1])[:, None], images.shape[:3])


def test_edges_are_borders_and_no_texture():
    frames = np.full((1, H, W, 3), 90, np.uint8)
    frames[:, 8:24, 12:28] = 200
    frames[:, 10:22, 14:26] += np.random.default_rng(1).integers(0, 12, (12, 12, 1), np.uint8)
    edges = Edges().estimate(frames, {})
    assert edges.shape == (1, H, W, 1) and set(np.unique(edges)) == {0, 1}
    assert edges[0, 6:26, 10:30].sum() == edges.sum() > 50 and not edges[0, 11:21, 15:25].any()


def test_flow_is_in_pixels_and_its_pictures_have_a_fixed_scale(moving):
    kind = Flow()
    flow = kind.estimate(moving, {})
    assert flow.shape == (T, H, W, 2) and flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow[:2, 12:22, 18:26], (1, 2)), [[2, 1]] * 2, atol=0.3)
    np.testing.assert_array_equal(flow[-1], flow[-2])
    assert (kind.estimate(moving[:1], {}) == 0).all()

    maps = kind.normalise(jnp.array([[[[[2.0, -1.0], [0.0, 99.0]]] * 16]]))  # of a shorter side of two pixels
    assert maps.shape == (1, 1, 16, 2, 2)
    np.testing.assert_allclose(maps[0, 0, 0, 1], [0, 1])
    half = kind.normalise(jnp.full((1, H, W, 2), 0.25 * 0.125 * H))
    np.testing.assert_allclose(half, 0.5, atol=1e-6)
    twice = kind.transformed(flow, (2.0, 3.0), mirrored=True)
    np.testing.assert_allclose(twice, flow * np.array([-3, 2]), rtol=1e-6)


def test_normals_of_a_floor_point_up():
    kind, networks = Normals(), {"depth": Bound(Plane(), {})}
    normals = jax.jit(lambda frames: kind.estimate(frames, networks))(np.zeros((1, H, H, 3), np.uint8))
    np.testing.assert_allclose(jnp.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    middle = normals[0, 8:24, 8:24]
    assert (middle[..., 1] > 0.5).all() and (abs(middle[..., 0]) < 0.2).all() and (middle[..., 2] > 0).all()
    across = jnp.swapaxes(normals, 1, 2)  # what faces up, turned, and mirrored
    np.testing.assert_allclose(kind.transformed(across, mirrored=True)[..., 0], -across[..., 0])
    assert structure_kind("normal").hint(normals[None]).shape == (1, 1, H, H, 3)


def test_segmentation_follows_things_through_a_clip_in_colours_of_chance():
    frames = np.random.default_rng(2).integers(90, 110, (T, H, W, 3)).astype(np.uint8)
    for t in range(T):
        frames[t, 8 + t : 24 + t, 12 + 2 * t : 28 + 2 * t, 0] += 100
    colours = Segmentation(regions=4).estimate(frames, {})
    assert colours.shape == (T, H, W, 3) and len(np.unique(colours.reshape(-1, 3), axis=0)) <= 4
    inside = [colours[t, 12 + t : 20 + t, 16 + 2 * t : 24 + 2 * t] for t in range(T)]
    assert all((frame == inside[0][4, 4]).all(-1).mean() > 0.8 for frame in inside)
    assert (colours[:, :4, 40:] != inside[0][4, 4]).any()
    labels = np.arange(8)[None, None]
    one, other = colours_of(labels, 1), colours_of(labels, 2)
    np.testing.assert_array_equal(one, colours_of(labels, 1))
    assert np.abs(one - other).max() > 0.1
    apart = np.linalg.norm(one[0, 0][:, None] - one[0, 0], axis=-1) + np.eye(8)
    assert apart.min() > 0.2


def test_a_mirrored_pose_is_that_of_a_mirrored_figure():
    joints = np.array([[[10.0, 6, 1], [10, 20, 1], [4, 26, 1], [16, 26, 1], [22, 6, 0]]])
    bones = [Bone(0, 1, "spine"), Bone(1, 2, "thigh", "right"), Bone(1, 3, "thigh", "left"), Bone(0, 4, "arm", "left")]
    drawn = draw_bones(joints, bones, (H, H))
    assert drawn.shape == (1, H, H, 3) and drawn.min() == 0
    assert drawn[0, 23, 13, 0] > 0.5 > drawn[0, 23, 13, 2] and drawn[0, 23, 7, 2] > 0.5 > drawn[0, 23, 7, 0]
    assert not drawn[0, :, 18:].any()  # an end of that arm is hidden
    mirrored = joints.copy()
    mirrored[..., 0] = H - 1 - joints[..., 0]
    swapped = [bone._replace(side={"left": "right", "right": "left"}.get(bone.side, bone.side)) for bone in bones]
    other = Pose().transformed(drawn[:, :, ::-1], mirrored=True)
    error = np.abs(other - draw_bones(mirrored, swapped, (H, H)))
    assert error.max() < 0.3 and error.mean() < 0.01 < np.abs(other - drawn[:, :, ::-1]).mean()  # of lines' borders
