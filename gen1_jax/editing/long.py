"""Edits of clips that are too long to be held: read, edited and written in parts, with memory that does not grow.

    file ──► maps of the whole clip (a file of its own) ──► sweep ──► latents (another) ──► decoder ──► frames

The windows of a clip hang together at every step, so that parts of it are not edited one after the other, which would
leave seams, but in one sweep (`diffusion.sweep`) whose finished frames are kept as they come.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from gen1_jax.editing.long_maps import MapFile
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.source import FrameStream
from gen1_jax.editing.structures import Maps, Progress, check_given, to_uint8
from gen1_jax.editing.sweep import BLOCK, Block, ClipSweep
from gen1_jax.editing.work import Work
from gen1_jax.models.conditions import SHARES, Conditions

LONGEST = 256
"""Frames of a clip that is edited at once; longer ones are swept."""

SECONDS = 30.0
"""Between two times at which what is done is kept."""


class LongEdit:
    """An edit of a long clip; what of it is in its work folder is not done again.

    Args:
        pipeline: the model.
        settings: filled in.
        content: from `Gen1Pipeline.encode_content`.
        frames: of the clip.
        work: its folder.
        progress: see `edit_file`.
    """

    def __init__(
        self,
        pipeline: Gen1Pipeline,
        settings: EditSettings,
        content: Conditions,
        frames: FrameStream,
        work: Work,
        progress: Progress,
    ):
        self.pipeline, self.settings, self.content = pipeline, settings, content
        self.frames, self.work, self.progress = frames, work, progress
        self.maps: dict[str, MapFile] = {}

    def read_structure(self, ready: Callable[[], Maps]) -> dict[str, "Pictures"]:
        """One pass over the clip for each kind; what the model sees of it, as pictures.

        Args:
            ready: gives maps that are not estimated, by kind; called if they are not in the work folder yet.
        """
        reader, count, level = self.pipeline.structures, len(self.frames), self.settings.structure_blur
        given = ready()
        check_given(given, self.settings)
        for kind in reader.followed(self.settings):
            shape = (count, *self.frames.size)
            maps = MapFile(self.work.folder, reader, kind, level, shape, ready=kind.name in given)
            if not maps.is_there:
                pieces = [given[kind.name]] if kind.name in given else reader.stream(kind, self.frames, level)
                for done in maps.fill(pieces):
                    self.progress(kind.name, done, count)
            self.maps[kind.name] = maps
        self.pipeline.networks.let_go("depth", "softedge")
        return {name: Pictures(maps) for name, maps in self.maps.items()}

    def sample(self) -> None:
        """Latents of all frames, into the work folder."""
        if self.work.finished == len(self.frames):
            return
        first = self.pipeline.encode_structure(self._maps(0), self.settings)
        bare = {kind: dataclasses.replace(signal, maps=None) for kind, signal in first.items()}
        sampler, settings = self.pipeline.sampler(self.settings), self.settings
        clip = ClipSweep(
            sampler,
            len(self.frames),
            self.work.size,
            settings.seed,
            dataclasses.replace(self.content, structure=bare, shares=None),
            settings.guidance(self.pipeline.config.unet),
            interval=settings.guidance_interval,
            shared_noise=settings.shared_noise,
        )
        kept, made = time.monotonic(), []
        self.progress("compiling", 0, 1)
        for number, (latents, state) in enumerate(clip.run(self._blocks, self.work.state)):
            if number == 0:
                self.progress("compiling", 1, 1)
            made.append(latents)
            self.progress("sampling", clip.sweep.evaluated(state.rounds), clip.sweep.evaluations)
            if state.rounds == clip.sweep.rounds or time.monotonic() - kept >= SECONDS:
                self.work.keep(np.concatenate(made), state)
                kept, made = time.monotonic(), []
        self.pipeline.networks.let_go("unet")

    def decoded(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The frames of the latents, one by one."""
        count = len(self.frames)
        for start in range(0, count, BLOCK):
            latents = self.work.latents(start, min(BLOCK, count - start))
            there = len(latents)
            latents = np.concatenate([latents, np.repeat(latents[-1:], BLOCK - there, axis=0)])
            yield from to_uint8(self.pipeline.vae.latents_to_images(latents))[:there]
            self.progress("decoding", start + there, count)
        self.pipeline.networks.let_go("vae")

    def _blocks(self, first: int) -> Iterator[Block]:
        count = -(-len(self.frames) // BLOCK)
        begun = itertools.repeat(None) if self.settings.strength == 1 else self._begun(first)
        shares = self.content.over(len(self.frames)).shares
        if shares is not None:  # the last block has frames that are not
            shares = jnp.pad(shares, ((0, 0), (0, count * BLOCK - len(self.frames)), (0, 0)), mode="edge")
        for number, latents in zip(range(first, count), begun, strict=False):
            signals = self.pipeline.encode_structure(self._maps(number), self.settings)
            told = {kind: signal.maps for kind, signal in signals.items()}
            yield Block(told if shares is None else told | {SHARES: shares[:, number * BLOCK :][:, :BLOCK]}, latents)

    def _maps(self, block: int) -> Maps:
        return {kind: maps.block(block * BLOCK, BLOCK) for kind, maps in self.maps.items()}

    def _begun(self, first: int) -> Iterator[np.ndarray]:
        """Latents of the clip's own frames, in blocks from a number on."""
        frames = itertools.islice(self.frames, first * BLOCK, None)
        while block := list(itertools.islice(frames, BLOCK)):
            yield self.pipeline.encode_frames(np.stack(block + block[-1:] * (BLOCK - len(block))))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Maps as pictures, made anew by every iteration."""

    maps: MapFile

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        return self.maps.pictures()
