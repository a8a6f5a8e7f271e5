"""What words name in a clip, or what an edit would change, by the difference that they make to predictions of noise."""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from gen1_jax.editing.masks.differences import CHANGE_NOISES, CHANGE_STRENGTH, changed, differences
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, Maps, Progress, reporter
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions

if TYPE_CHECKING:
    from gen1_jax.editing.pipeline import Gen1Pipeline

_NOISES, _STRENGTH, _RATIO, _LEAST = 10, 0.5, 3.0, 0.5


def named(
    pipeline: "Gen1Pipeline",
    words: str,
    frames: Frames,
    maps: Maps,
    settings: EditSettings,
    progress: Progress | None = None,
) -> Bool[np.ndarray, "t h w"]:
    """Where predictions with words and without them differ most, at half of the noise.

    Source: https://arxiv.org/abs/2210.11427 (DiffEdit), section 4.1, with the null content in place of a description
    of the input: ten noises at strength 0.5, differences clipped at three times their mean, cut at half of that.

    Args:
        pipeline: the model.
        words: for what may change.
        frames: of the model's size.
        maps: of the structures that the edit follows.
        settings: filled in.
        progress: told of the noises.
    """
    import cv2

    told = _seeing(pipeline, pipeline.encode_content(words, [], settings), maps, settings)
    latents, how = pipeline.encode_frames(frames), dict(strength=_STRENGTH, noises=_NOISES, seed=settings.seed)
    found = differences(pipeline, latents, told, told.without_content(), **how)
    total = sum(np.abs(each[0]).mean(-1) for each in _reported(found, _NOISES, progress))
    height, width = frames.shape[1:3]
    shown = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in total])
    most = _RATIO * shown.mean()
    return np.minimum(shown, most) >= _LEAST * most


def contrasted(
    pipeline: "Gen1Pipeline",
    content: Conditions,
    words: str | None,
    frames: Frames,
    maps: Maps,
    settings: EditSettings,
    progress: Progress | None = None,
) -> Bool[np.ndarray, "t h w"]:
    """What an edit would change: where the model expects something else of its content than of what the clip shows.

    Args:
        pipeline: the model.
        content: of the edit.
        words: for what the clip shows; None lets it show that itself, or nothing to models that read text.
        frames, maps, settings, progress: see `named`.

    Raises:
        UserError: a text encoder's states of the words are more or fewer than those of the prompt.
    """
    told, latents = _seeing(pipeline, content, maps, settings), pipeline.encode_frames(frames)
    if words is not None:
        shown = pipeline.encode_content(words, [], settings).content
        if any(shown[kind].shape != x.shape for kind, x in told.content.items() if kind in shown):
            raise UserError(
                f"--mask changed:{words}: more tokens than the prompt has, or fewer; make one as long as the other"
            )
    else:
        is_shown = pipeline.config.unet.content.is_shown
        shown = pipeline.content_of(frames).content if is_shown else told.without_content().content
    contents, masks = told.each_content(), []
    how = dict(strength=CHANGE_STRENGTH, noises=CHANGE_NOISES, seed=settings.seed)
    for number, each in enumerate(contents):
        other = dataclasses.replace(each, content=each.content | shown)
        found = differences(pipeline, latents, each, other, **how)
        told_of = _reported(found, CHANGE_NOISES * len(contents), progress, CHANGE_NOISES * number)
        masks.append(changed(told_of, frames.shape[1:3])[0])
    return np.logical_or.reduce(masks)


def _seeing(pipeline: "Gen1Pipeline", content: Conditions, maps: Maps, settings: EditSettings) -> Conditions:
    return dataclasses.replace(content, structure=pipeline.encode_structure(maps, settings))


def _reported(
    found: Iterator[np.ndarray], count: int, progress: Progress | None, before: int = 0
) -> Iterator[np.ndarray]:
    report = reporter(progress, "mask")
    for number, each in enumerate(found, before + 1):
        if report is not None:
            report(number, count)
        yield each
