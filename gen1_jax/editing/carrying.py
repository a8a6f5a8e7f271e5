"""Known frames carried to all others, along the motion of the video: what an edit that knows some begins with.

    known frames ──decode──► pictures ──looked up along OpenCV's flow──► the whole clip ──encode──► noised half-way

The model goes on from a known frame, but does not copy what it could. What is carried it need only mend: where
something was hidden, where light falls otherwise. Source: SDEdit (https://arxiv.org/abs/2108.01073), of what is carried
in the place of the input.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from gen1_jax.editing.masks.motion import looked_up
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames
from gen1_jax.measures import visible
from gen1_jax.models.structure.flow import estimated_flow

_STRENGTH = 0.5  # of the run that begins so
_UNSEEN = 1e-3  # weight of what the flows there and back do not agree on: it counts where there is nothing else

_visible = jax.jit(visible)


def carries(known: Sequence[int], count: int, window: int, settings: EditSettings) -> bool:
    """Whether an edit begins with what is carried: every frame is within the model's sight of one that is known.

    Args:
        known: numbers of the frames all of which is known.
        count: of all frames.
        window: frames that the model sees at once.
        settings: of the edit; what it begins with may be said there, or keyframes be sampled first.
    """
    begins_otherwise = settings.strength < 1 or settings.inverted_noise or settings.keyframe_stride > 1
    of_whole_runs = bool(settings.propagate)  # it names their steps
    if begins_otherwise or of_whole_runs or len(known) in (0, count):
        return False
    return all(min(abs(frame - one) for one in known) < window for frame in range(count))


def carrying(settings: EditSettings) -> EditSettings:
    """The settings of an edit that begins with what is carried: half of the steps, of at least two, and no guidance,
    for what is carried has the content already.
    """
    steps = max(2, settings.num_inference_steps)
    return dataclasses.replace(settings.unguided, strength=_STRENGTH, num_inference_steps=steps)


def carried(known: Mapping[int, UInt8[np.ndarray, "h w 3"]], frames: Frames) -> Frames:
    """A whole clip of some of its frames, each place by what the known frame before and the one after show there.

    Both count by how near they are, and where the flows there and back agree. What neither shows is taken from what
    hides it, what lies outside from the border.

    Args:
        known: edited frames by their numbers, at least one.
        frames: of the video that is edited, of the same size.

    Raises:
        UserError: OpenCV cannot be imported.
    """
    flow_between = partial(estimated_flow, finest_scale=0)  # frames of the model's size are small
    frames, clip = np.ascontiguousarray(frames), []
    for index, frame in enumerate(frames):
        if index in known:
            clip.append(known[index])
            continue
        nearest = [*sorted(k for k in known if k < index)[-1:], *sorted(k for k in known if k > index)[:1]]
        total, weights = np.zeros(frame.shape, np.float32), np.zeros((*frame.shape[:2], 1), np.float32)
        for other in nearest:
            flow, back = flow_between(frame, frames[other]), flow_between(frames[other], frame)
            weight = _agreement(flow, back) / np.float32(abs(index - other))
            total += weight * looked_up(known[other].astype(np.float32), flow)
            weights += weight
        clip.append(np.clip(np.rint(total / weights), 0, 255).astype(np.uint8))
    return np.stack(clip)


def _agreement(flow: Float32[np.ndarray, "h w 2"], back: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "h w 1"]:
    seen = np.asarray(_visible(jnp.asarray(flow)[None, None], jnp.asarray(back)[None, None]))[0, 0]
    return np.where(seen, 1, _UNSEEN).astype(np.float32)[..., None]
