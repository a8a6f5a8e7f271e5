"""A clip of any length in one sweep: the windows of all steps in an order in which memory does not grow with the clip.

Windows of a step (`windows`) couple a frame to its neighbours alone. A window of step i needs what the windows of step
i - 1 made of its frames, and no more, so that the steps may follow one another along the clip:

    frame ──►         a b c d e f g h
    step 0            ■ ■ ■ ■ ■ ■ □      ■ window that was taken, □ is taken in this round
    step 1            ■ ■ ■ ■ □
    step 2            ■ ■ □              what the last step has left behind is finished

A round takes one window of every step; between what is finished and what has not begun lies a band of about N strides
and a window. The windows, their weights and their steps are those of the whole clip, hence so is the result, to
rounding, and there is nothing between parts of the clip that could be seen.
"""

import dataclasses
import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, PRNGKeyArray

from gen1_jax.diffusion.samplers import Sampler, SamplerState, SamplerTables
from gen1_jax.diffusion.windows import blend_weights, shifted_windows, window_shift, window_starts


class Band(NamedTuple):
    """The frames of a clip that are under way, each at a step of its own. A pytree; all of it is along axis 1.

    Attributes:
        latents: (B, M, h, w, c) x_t.
        x0: the clean sample as the step before estimated it.
        total: of the predictions of the step's windows, as far as they are taken.
        told: arrays (B, M, ...) of what the model is told of each frame.
    """

    latents: Float[Array, "b m h w c"]
    x0: Float[Array, "b m h w c"]
    total: Float[Array, "b m h w c"]
    told: Any = ()

    @classmethod
    def before(cls, latents: Float[Array, "b m h w c"], told: Any = ()) -> "Band":
        """Frames of which no window was taken yet."""
        return cls(latents, jnp.zeros_like(latents), jnp.zeros_like(latents), told)

    def moved(self, frames: int | Int[Array, ""]) -> "Band":
        """The band so many frames further on; what lies at its end is then to be entered."""
        return jax.tree.map(lambda x: jnp.roll(x, -frames, axis=1), self)

    def entered(self, block: "Band", at: int | Int[Array, ""]) -> "Band":
        """With frames in the place that begins with `at`."""
        put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new.astype(x.dtype), at, axis=1)
        return jax.tree.map(put, self, block)


class Round(NamedTuple):
    """One window of each of N steps; a pytree of numpy arrays.

    Attributes:
        starts: (N,) first frames, in the clip or in a band.
        weights: (N, window) of its prediction in each of its frames.
        done: (N,) how many of its first frames have had all their windows.
        numbers: (N,) of the windows, which fresh noise is drawn by.
        first: of the steps that take a window in this round.
        stop: end of these.
    """

    starts: Int32[np.ndarray, " n"]
    weights: Float[np.ndarray, "n w"]
    done: Int32[np.ndarray, " n"]
    numbers: Int32[np.ndarray, " n"]
    first: np.int32
    stop: np.int32


@dataclasses.dataclass(frozen=True, eq=False)
class Sweep:
    """Which window is taken in which round.

    Attributes:
        timesteps: (N,) of the run.
        frames: of the clip, T, at least `window`.
        window: frames of a window.
        overlap: frames that neighbouring windows share.
        shift: whether they lie elsewhere at each step, see `windows.windowed`.
    """

    timesteps: Int32[np.ndarray, " n"]
    frames: int
    window: int
    overlap: int
    shift: bool = False

    @cached_property
    def _windows(self) -> tuple[Int32[np.ndarray, "n k"], Float[np.ndarray, "n k w"]]:
        """First frames and weights of the windows of each step."""
        size, steps = (self.frames, self.window, self.overlap), len(self.timesteps)
        if self.shift:
            at = lambda t: shifted_windows(*size, window_shift(t, self.window - self.overlap))
            starts, weights = jax.device_get(jax.jit(jax.vmap(at))(np.asarray(self.timesteps, np.int32)))
        else:
            one = window_starts(*size), blend_weights(*size)
            starts, weights = (np.broadcast_to(x, (steps, *x.shape)) for x in one)
        return starts, weights

    @cached_property
    def _ends(self) -> Int32[np.ndarray, "n k"]:
        """First frame that is not yet done when a window of a step is taken."""
        starts, _ = self._windows
        return np.concatenate([starts[:, 1:], np.full((len(starts), 1), self.frames, np.int32)], axis=1)

    @cached_property
    def lag(self) -> int:
        """How many rounds a step is behind the one before: until that has done all frames of the window."""
        starts, _ = self._windows
        behind = [
            int((np.searchsorted(before, now + self.window) - 1 - np.arange(len(now))).max())
            for before, now in itertools.pairwise(starts)
        ]
        return max([1, *behind])

    @property
    def rounds(self) -> int:
        """Of the whole sweep."""
        starts, _ = self._windows
        return starts.shape[1] + (len(starts) - 1) * self.lag

    @property
    def evaluations(self) -> int:
        """Windows of all steps."""
        return self._windows[0].size

    def evaluated(self, number: int) -> int:
        """How many of them were taken before a round."""
        steps, count = self._windows[0].shape
        return int(np.clip(number - np.arange(steps) * self.lag, 0, count).sum())

    def needed(self, number: int) -> int:
        """How many frames must have been entered before a round."""
        first = self._windows[0][0]
        return int(first[min(number, len(first) - 1)]) + self.window

    def finished(self, number: int) -> int:
        """How many frames have gone through all steps before a round."""
        last, window = self._ends[-1], number - 1 - (len(self._ends) - 1) * self.lag
        return 0 if window < 0 else int(last[min(window, len(last) - 1)])

    @cached_property
    def band(self) -> int:
        """M, the most frames that are under way."""
        return max(self.needed(number) - self.finished(number) for number in range(self.rounds))

    def round(self, number: int) -> Round:
        """The windows of a round; first frames are those in a band that begins with the first unfinished frame."""
        starts, weights = self._windows
        steps, count = starts.shape
        numbers = number - np.arange(steps) * self.lag
        here = np.arange(steps), np.clip(numbers, 0, count - 1)
        return Round(
            (starts[here] - self.finished(number)).astype(np.int32),
            weights[here],
            (self._ends[here] - starts[here]).astype(np.int32),
            numbers.astype(np.int32),
            np.int32(max(0, -((count - 1 - number) // self.lag))),
            np.int32(min(steps, number // self.lag + 1)),
        )


DenoiseWindow = Callable[[Float[Array, "b w h w2 c"], Int32[Array, " b"], Int[Array, ""]], Float[Array, "b w h w2 c"]]
"""(latents of a window, timesteps (B,), its first frame in the band) -> prediction."""

Act = Callable[[Float[Array, "b w h w2 c"], Float[Array, "b w h w2 c"], Int32[Array, " b"], Int[Array, ""]], Array]
"""(blended prediction, latents, timesteps, first frame in the band) -> what is stepped with."""


def take_round(
    denoise: DenoiseWindow,
    sampler: Sampler,
    tables: SamplerTables,
    band: Band,
    windows: Round,
    key: PRNGKeyArray | None,
    *,
    window: int,
    first: Int[Array, ""] | int,
    stop: Int[Array, ""] | int,
    act: Act = lambda prediction, latents, timesteps, start: prediction,
) -> Band:
    """Takes the windows of the steps first <= i < stop of a round, within those that have one.

    Args:
        denoise: of one window.
        sampler: the solver.
        tables: of the run.
        band: that begins with the first unfinished frame.
        windows: of the round.
        key: for fresh noise; None if the solver draws none.
        window: frames of a window.
        first: see above.
        stop: see above.
        act: on predictions that are whole, such as `wrappers.acting_on_x0` does.
    """

    def body(i: Int[Array, ""], band: Band) -> Band:
        start, done = jnp.asarray(windows.starts)[i], jnp.asarray(windows.done)[i]
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, window, axis=1)
        latents, x0, total = cut(band.latents), cut(band.x0), cut(band.total)
        timesteps = jnp.full(latents.shape[:1], jnp.asarray(tables.timesteps)[i])
        weights = jnp.asarray(windows.weights)[i][:, None, None, None]
        total = total + denoise(latents, timesteps, start) * weights
        noise = None if key is None else jax.random.fold_in(key, jnp.asarray(windows.numbers)[i])
        state = SamplerState(latents, x0, i > 0, noise)
        stepped = sampler.step(tables, i, state, act(total, latents, timesteps, start))
        is_done = (jnp.arange(window) < done)[:, None, None, None]
        put = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, axis=1)
        return band._replace(
            latents=put(band.latents, jnp.where(is_done, stepped.latents, latents)),
            x0=put(band.x0, jnp.where(is_done, stepped.x0, x0)),
            total=put(band.total, jnp.where(is_done, 0, total)),
        )

    return jax.lax.fori_loop(jnp.maximum(first, windows.first), jnp.minimum(stop, windows.stop), body, band)
