"""TokenFlow: key frames are edited together, other frames have their attention's outputs where the input is alike.

Source: https://arxiv.org/abs/2307.10373, section 4 (extended attention among key frames, which are drawn anew at each
step; outputs of attention carried along nearest neighbours of the input's features).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jaxtyping import Array, Float, Float32, Int32

from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.rivals.inversion import Indices, Latents, inversion_trajectory
from gen1_jax.evaluation.rivals.lockstep import Lockstep
from gen1_jax.evaluation.told import Way
from gen1_jax.models.attended import Attending
from gen1_jax.models.attention import Attention
from gen1_jax.models.partition import fold, unfold


class KeyFrames(NamedTuple):
    """Those of a step, K of T frames, and from which two each frame takes; a pytree.

    Attributes:
        frames: their numbers, ascending.
        nearest: of each frame, the place among the K of the nearest; a key frame is its own.
        next_nearest: of the nearest on the other side; where there is none, the nearest again.
        weight: of the nearest.
    """

    frames: Int32[np.ndarray, " k"]
    nearest: Int32[np.ndarray, " t"]
    next_nearest: Int32[np.ndarray, " t"]
    weight: Float32[np.ndarray, " t"]

    @classmethod
    def drawn(cls, count: int, interval: int, rng: np.random.Generator) -> "KeyFrames":
        """One in each interval of so many frames. At distances d <= d' the nearest weighs sigmoid(d' / (d + d'))."""
        starts = range(0, count, interval)
        keys = np.array([rng.integers(start, min(start + interval, count)) for start in starts])
        frames, last = np.arange(count), len(keys) - 1
        after = np.searchsorted(keys, frames).clip(0, last)
        before = (np.searchsorted(keys, frames, side="right") - 1).clip(0, last)
        far = np.abs(keys[np.stack([before, after])] - frames)
        first = far[0] <= far[1]
        near, other = np.sort(far, axis=0)
        weight = 1 / (1 + np.exp(-other / np.maximum(near + other, 1)))
        chosen = np.where(first, before, after), np.where(first, after, before)
        return cls(*(x.astype(np.int32) for x in (keys, *chosen)), weight.astype(np.float32))


@dataclasses.dataclass(frozen=True, eq=False)
class Flow(Attending):
    """Self-attention of one step, of rows of which the first of each clip is the input.

    Attributes:
        rows: of a clip.
        keys: of the step.
    """

    rows: int
    keys: KeyFrames

    def to_positions(self, layer: Attention, x: Float[Array, "n s c"], clips: int) -> Float[Array, "n s c"]:
        """See `Attending`; key frames see one another, and keep what they see."""
        rows = rearrange(unfold(x, clips), "(b n) t s c -> n b t s c", n=self.rows)
        source, edits = rows[0], rows[1:]
        apart = lambda y: rearrange(y, "(b t) s c -> b t s c", b=len(source))
        own = apart(layer(rearrange(source, "b t s c -> (b t) s c")))
        keys = rearrange(edits[:, :, self.keys.frames], "n b k s c -> (n b) (k s) c")
        joint = rearrange(layer(keys), "(n b) (k s) c -> n b k s c", n=len(edits), s=x.shape[1])
        flowing = self._carried(source, joint).at[:, :, self.keys.frames].set(joint)
        return fold(rearrange(jnp.concatenate([own[None], flowing]), "n b t s c -> (b n) t s c"))

    def _carried(self, source: Float[Array, "b t s c"], joint: Float[Array, "n b k s c"]) -> Float[Array, "n b t s c"]:
        """Outputs of key frames at each frame, from where the input's features are most alike."""
        length = jnp.linalg.norm(source.astype(jnp.float32), axis=-1, keepdims=True)
        features = source / jnp.maximum(length, 1e-6).astype(source.dtype)

        def frame(told: tuple[Array, Array, Array, Array]) -> Float[Array, "n b s c"]:
            index, *places, weight = told
            found = []
            for place in places:
                there = features[:, jnp.asarray(self.keys.frames)[place]]
                alike = jnp.einsum("bsc,bkc->bsk", features[:, index], there)
                position = repeat(alike.argmax(-1), "b s -> n b s 1", n=len(joint))
                found.append(jnp.take_along_axis(joint[:, :, place], position, axis=2))
            weight = weight.astype(joint.dtype)
            return weight * found[0] + (1 - weight) * found[1]

        told = (jnp.arange(source.shape[1]), self.keys.nearest, self.keys.next_nearest, self.keys.weight)
        return rearrange(jax.lax.map(frame, told), "t n b s c -> n b t s c")


def tokenflow_edit(editor: Editor, way: Way, indices: Indices, interval: int) -> Latents:
    """The image model from each frame's own inversion, with attention as in `Flow`.

    Args:
        editor: of the worlds.
        way: which structures are told, both ways.
        indices: of the worlds.
        interval: frames of which one is a key frame.
    """
    sampler, told = editor.sampler(way.settings), editor.told(way, indices).frames()
    source = editor.told_input(told, indices)
    trajectory = inversion_trajectory(editor, sampler, source, editor.latents[indices])
    rng = np.random.default_rng(way.settings.seed)
    steps = [KeyFrames.drawn(trajectory[0].shape[1], interval, rng) for _ in trajectory]
    return Lockstep(editor=editor, sampler=sampler, way=way, how=Flow)(source, told, trajectory, steps)
