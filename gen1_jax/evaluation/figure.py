"""A picture of what edits should be and what they are: one clip and its structure, edits, the right answers under them.

input      │ edit 1   │ edit 2   │ edit 3
structure  │ answer 1 │ answer 2 │ answer 3
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from einops import rearrange, repeat
from jaxtyping import UInt8

from gen1_jax.editing.pipeline import EditSettings, Gen1Pipeline
from gen1_jax.evaluation.worlds import FRAME_RATE, scene
from gen1_jax.synthetic import caption, shade_clip, trace_clip

_SHOWN = 3  # frames of each clip
_GAP = 4  # white pixels between clips

Rgb = UInt8[np.ndarray, "i j 3"]


class Figure(NamedTuple):
    """The picture, and what was asked for from left to right, a scene a row."""

    picture: Rgb
    prompts: list[list[str]]


def draw_figure(
    pipeline: Gen1Pipeline,
    settings: EditSettings,
    *,
    scenes: int = 2,
    edits: int = 3,
    split: str = "test",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Figure:
    """Edits a few held-out worlds.

    Args:
        pipeline: the model.
        settings: of all edits.
        scenes: clips that are edited.
        edits: of each.
        split: of the worlds.
        seed: of the worlds.
        progress: called with edits done and `scenes * edits`.
    """
    config = pipeline.config
    size, frames = (config.height, config.width), config.num_frames
    rows, prompts = [], []
    for index in range(scenes):
        structure, *contents = scene(split, index, seed, answers=edits)
        geometry = trace_clip(structure, frames=frames, size=size, fps=FRAME_RATE)
        source, *answers = (np.asarray(shade_clip(structure, c, geometry, size=size)) for c in contents)
        prompts.append([caption(c, structure, seed=seed + index + i) for i, c in enumerate(contents[1:])])
        results = []
        for prompt in prompts[-1]:
            results.append(pipeline.edit(source, prompt=prompt, **vars(settings)))
            progress(len(results) + index * edits, scenes * edits)
        seen = repeat(results[0].structure, "t h w -> t h w 3")
        above = _row([source, *(result.frames for result in results)])
        rows += [above, _row([seen, *answers]), _white(2 * _GAP, above.shape[1])]
    return Figure(np.concatenate(rows[:-1]), prompts)


def _row(clips: list[UInt8[np.ndarray, "t h w 3"]]) -> Rgb:
    """A few frames of each clip, side by side, with gaps between clips."""
    chosen = np.linspace(0, len(clips[0]) - 1, _SHOWN).round().astype(int)
    strips = [rearrange(clip[chosen], "t h w c -> h (t w) c") for clip in clips]
    gapped = [part for strip in strips for part in (strip, _white(strip.shape[0], _GAP))]
    return np.concatenate(gapped[:-1], axis=1)


def _white(height: int, width: int) -> Rgb:
    return np.full((height, width, 3), 255, np.uint8)
