"""Known frames are carried along the video's motion, and edits begin with that."""

import cv2
import numpy as np
import pytest

from gen1_jax.editing.carrying import carried, carries, carrying
from gen1_jax.editing.settings import EditSettings

SIZE, STEP = 64, 3
NOISE = np.random.default_rng(0).integers(0, 256, (SIZE, 2 * SIZE, 3), np.uint8)
SCENE = cv2.normalize(cv2.GaussianBlur(NOISE, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
CLIP = np.stack([SCENE[:, STEP * i : STEP * i + SIZE] for i in range(4)])  # all moves 3 pixels to the left a frame
INNER = slice(12, -12)


def difference(clip, other):
    return np.abs(clip[:, INNER, INNER].astype(float) - other[:, INNER, INNER]).mean((1, 2, 3))


def test_what_is_known_moves_as_the_video_does():
    edit = 255 - CLIP
    out = carried({0: edit[0]}, CLIP)
    np.testing.assert_array_equal(out[0], edit[0])
    still = difference(edit[[0, 0, 0, 0]], edit)
    assert (difference(out, edit)[1:] < 0.2 * still[1:]).all() and (still[1:] > 10).all()
    backwards = carried({3: edit[3]}, CLIP)
    assert (difference(backwards, edit)[:3] < 0.2 * still[1:][::-1]).all()


def test_the_nearer_of_two_known_frames_counts_more():
    dark, light = np.full((SIZE, SIZE, 3), 30, np.uint8), np.full((SIZE, SIZE, 3), 120, np.uint8)
    out = carried({0: dark, 3: light}, CLIP)[:, INNER, INNER].mean((1, 2, 3))
    np.testing.assert_allclose(out, [30, 60, 90, 120], atol=3)
    other = np.concatenate([SCENE[::-1, SIZE : 2 * SIZE][None], CLIP[1:]])  # nothing of the first frame is seen again
    assert np.median(carried({0: dark, 3: light}, other)[1, INNER, INNER]) == 120


@pytest.mark.parametrize(
    ("known", "frames", "changed", "expected"),
    [
        ([0], 8, {}, True),
        ([0], 9, {}, False),  # the last lies beyond the window
        ([4], 12, {}, True),
        ([0, 15], 16, {}, True),
        ([], 8, {}, False),
        ([0], 1, {}, False),
        ([0], 8, {"strength": 0.9}, False),
        ([0], 8, {"inverted_noise": True}, False),
        ([0], 8, {"propagate": "15"}, False),
        ([0], 8, {"keyframe_stride": 2}, False),
    ],
)
def test_when_an_edit_begins_with_what_is_carried(known, frames, changed, expected):
    assert carries(known, frames, 8, EditSettings(**changed)) is expected


def test_half_of_the_steps_are_left():
    run = carrying(EditSettings(num_inference_steps=20, guidance_scale=2.0, temporal_guidance_scale=1.5))
    assert (run.strength, run.num_inference_steps, run.guidance_scale, run.temporal_guidance_scale) == (0.5, 20, 1, 1)
    assert carrying(EditSettings(num_inference_steps=1)).num_inference_steps == 2
