"""`gen1 evaluate --benchmark long`: whether long edits drift, or show where their windows meet.

worlds of many frames ──► edits ──► slopes of PSNR and of colours over time, changes at windows' borders
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gen1_jax.diffusion.windows import window_starts
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import bootstrap, psnr
from gen1_jax.measures.drift import colour_slopes, seam_ratio, slope

MEASURES = {
    "psnr": "dB, of all frames (higher)",
    "psnr_slope": "dB over 100 frames (its interval should hold 0)",
    "red_slope": "of a surface's mean red, from 0 to 1, against the answer's, over 100 frames (should hold 0)",
    "green_slope": "the same of green",
    "blue_slope": "the same of blue",
    "seams": "warp error where windows begin or end over that elsewhere, over the answer's own (1)",
}


def measure_long(
    pipeline: Gen1Pipeline,
    worlds: Worlds,
    settings: EditSettings,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, list[float]]:
    """Scores by measure: one a clip, or one a surface of a clip for colours."""
    settings = settings.of(pipeline.config)
    scores: dict[str, list[float]] = {name: [] for name in MEASURES}
    for index, prompt in enumerate(worlds.prompts):
        clips = worlds.clips
        edit = _edit(pipeline, clips.source[index], prompt, settings)
        answer, ids, flow = np.float32(clips.answer[index]) / 255, clips.ids[index], clips.flow[index]
        frames = np.asarray(psnr(jnp.asarray(edit)[:, None], jnp.asarray(answer)[:, None]), np.float64)
        scores["psnr"].append(float(frames.mean()))
        scores["psnr_slope"].append(slope(frames))
        for name, values in zip(
            ("red_slope", "green_slope", "blue_slope"), colour_slopes(edit, answer, ids).T, strict=True
        ):
            scores[name] += values.tolist()
        borders = _borders(len(edit), pipeline.config.num_frames, pipeline.config.window_overlap)
        scores["seams"].append(seam_ratio(edit, flow, ids, borders) / seam_ratio(answer, flow, ids, borders))
        progress(index + 1, len(worlds))
    return scores


def table(scores: dict[str, list[float]]) -> list[str]:
    """A line for each measure, with intervals of 95%."""
    return [f"{name:12} {bootstrap(np.array(scores[name]))!s:>32}   {what}" for name, what in MEASURES.items()]


def _edit(
    pipeline: Gen1Pipeline, frames: np.ndarray, prompt: str, settings: EditSettings
) -> Float[np.ndarray, "t h w 3"]:
    content = pipeline.encode_content(prompt, [], settings)
    maps = pipeline.read_structure(frames, settings)
    latents = pipeline.sample(content, maps, settings, frames=frames)
    return np.stack([*pipeline.decode(latents)]).astype(np.float32) / 255


def _borders(frames: int, window: int, overlap: int) -> np.ndarray:
    """Frames with which a window begins, but for the first, or which come after its end, but for the last."""
    starts = window_starts(frames, window, overlap)
    return np.unique(np.concatenate([starts[1:], starts[:-1] + window]))
