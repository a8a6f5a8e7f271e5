"""Keyframes first, then the frames between them: fewer evaluations for long clips, and the same ends for every part.

    frames        0 1 2 3 4 5 6 7 8            stride 4
    first         █ . . . █ . . . █            one clip, all steps, guided
    then          █ 1 2 3 █                    ends known, a fifth of the steps, unguided: the ends carry the content
                          █ 5 6 7 █

Of N guided steps with 2 evaluations each, a frame costs about 2 N / stride + N / 5 in place of 2 N. The scheme is
MaskINT's (https://arxiv.org/abs/2312.12468); what fills in is the model itself, which sees the structure of all frames.
"""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, Maps, Progress
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

_SHARE, _FEWEST = 5, 4  # of the steps, for frames between keyframes

Sample = Callable[[Int[np.ndarray, " k"], KnownLatents | None, int | None], Float[Array, "b k h w c"]]
"""(numbers of frames, what is known of them, number of the gap or None for keyframes) -> latents of these frames."""


def keyframes_of(count: int, stride: int, given: KnownLatents | None = None) -> list[int]:
    """The numbers of the frames that are sampled first: every stride-th, the last, and those that are given whole."""
    whole = [] if given is None else np.flatnonzero(np.asarray(given.mask).min((0, 2, 3, 4)) > 0)
    return sorted({*range(0, count, stride), count - 1, *map(int, whole)})


def between(settings: EditSettings) -> EditSettings:
    """The settings of the frames between: fewer steps, all of them whole, no guidance."""
    steps = max(_FEWEST, settings.num_inference_steps // _SHARE)
    plain = dict(
        deep_cache=1, guidance_scale=1.0, temporal_guidance_scale=1.0, strength=1.0, source_guidance_scale=None
    )
    return dataclasses.replace(settings, num_inference_steps=steps, keyframe_stride=1, **plain)


def gaps(count: int, stride: int, keys: list[int]) -> list[tuple[int, int, int]]:
    """What is filled in: (first frame of its window, keyframe before, keyframe after); windows have one length."""
    span = min(stride + 1, count)
    return [(min(a, count - span), a, b) for a, b in itertools.pairwise(keys) if b - a > 1]


def keyframes_first(
    sample: Sample, count: int, stride: int, given: KnownLatents | None = None
) -> Float[Array, "b t h w c"]:
    """Latents of a whole clip.

    Args:
        sample: makes some of its frames.
        count: of frames.
        stride: of keyframes; with 1 all are, and `sample` is called once.
        given: what is known of the clip.
    """
    at = lambda frames: None if given is None else given.at(frames)
    keys = keyframes_of(count, stride, given)
    first = sample(np.array(keys), at(np.array(keys)), None)
    if len(keys) == count:
        return first
    b, _, *rest = first.shape
    latents = jnp.zeros((b, count, *rest), first.dtype).at[:, keys].set(first)
    done, span = np.isin(np.arange(count), keys), min(stride + 1, count)
    for number, (start, before, after) in enumerate(gaps(count, stride, keys)):
        window = np.arange(start, start + span)
        mask = jnp.broadcast_to(done[window, None, None, None], (b, span, *rest[:-1], 1)).astype(jnp.float32)
        filled = sample(window, KnownLatents(latents[:, window], mask).over(at(window)), number)
        new = np.arange(before + 1, after)
        latents, done[new] = latents.at[:, new].set(filled[:, new - start]), True
    return latents


def sample_keyframes_first(
    pipeline: "Gen1Pipeline",
    content: Conditions,
    maps: Maps,
    settings: EditSettings,
    progress: Progress | None,
    *,
    frames: Frames,
    given: KnownLatents | None,
) -> Float[Array, "1 t i j c"]:
    """`Gen1Pipeline.sample` by `settings.keyframe_stride`, with the same arguments; progress is of all parts together.

    Every gap has noise of its own, drawn by the seed and its number.
    """
    first, fill = dataclasses.replace(settings, keyframe_stride=1), between(settings)
    count = len(frames)
    parts = len(gaps(count, settings.keyframe_stride, keyframes_of(count, settings.keyframe_stride, given)))
    total = first.num_inference_steps + parts * fill.num_inference_steps

    def report(before: int, stage: str, done: int, of: int) -> None:
        progress(*(stage, done + before, total) if stage == "sampling" else (stage, done, of))

    def sample(chosen: np.ndarray, known: KnownLatents | None, gap: int | None) -> Array:
        this = first if gap is None else dataclasses.replace(fill, seed=settings.seed + 1 + gap)
        before = 0 if gap is None else first.num_inference_steps + gap * fill.num_inference_steps
        told = None if progress is None else partial(report, before)
        part = {kind: x[chosen] for kind, x in maps.items()}
        return pipeline.sample(content.at(chosen), part, this, told, frames=frames[chosen], given=known)

    return keyframes_first(sample, count, settings.keyframe_stride, given)


def evaluations(count: int, stride: int, steps: int, branches: int) -> float:
    """Evaluations a frame of a clip by keyframes; without them they are `steps * branches`."""
    keys = keyframes_of(count, stride)
    fill = max(_FEWEST, steps // _SHARE) * min(stride + 1, count) * len(gaps(count, stride, keys))
    return (len(keys) * steps * branches + fill) / count
