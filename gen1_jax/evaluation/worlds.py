"""Held-out edits whose right answer is known: a synthetic clip, a prompt of another content, the clip in that content.

structure i ─┬─ content a ──► source      the video that is edited
             └─ content b ──► answer      what the edit should be
                    └───────► prompt      what the editor is told
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from gen1_jax import synthetic

FRAME_RATE = 12.0
EditClips = UInt8[np.ndarray, "n t h w 3"]
"""RGB of N clips: edits, or what they are compared with."""

Scene = tuple[synthetic.Structure, synthetic.Content, *tuple[synthetic.Content, ...]]
"""A structure, the content of the clip that is edited, and those of the answers."""

_ANSWERS = 1 << 20  # contents of answers come from seeds far behind those of sources
_CLIPS_AT_ONCE = 16  # at most, on an accelerator


class World(NamedTuple):
    """One clip of T frames in two contents, or N of them stacked."""

    source: UInt8[np.ndarray, "*n t h w 3"]
    answer: UInt8[np.ndarray, "*n t h w 3"]
    inverse_depth: Float32[np.ndarray, "*n t h w"]  # 1/metre
    ids: Int32[np.ndarray, "*n t h w"]
    flow: Float32[np.ndarray, "*n t h w 2"]  # pixels, to the next frame
    flow_to_first: Float32[np.ndarray, "*n t h w 2"]  # pixels, to where it was in frame 0
    maps: dict[str, np.ndarray]  # those of `synthetic.exact_maps` that were asked for


class ShownSource(NamedTuple):
    """Clips of which nothing is known but how they look."""

    source: EditClips


@dataclasses.dataclass(frozen=True)
class ShownWorlds:
    """In the place of `Worlds`, for editors that are shown clips of another origin.

    Attributes:
        clips: that are edited.
        prompts: of their edits.
    """

    clips: ShownSource
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)


class Worlds:
    """The first `count` edits of a split; the first of more are the same.

    Args:
        count: how many.
        frames: of a clip, `FRAME_RATE` a second.
        height: pixels.
        width: pixels.
        split: whose combinations of material, place and style no other split has.
        seed: of the set.
        make: of a split, the number of an edit in it and the seed, what is edited and what becomes of it.
        maps: names of `synthetic.EXACT`: what is known of clips beside depth, ids and motion.
        progress: called with clips rendered and `count`.

    Attributes:
        scenes: structure, content of the source, content of the answer.
        prompts: of the answers.
        descriptions: of the answers, by name.
    """

    def __init__(
        self,
        count: int,
        *,
        frames: int,
        height: int,
        width: int,
        split: str = "test",
        seed: int = 0,
        make: Callable[[str, int, int], Scene] | None = None,
        maps: tuple[str, ...] = (),
        progress: Callable[[int, int], None] | None = None,
    ):
        self.scenes = [(make or scene)(split, index, seed) for index in range(count)]
        self._maps = maps
        self._seed = seed
        self._size, self._frames, self._progress = (height, width), frames, progress
        answers = [(structure, answer) for structure, _, answer in self.scenes]
        self.prompts = tuple(synthetic.caption(b, a, seed=seed + i) for i, (a, b) in enumerate(answers))
        self.descriptions = tuple(synthetic.describe(*pair) for pair in answers)

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def source_prompts(self) -> tuple[str, ...]:
        """What would be said of the sources, in the words of `prompts` but for what differs."""
        return tuple(synthetic.caption(a, s, seed=self._seed + i) for i, (s, a, *_) in enumerate(self.scenes))

    @cached_property
    def clips(self) -> World:
        """All of them, stacked, on the host; rendered when first asked for."""
        clips = []
        for clip in _render(self.scenes, self._frames, self._size, self._maps):
            clips.append(clip)
            if self._progress is not None:
                self._progress(len(clips), len(self))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *clips)


def scene(split: str, index: int, seed: int, *, answers: int = 1) -> Scene:
    """A structure, the content of the clip that is edited, and those of the answers."""
    structure = synthetic.sample_structure(synthetic.clip_seed(split, index, seed))
    contents = (synthetic.clip_seed(split, index + number * _ANSWERS, seed) for number in range(1 + answers))
    return structure, *(synthetic.sample_content(s, structure, split) for s in contents)


def _render(scenes: list[Scene], frames: int, size: tuple[int, int], maps: tuple[str, ...] = ()) -> Iterator[World]:
    render = partial(_render_one, frames=frames, size=size, maps=maps)
    if jax.default_backend() == "cpu":  # under vmap every branch of every part would be computed
        for scene in scenes:
            yield jax.device_get(render(*scene))
        return
    render = jax.jit(jax.vmap(render))
    at_once = min(_CLIPS_AT_ONCE, len(scenes))
    for start in range(0, len(scenes), at_once):
        part = scenes[start : start + at_once]
        padded = part + part[-1:] * (at_once - len(part))
        batch = jax.device_get(render(*jax.tree.map(lambda *leaves: np.stack(leaves), *padded)))
        yield from (jax.tree.map(lambda x: x[i], batch) for i in range(len(part)))  # noqa: B023


def _render_one(
    structure: synthetic.Structure,
    source: synthetic.Content,
    answer: synthetic.Content,
    *,
    frames: int,
    size: tuple[int, int],
    maps: tuple[str, ...] = (),
) -> World:
    geometry = synthetic.trace_clip(structure, frames=frames, size=size, fps=FRAME_RATE)
    return World(
        source=synthetic.shade_clip(structure, source, geometry, size=size),
        answer=synthetic.shade_clip(structure, answer, geometry, size=size),
        inverse_depth=1 / geometry.depth,
        ids=geometry.ids,
        flow=geometry.flow,
        flow_to_first=synthetic.flow_to(structure, geometry, 0.0, size=size),
        maps=synthetic.exact_maps(structure, geometry, maps, size=size) if maps else {},
    )
