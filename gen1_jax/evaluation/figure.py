"""What edits should be and what they are, at a glance: a clip and its structure, edits, the right answers under them.

input      │ edit 1   │ edit 2   │ edit 3
structure  │ answer 1 │ answer 2 │ answer 3
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from einops import rearrange, repeat
from jaxtyping import UInt8

from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.worlds import FRAME_RATE, scene
from gen1_jax.synthetic import caption, shade_clip, trace_clip

_STILLS = 3  # frames of each clip in a still figure
_GAP = 4  # white pixels between clips

Panels = UInt8[np.ndarray, "n t h w 3"]
"""The clips of one row, from left to right."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """Clips in rows, and what was asked for.

    Attributes:
        rows: two a scene: input and edits, structure and answers.
        prompts: of the edits from left to right, a scene a row.
    """

    rows: list[Panels]
    prompts: list[list[str]]

    def still(self) -> UInt8[np.ndarray, "i j 3"]:
        """One picture, each clip as three frames side by side."""
        chosen = np.linspace(0, self.rows[0].shape[1] - 1, _STILLS).round().astype(int)
        return _compose([rearrange(row[:, chosen], "n t h w c -> n 1 h (t w) c") for row in self.rows])[0]

    def moving(self) -> UInt8[np.ndarray, "t i j 3"]:
        """A clip in which all clips run side by side, to be shown at `FRAME_RATE`."""
        return _compose(self.rows)


def draw_figure(
    pipeline: Gen1Pipeline,
    settings: EditSettings,
    *,
    frames: int | None = None,
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
        frames: of every clip, `FRAME_RATE` a second; None for as many as the model sees at once.
        scenes: clips that are edited.
        edits: of each.
        split: of the worlds.
        seed: of the worlds.
        progress: called with edits done and `scenes * edits`.
    """
    config = pipeline.config
    size, frames = (config.height, config.width), frames or config.num_frames
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
        rows += [np.stack([source, *(result.frames for result in results)]), np.stack([seen, *answers])]
    return Figure(rows, prompts)


def _compose(rows: list[Panels]) -> UInt8[np.ndarray, "t i j 3"]:
    """All rows under each other, white between clips and, twice as wide, between scenes."""
    lines = []
    for number, row in enumerate(rows):
        row = np.pad(row, ((0, 0),) * 3 + ((0, _GAP), (0, 0)), constant_values=255)
        line = rearrange(row, "n t h w c -> t h (n w) c")[:, :, :-_GAP]
        ends_scene = number % 2 == 1 and number < len(rows) - 1
        lines.append(np.pad(line, ((0, 0), (0, 2 * _GAP * ends_scene), (0, 0), (0, 0)), constant_values=255))
    return np.concatenate(lines, axis=1)
