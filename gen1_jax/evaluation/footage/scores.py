"""How good an edit of real footage is, beside its source: what is measured, and by which networks."""

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from PIL import Image

from gen1_jax.editing.inputs import resize_frames
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.structures import in_chunks
from gen1_jax.evaluation.footage.pairs import Frames, Pair
from gen1_jax.evaluation.judge import Judge
from gen1_jax.evaluation.scores import Measure
from gen1_jax.measures import (
    colour_drift,
    frame_consistency,
    motion_fidelity,
    outside_error,
    prompt_consistency,
    prompt_drift,
    sharpness,
    structure_error,
    warping_error,
)
from gen1_jax.models.i3d import SIZE
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure.flow import estimated_flow

FVD_FRAMES = 16
Network = Callable[..., Any]

MEASURES = {
    "frame_consistency": Measure(
        "higher",
        "-1 to 1",
        "mean cosine of the judge's embeddings of consecutive frames (the paper's); rises as pictures blur",
    ),
    "prompt_consistency": Measure(
        "higher", "-1 to 1", "mean cosine of the judge's embeddings of frames and prompt (the paper's)"
    ),
    "prompt_drift": Measure("higher", "0 is none", "by how much that cosine changes over a hundred frames"),
    "warping_error": Measure(
        "lower",
        "0 to 1",
        "mean difference of a pixel and the one that the source's estimated motion takes it to; falls with blur and "
        "contrast, to be read against the source's own",
    ),
    "motion_fidelity": Measure(
        "higher",
        "-1 to 1",
        "agreement of the estimated motion of edit and source, 2<f,g> / (<f,f> + <g,g>); 0 for an edit that is still",
    ),
    "structure_error": Measure(
        "lower",
        "from 0",
        "mean difference of the estimated inverse depth of edit and source, in mean absolute deviations of the "
        "source's; scale and shift of a clip are free, about 1 knows nothing",
    ),
    "colour_drift": Measure(
        "lower", "from 0", "how far the mean colour, of 0 to 1, moves away from the source's over a hundred frames"
    ),
    "sharpness": Measure(
        "higher",
        "from 0",
        "standard deviation of the Laplacian of the luminance; to be read against the source's own: less is blur, "
        "more is noise or another texture",
    ),
}
"""Scores of every edit, see `gen1_jax.measures`."""

OUTSIDE = {
    "outside_error": Measure("lower", "0 to 1", "mean difference from the source outside of the mask, 4 pixels off it")
}
"""Where there are masks."""

OF_LPIPS = {
    "lpips": Measure(
        "lower", "from 0", "LPIPS (AlexNet) of frames and the source's: better only where little was to change"
    )
}
"""Where it is asked for."""


class Score(NamedTuple):
    """Of an edit.

    Attributes:
        values: by measure; NaN where one says nothing of it.
        features: I3D's logits of its first `FVD_FRAMES` frames, if they are asked for and there are so many.
    """

    values: dict[str, float]
    features: Float32[np.ndarray, " k"] | None


class _Seen(NamedTuple):
    """What is known of a source."""

    flow: Float32[np.ndarray, "s h w 2"]
    back: Float32[np.ndarray, "s h w 2"]
    depth: Float32[np.ndarray, "t i j"] | None


class FootageScorer:
    """Scores pairs.

    Args:
        judge: embeds frames and prompts.
        pipeline: its depth network tells structure, if it has one.
        lpips: distances of two batches of pictures, if they are asked for.
        i3d: features of clips, likewise.
    """

    def __init__(self, judge: Judge, pipeline: Gen1Pipeline, lpips: Network | None = None, i3d: Network | None = None):
        self._judge, self._pipeline, self._lpips, self._i3d = judge, pipeline, lpips, i3d
        self._last: tuple[str, _Seen] = ("", _Seen(*[np.zeros((0, 1, 1, 2), np.float32)] * 2, None))
        self._warping, self._outside = jax.jit(warping_error), jax.jit(outside_error)

    @cached_property
    def has_depth(self) -> bool:
        """Whether structure is measured."""
        return self._pipeline.config.depth is not None

    def score(self, pair: Pair, prompt: str) -> Score:
        """All measures of one edit; of a single frame those of motion and of time are NaN."""
        embedded, source = self._judge.embed(pair.edit), self._of_source(pair.source)
        values = dict.fromkeys((*MEASURES, *(OUTSIDE if pair.mask is not None else {})), float("nan"))
        if prompt:
            (asked,) = self._judge.embed_texts([prompt])
            values["prompt_consistency"] = prompt_consistency(embedded, asked)
            values["prompt_drift"] = prompt_drift(embedded, asked)
        if len(pair.edit) > 1:
            values["frame_consistency"] = frame_consistency(embedded)
            values["warping_error"] = self._warping_error(pair.edit, source)
            values["motion_fidelity"] = motion_fidelity(_flows(pair.edit), source.flow)
        if source.depth is not None:
            both = (jnp.asarray(depth)[None] for depth in (self._depth(pair.edit), source.depth))
            values["structure_error"] = float(structure_error(*both)[0])
        colours = [frames.mean((1, 2), dtype=np.float64) / 255 for frames in (pair.edit, pair.source)]
        values["colour_drift"] = colour_drift(*colours)
        values["sharpness"] = float(_by_chunk(lambda x: sharpness(_unit(x)[None])[0], pair.edit).mean())
        if pair.mask is not None:
            values["outside_error"] = self._outside_error(pair)
        if self._lpips is not None:
            look = lambda i: self._lpips(*(pixels_to_images(frames[i]) for frames in (pair.edit, pair.source)))
            values |= {"lpips": float(_of_indices(look, len(pair.edit)).mean())}
        return Score(values, self._features(pair.edit))

    def _of_source(self, frames: Frames) -> _Seen:
        """What is known of a source; that of the last one is kept, for all editors' edits of it come together."""
        key = hashlib.blake2b(np.ascontiguousarray(frames)).hexdigest() + str(frames.shape)
        if key != self._last[0]:
            depth = self._depth(frames) if self.has_depth else None
            self._last = key, _Seen(_flows(frames), _flows(frames[::-1])[::-1], depth)
        return self._last[1]

    def _warping_error(self, edit: Frames, source: _Seen) -> float:
        """The mean over pairs of frames."""

        def of_pairs(i: np.ndarray) -> Any:
            twice = lambda flow: jnp.asarray(flow[i][:, None].repeat(2, 1))
            return self._warping(_unit(np.stack([edit[i], edit[i + 1]], 1)), twice(source.flow), twice(source.back))

        return float(_of_indices(of_pairs, len(edit) - 1).mean())

    def _outside_error(self, pair: Pair) -> float:
        """The mean over frames that have something outside of the mask."""

        def of_frames(i: np.ndarray) -> Any:
            return self._outside(
                _unit(pair.edit[i, None]), _unit(pair.source[i, None]), jnp.asarray(pair.mask[i, None])
            )

        errors = _of_indices(of_frames, len(pair.edit))
        return float(errors[np.isfinite(errors)].mean()) if np.isfinite(errors).any() else float("nan")

    def _depth(self, frames: Frames) -> Float32[np.ndarray, "t i j"]:
        """Inverse depth at the model's size."""
        size = self._pipeline.config.working_size(*frames.shape[1:3])
        small = resize_frames(frames, size)
        estimate = lambda chunk: self._pipeline.depth.estimate(pixels_to_images(chunk), frames_per_chunk=len(chunk))
        return _by_chunk(estimate, small)

    def _features(self, frames: Frames) -> Float32[np.ndarray, " k"] | None:
        if self._i3d is None or len(frames) < FVD_FRAMES:
            return None
        squared = [Image.fromarray(x).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for x in frames[:FVD_FRAMES]]
        return np.asarray(self._i3d(pixels_to_images(np.stack([np.asarray(x) for x in squared])[None])))[0]


def _flows(frames: Frames) -> Float32[np.ndarray, "s h w 2"]:
    """From each frame but the last to the next."""
    if len(frames) < 2:
        return np.zeros((0, *frames.shape[1:3], 2), np.float32)
    frames = np.ascontiguousarray(frames)
    return np.stack([estimated_flow(frames[i], frames[i + 1]) for i in range(len(frames) - 1)])


def _unit(frames: np.ndarray) -> jax.Array:
    return jnp.asarray(frames, jnp.float32) / 255


def _by_chunk(function: Callable[[np.ndarray], Any], frames: np.ndarray) -> np.ndarray:
    return np.concatenate([*in_chunks(function, frames, None)])


def _of_indices(function: Callable[[np.ndarray], Any], count: int) -> np.ndarray:
    """A function of the numbers of frames, a few at a time."""
    return _by_chunk(function, np.arange(count))
