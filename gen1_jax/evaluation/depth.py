"""`gen1 evaluate --benchmark depth`: how right and how steady inverse depth is, on worlds whose depth is known.

clips of worlds ──► frame by frame, the same aligned, layers between frames ──► errors of pictures, clips, changes
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import bootstrap, depth_change_error, depth_errors, structure_error
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import aligned_frames

_DEPTH_RANGE = 20.0
MEASURES = {
    "abs_rel": "mean relative error of depth, each picture aligned (lower)",
    "delta_1": "share of pixels within 25%, each picture aligned (higher)",
    "structure_error": "error of inverse depth, each clip aligned (lower)",
    "change_error": "how its error changes along the true motion (lower)",
}

BY_FRAME, ALIGNED, TOGETHER = "frame by frame", "frame by frame, aligned", "layers between frames"


def measure_depth(
    pipeline: Gen1Pipeline, worlds: Worlds, progress: Callable[[int, int], None] = lambda *_: None
) -> dict[str, dict[str, list[float]]]:
    """Scores of each way to estimate the depth of clips: by measure, one a clip.

    Raises:
        UserError: the model has no depth network.
    """
    alone = lambda clip: np.asarray(pipeline.depth.estimate(pixels_to_images(clip)))
    ways = {BY_FRAME: alone, ALIGNED: lambda clip: np.concatenate([*aligned_frames([alone(clip)])])}
    if pipeline.config.depth.temporal_frames:
        ways[TOGETHER] = lambda clip: pipeline.structures.estimate(pipeline.config.structure_kind("depth"), clip)[
            ..., 0
        ]
    clips, scores = worlds.clips, {}
    for number, (way, estimate) in enumerate(ways.items()):
        of_clips = []
        for index, source in enumerate(clips.source):
            known = (clips.inverse_depth[index], clips.flow[index], clips.ids[index])
            of_clips.append(jax.device_get(_score(jnp.asarray(estimate(source)), *map(jnp.asarray, known))))
            progress(number * len(worlds) + index + 1, len(ways) * len(worlds))
        scores[way] = {name: [float(clip[name]) for clip in of_clips] for name in MEASURES}
    return scores


def table(scores: dict[str, dict[str, list[float]]]) -> list[str]:
    """A line for each way, with intervals of 95%."""
    lines = [f"{'':26}" + "".join(f"{name:>28}" for name in MEASURES)]
    for way, measured in scores.items():
        lines.append(f"{way:26}" + "".join(f"{bootstrap(np.array(measured[name]))!s:>28}" for name in MEASURES))
    return [*lines, *(f"{name}: {what}" for name, what in MEASURES.items())]


@jax.jit
def _score(estimate, truth, flow, ids) -> dict[str, Any]:
    abs_rel, delta_1 = depth_errors(estimate, truth, depth_range=_DEPTH_RANGE)
    clip = (estimate[None], truth[None])
    return {
        "abs_rel": abs_rel.mean(),
        "delta_1": delta_1.mean(),
        "structure_error": structure_error(*clip)[0],
        "change_error": depth_change_error(*clip, flow[None], ids[None])[0],
    }
