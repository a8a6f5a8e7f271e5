"""The benchmark of upscalers, of one that is known in full."""

import dataclasses

import numpy as np
import pytest

from gen1_jax.cli import main
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.result import EditResult
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import StructureReader
from gen1_jax.errors import UserError
from gen1_jax.evaluation.judge import Judge
from gen1_jax.evaluation.upscaling import (
    BICUBIC,
    ENCODED,
    EXACT,
    PROPAGATED,
    UPSCALED,
    measure_upscaling,
    table,
    upscaling_size,
)
from gen1_jax.evaluation.worlds import World, Worlds
from gen1_jax.pretrained.family import NANO

SIZE, FRAMES = 32, 4
UPSCALES = dataclasses.replace(NANO, unet=dataclasses.replace(NANO.unet, structure_kinds=("low_resolution",)))


def moving_world():
    """Fine texture that goes two pixels to the right each frame, and comes in again at the left."""
    worlds = Worlds(0, frames=FRAMES, height=SIZE, width=SIZE)
    texture = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3))
    clip = np.stack([np.roll(texture, 2 * t, 1) for t in range(FRAMES)])[None].astype(np.uint8)
    none = np.zeros((1, FRAMES, SIZE, SIZE), np.float32)
    flow = np.zeros((*none.shape, 2), np.float32) + np.float32([2, 0])
    worlds.prompts, worlds.clips = ("a car",), World(clip, clip, none, none.astype(np.int32), flow, flow, {})
    return worlds


class KnownUpscaler(Gen1Pipeline):
    """Its result is the exact render, but for a grey that changes from frame to frame where nothing is propagated."""

    def __init__(self, worlds, config=UPSCALES):
        self.config, self.exact, self.asked = config, worlds.clips.source[0], []
        self.source = type("Source", (), {"name": "known"})
        self.structures = StructureReader(config, "known", lambda name: None)
        self.encode_frames = lambda frames: frames
        self.decode = lambda frames: iter(frames // 2 * 2)

    def upscale(self, frames, **how):
        assert frames.shape == (FRAMES, SIZE // 2, SIZE // 2, 3)
        self.asked.append(how)
        flicker = 0 if how["propagate"] else np.arange(FRAMES, dtype=np.uint8)[:, None, None, None] % 2 * 20
        return EditResult(frames=np.maximum(self.exact, 40) - flicker, structures={})


class Eyes(Judge):
    """Embeds a picture as its mean colours."""

    def __init__(self):
        pass

    def embed(self, frames):
        return frames.mean((1, 2), dtype=np.float32)


def test_ways_are_told_apart_and_the_exact_render_has_the_best_of_all():
    worlds = moving_world()
    pipeline = KnownUpscaler(worlds)
    lpips = lambda ours, theirs: np.abs(np.asarray(ours) - np.asarray(theirs)).mean((1, 2, 3))
    scores, rows = measure_upscaling(pipeline, worlds, EditSettings(structure_blur=2), Eyes())
    mean = {way: {name: values[0] for name, values in measured.items()} for way, measured in scores.items()}
    assert list(mean) == [BICUBIC, UPSCALED, PROPAGATED, ENCODED, EXACT]
    assert mean[EXACT]["psnr"] == 100 and mean[EXACT]["warp_error"] < 1e-6 and mean[EXACT]["consistency"] > 50
    assert mean[BICUBIC]["psnr"] < mean[PROPAGATED]["psnr"] < mean[ENCODED]["psnr"]
    assert mean[BICUBIC]["ssim"] < 0.9 and mean[BICUBIC]["consistency"] > mean[BICUBIC]["psnr"]
    assert mean[UPSCALED]["warp_error"] > 0.05 > mean[PROPAGATED]["warp_error"]
    without, with_it = pipeline.asked
    assert (without["propagate"], with_it["propagate"]) == (None, "15,17,19") and with_it["noise_level"] == 2
    assert rows.shape == (1, SIZE, 6 * SIZE, 3)
    lines = table(scores)
    assert "lpips" not in lines[0] and [line[:22].strip() for line in lines[1:6]] == list(mean)
    asked = EditSettings(propagate="3")
    scores, _ = measure_upscaling(pipeline, worlds, asked, Eyes(), lpips)
    assert pipeline.asked[-1]["propagate"] == "3" and scores[EXACT]["lpips"] == [0] and "lpips" in table(scores)[0]


def test_what_other_benchmarks_do_not_measure_is_refused(capsys):
    assert main(["evaluate", "--propagate", "3", "--out", "out"]) == 2
    assert "--propagate is measured by --benchmark long and upscaling alone" in capsys.readouterr().err
    assert main(["evaluate", "--lpips", "--out", "out"]) == 2
    assert main(["evaluate", "--benchmark", "upscaling", "--model", "nano"]) == 2
    assert "nano does not enlarge videos" in capsys.readouterr().err


def test_exact_renders_are_of_twice_the_size_of_the_model():
    worlds = moving_world()
    assert upscaling_size(KnownUpscaler(worlds)) == (256, 256)
    with pytest.raises(UserError, match="known does not enlarge videos"):
        upscaling_size(KnownUpscaler(worlds, NANO))
