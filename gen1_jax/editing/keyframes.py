"""Keyframes first, then the frames between them: fewer evaluations for long clips, and the same ends for every part.

    frames        0 1 2 3 4 5 6 7 8            stride 4
    first         █       █       █            each by itself, from the same noise: all steps, guided
    then          █ 1 2 3 █                    ends known, a fifth of the steps, unguided: the ends carry the content
                          █ 5 6 7 █

Of N guided steps with 2 evaluations each, a frame costs about 2 N / stride + N / 5 in place of 2 N. The scheme is
MaskINT's (https://arxiv.org/abs/2312.12468); what fills in is the model itself, which sees the structure of all frames.

Keyframes are no clip of their own: between its frames the model expects the motion of neighbours, and what lies far
apart comes out worse. Noise, content and structure make them alike. Only beside frames that are given whole are they a
clip, so that those are seen.
"""

import dataclasses
import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion import Guidance, guidance_runs
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
    whole = [] if given is None else given.whole
    return sorted({*range(0, count, stride), count - 1, *whole})


def together(keys: list[int], given: KnownLatents | None = None) -> list[list[int]]:
    """The keyframes that are sampled at once: each by itself, unless there are frames that are given whole."""
    return [[key] for key in keys] if given is None or not given.whole else [keys]


def between(settings: EditSettings) -> EditSettings:
    """The settings of the frames between: fewer steps, all of them whole, no guidance."""
    steps = max(_FEWEST, settings.num_inference_steps // _SHARE)
    plain = dict(deep_cache=1, strength=1.0, keyframe_stride=1)
    return dataclasses.replace(settings.unguided, num_inference_steps=steps, **plain)


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
        stride: of keyframes; with 1 there are none, and `sample` is called once.
        given: what is known of the clip.
    """
    at = lambda frames: None if given is None else given.at(frames)
    if stride == 1:
        return sample(np.arange(count), given, None)
    keys = keyframes_of(count, stride, given)
    parts = map(np.array, together(keys, given))
    first = jnp.concatenate([sample(part, at(part), None) for part in parts], axis=1)
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

    Every gap has noise of its own, drawn by the seed and its number; keyframes share theirs.
    """
    first, fill = dataclasses.replace(settings, keyframe_stride=1), between(settings)
    count, stride = len(frames), settings.keyframe_stride
    keys = keyframes_of(count, stride, given)
    steps = lambda of: len(pipeline.sampler(of).tables.timesteps)
    total = len(together(keys, given)) * steps(first) + len(gaps(count, stride, keys)) * steps(fill)
    taken = 0

    def report(before: int, stage: str, done: int, of: int) -> None:
        progress(*(stage, done + before, total) if stage == "sampling" else (stage, done, of))

    def sample(chosen: np.ndarray, known: KnownLatents | None, gap: int | None) -> Array:
        nonlocal taken
        this = first if gap is None else dataclasses.replace(fill, seed=settings.seed + 1 + gap)
        told = None if progress is None else partial(report, taken)
        taken += steps(this)
        part = {kind: x[chosen] for kind, x in maps.items()}
        return pipeline.sample(content.at(chosen), part, this, told, frames=frames[chosen], given=known, carry=False)

    return keyframes_first(sample, count, stride, given)


def evaluations(
    count: int, stride: int, steps: int, guidance: Guidance, interval: tuple[float, float] = (0.0, 1.0)
) -> float:
    """Evaluations a frame of a clip by keyframes, with nothing given; with a stride of 1 those of an edit without them.

    Args:
        count: of frames.
        stride: of keyframes.
        steps: of the edit.
        guidance: of the edit.
        interval: part of the run in which there is guidance.
    """
    guided = lambda guidance: sum(
        (stop - start) * len(part.branches) for start, stop, part in guidance_runs(guidance, steps, interval)
    )
    if stride == 1:
        return float(guided(guidance))
    keys = keyframes_of(count, stride)
    fill = max(_FEWEST, steps // _SHARE) * min(stride + 1, count) * len(gaps(count, stride, keys))
    return (len(keys) * guided(guidance.of_images()) + fill) / count
