"""Latents of clips that are too long to be held: in one sweep along the clip, see `diffusion.sweep`.

blocks of frames (structures, latents to begin with) ──► band of frames that are under way ──► finished latents
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gen1_jax.diffusion import Guidance, guidance_runs, noised_start
from gen1_jax.diffusion.caching import check_in_one
from gen1_jax.diffusion.sweep import Band, Sweep
from gen1_jax.editing.sampling import GuidedSampler, in_32_bits
from gen1_jax.models.conditions import Conditions

BLOCK = 8
"""Frames that enter at once."""


class Block(NamedTuple):
    """What is known of `BLOCK` frames before they are sampled.

    Attributes:
        told: maps (1, BLOCK, ...) of each structure, as the model takes them.
        latents: (1, BLOCK, h, w, c), clean, that the sampling begins with; None for noise alone.
    """

    told: dict[str, Float[Array, "1 n ..."]]
    latents: Float[Array, "1 n h w c"] | None = None


class SweepState(NamedTuple):
    """Where a sweep stands; with the same blocks it goes on from there, and ends with the same latents.

    Attributes:
        rounds: that were taken.
        entered: blocks that were entered.
        band: of frames that are under way.
    """

    rounds: int
    entered: int
    band: Band


class ClipSweep:
    """Samples a clip of any length with what a `GuidedSampler` compiles for one window and a band.

    The noise of each block of frames is drawn by its number, so that none of it grows with the clip.

    Args:
        sampler: of the edit.
        frames: of the clip, more than its window.
        size: (h, w, c) of latents.
        seed: of all randomness.
        conditions: what to follow, but for maps of structures, which blocks hold.
        guidance: how strictly.
        interval: see `diffusion.guidance_runs`.
        shared_noise: see `GuidedSampler.noise_order`.

    Attributes:
        sweep: its order.
    """

    def __init__(
        self,
        sampler: GuidedSampler,
        frames: int,
        size: tuple[int, int, int],
        seed: int,
        conditions: Conditions,
        guidance: Guidance,
        *,
        interval: tuple[float, float] = (0.0, 1.0),
        shared_noise: bool = False,
    ):
        self.sampler, self.frames, self.size = sampler, frames, size
        self.conditions = conditions
        if sampler.deep_cache > 1:
            check_in_one(frames, sampler.window)
        self.sweep = Sweep(sampler.tables.timesteps, frames, sampler.window, sampler.overlap, sampler.shift)
        self._runs = guidance_runs(guidance, len(sampler.tables.timesteps), interval)
        self._noise_key, step_key = jax.random.split(jax.random.key(jnp.uint32(in_32_bits(seed))))
        self._key = sampler.sampler.init(jnp.zeros(1), step_key).key
        self._order = sampler.noise_order(frames, seed) if shared_noise else None

    def noise(self, block: int) -> Float[Array, "1 n h w c"]:
        """Of the frames of a block."""
        if self._order is None:
            return jax.random.normal(jax.random.fold_in(self._noise_key, block), (1, BLOCK, *self.size))
        first = jax.random.normal(self._noise_key, (1, self.sampler.window, *self.size))
        places = np.minimum(np.arange(block * BLOCK, (block + 1) * BLOCK), self.frames - 1)
        return first[:, self._order[places]]

    def run(
        self, blocks: Callable[[int], Iterator[Block]], state: SweepState | None = None
    ) -> Iterator[tuple[Float[np.ndarray, "n h w c"], SweepState]]:
        """The latents of all frames in order, some after each round, and where the sweep then stands.

        Args:
            blocks: those from a number on.
            state: to go on from; its arrays may be numpy's. It is donated, as those that are handed out are to the next
                round.
        """
        source, sweep = blocks(0 if state is None else state.entered), self.sweep
        for number in range(0 if state is None else state.rounds, sweep.rounds):
            entered = 0 if state is None else state.entered
            band = None if state is None else jax.tree.map(jnp.asarray, state.band)
            while entered * BLOCK < min(sweep.needed(number), self.frames):
                block = self._begun(entered, next(source))
                band = _empty(block, sweep.band + BLOCK) if band is None else band
                band = _enter(band, block, entered * BLOCK - sweep.finished(number))
                entered += 1
            band = self._round(band, number)
            done = sweep.finished(number + 1) - sweep.finished(number)
            finished = np.asarray(band.latents[0, :done])
            state = SweepState(number + 1, entered, _move(band, done))
            yield finished, state

    def _begun(self, number: int, block: Block) -> Band:
        latents = self.noise(number)
        if block.latents is not None:
            latents = noised_start(self.sampler.schedule, self.sampler.tables, block.latents, latents)
        return Band.before(latents, block.told)

    def _round(self, band: Band, number: int) -> Band:
        sampler, windows = self.sampler, self.sweep.round(number)
        for first, stop, guidance in self._runs:
            if max(first, windows.first) < min(stop, windows.stop):
                band = sampler.round(
                    sampler.unet.params,
                    band,
                    self.conditions,
                    guidance,
                    sampler.padded_tables,
                    windows,
                    self._key,
                    first,
                    stop,
                )
        return band


_enter = jax.jit(Band.entered, donate_argnums=0)
_move = jax.jit(Band.moved, donate_argnums=0)


def _empty(block: Band, frames: int) -> Any:
    return jax.tree.map(lambda x: jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype), block)
