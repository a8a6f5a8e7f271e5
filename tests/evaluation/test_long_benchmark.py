"""The benchmark of long edits, of an editor that is known in full."""

import numpy as np
import pytest

from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.evaluation.bench_edit import bench_edit
from gen1_jax.evaluation.long import _borders, measure_long, table
from gen1_jax.evaluation.worlds import World, Worlds
from gen1_jax.pretrained.family import NANO

FRAMES = 24


def still_world():
    """One still world, whose answer flickers."""
    worlds = Worlds(0, frames=FRAMES, height=8, width=8)
    light = np.random.default_rng(0).integers(100, 120, (1, FRAMES, 1, 1, 1))
    answer = np.broadcast_to(light, (1, FRAMES, 8, 8, 3)).astype(np.uint8)
    none = np.zeros((1, FRAMES, 8, 8), np.float32)
    motion = np.zeros((*none.shape, 2), np.float32)
    worlds.prompts, worlds.clips = ("a car",), World(answer, answer, none, none.astype(np.int32), motion, motion, {})
    return worlds


class KnownEditor(Gen1Pipeline):
    """Its edit is those frames."""

    def __init__(self, frames):
        self.config, self.frames = NANO, frames
        self.encode_content = self.read_structure = self.sample = lambda *_, **__: None
        self.decode = lambda _: iter(self.frames)


def scores_of(change=0):
    worlds = still_world()
    return measure_long(KnownEditor(worlds.clips.answer[0] + np.asarray(change, np.uint8)), worlds, EditSettings())


def test_the_answer_itself_does_not_drift():
    scores = scores_of()
    assert scores["psnr"] == [100] and scores["seams"] == [1]
    for name in ("psnr_slope", "red_slope", "green_slope", "blue_slope"):
        np.testing.assert_allclose(scores[name], 0, atol=1e-9)
    assert [line.split()[0] for line in table(scores)] == list(scores)


def test_drift_and_seams_are_found():
    time = np.arange(FRAMES)[:, None, None, None]
    drifting = scores_of(time * np.array([2, 0, 0]))
    assert drifting["psnr_slope"][0] < 0
    np.testing.assert_allclose([drifting["red_slope"][0], drifting["blue_slope"][0]], [200 / 255, 0], atol=1e-4)
    assert scores_of(60 * (time // 4 % 2))["seams"][0] > 3
    assert _borders(20, 8, 4).tolist() == [4, 8, 12, 16]


def test_lengths_and_sizes_that_there_are_not():
    for more in ({"frames": [0]}, {"frames": [1], "size": "huge"}):
        with pytest.raises(UserError, match=r"at least 1|not one of"):
            next(bench_edit(**more))
