"""Many edits with one model, in batches: by the method of the paper, and by others with the same weights."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Int, Key, UInt8

from gen1_jax.diffusion.guidance import evaluations
from gen1_jax.editing.carrying import carried, carries, carrying
from gen1_jax.editing.deep_cache import whole_steps
from gen1_jax.editing.keyframes import between, keyframes_first
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.masks import latent_change
from gen1_jax.editing.masks.compositing import composited, feathered
from gen1_jax.editing.sampling import GuidedSampler, Known
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import to_uint8
from gen1_jax.evaluation.runs import Parts, guided_parts, keys_of_clips, noise_of_clips, part_of_whole, steps_from
from gen1_jax.evaluation.told import EditInputs, Way
from gen1_jax.evaluation.worlds import EditClips
from gen1_jax.models.attended import Attended
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_config import KNOWN
from gen1_jax.models.denoiser_inputs import known_signal


class Editor(EditInputs):
    """Edits all of some worlds. See `EditInputs` for its arguments.

    Attributes:
        evaluations: of the denoiser so far, for each frame of the worlds; guidance of n branches is n of them. One of
            its finest level alone (`EditSettings.deep_cache`) is that part of one which it is by its operations.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.evaluations = 0.0
        self._looking: dict[tuple, GuidedSampler] = {}
        self._parts: dict[tuple, float] = {}

    def showing(self, worlds: Any) -> "Editor":
        """An editor of other clips that is told the same, one of the other after one of its own; counts for itself.

        Args:
            worlds: as many, whose `clips.source` is what is edited; for structures that are estimated.
        """
        other = copy.copy(self)
        other.evaluations = 0.0
        other._read(worlds)
        return other

    def edit(
        self,
        way: Way,
        progress: Callable[[int, int], None] | None = None,
        first: UInt8[np.ndarray, "n 1 h w 3"] | None = None,
    ) -> EditClips:
        """The edits, (N, T, H, W, 3); T is 1 where only the first frame is edited.

        Args:
            way: how.
            progress: called with clips done, and all.
            first: (N, 1, H, W, 3), first frames that are given, to a model that goes on from them.
        """
        given = None if first is None else self._of_frames(self._encode, first)
        over_input = lambda indices, edits: self._over_input(way, indices, edits)
        return self.decoded(lambda indices: self.sample(way, indices, given), progress, over_input)

    def decoded(
        self,
        sample: Callable[[Int[np.ndarray, " b"]], Float[Array, "b t i j c"]],
        progress: Callable[[int, int], None] | None = None,
        finish: Callable[[np.ndarray, EditClips], EditClips] = lambda indices, edits: edits,
    ) -> EditClips:
        """The edits of all worlds whose latents are made by whatever method.

        Args:
            sample: latents of some worlds, by their numbers.
            progress: called with clips done, and all.
            finish: what is done with the numbers and the frames of a batch, at last.
        """
        edits, count = [], len(self.worlds)
        for indices in self.batches():
            edits.append(finish(indices, to_uint8(self._decode(sample(indices)))))
            if progress is not None:
                progress(int(indices[-1]) + 1, count)
        return np.concatenate(edits)[:count]

    def _over_input(self, way: Way, indices: np.ndarray, edits: EditClips) -> EditClips:
        """The edits, outside of their masks the input."""
        if way.masks is None:
            return edits
        for edit, index in zip(edits, indices, strict=True):
            sources = self.worlds.clips.source[index]
            masks = way.masks[index].frames(sources.shape[1:3])
            for frame, source, mask in zip(edit, sources, masks, strict=True):
                frame[:] = composited(source, frame, feathered(mask, way.settings.mask_feather))
        return edits

    def _known(self, way: Way, indices: np.ndarray) -> Known | None:
        if way.masks is None:
            return None
        cell, size = self.pipeline.config.vae.downscale, self.worlds.clips.source.shape[2:4]
        change = [latent_change(way.masks[index].at(size), cell) for index in indices]
        return Known(jnp.asarray(self.latents[indices]), jnp.asarray(np.concatenate(change)))

    def sample(
        self, way: Way, indices: Int[np.ndarray, " b"], first: Float[np.ndarray, "n 1 i j c"] | None = None
    ) -> Float[Array, "b t i j c"]:
        """Latents of the edits of some worlds.

        Args:
            way: how.
            indices: of the worlds.
            first: of all worlds, first frames that are given.
        """
        settings = way.settings.of(self.pipeline.config)
        inputs, told, clips = jnp.asarray(self.latents[indices]), self.told(way, indices), len(indices)
        count = 1 if way.first_frame_only else inputs.shape[1]
        if count == 1:
            told, inputs = told.window(0, 1), inputs[:, :1]
        given = None if first is None else KnownLatents.beginning(jnp.asarray(first[indices]), count)
        kept = self._known(way, indices)
        kept = kept if given is None else given.kept(kept)
        if way.frame_by_frame:
            noise = self._noise(settings, told.frames(), indices, inputs, settings.seed)
            keys = jax.vmap(lambda key: jax.random.split(key, count))(keys_of_clips(settings.seed, indices)).reshape(-1)
            inputs, noise = (rearrange(x, "b t ... -> (b t) 1 ...") for x in (inputs, noise))
            kept = None if kept is None else Known(*(rearrange(x, "b t ... -> (b t) 1 ...") for x in kept))
            out = self._run(way, settings, _frame_by_frame(told, count), inputs, noise, keys, kept)
            return rearrange(out, "(b n) t ... -> b (n t) ...", b=clips)

        whole, begin = [] if given is None else given.whole, None
        if carries(whole, count, self.pipeline.config.num_frames, settings):
            settings, begin = carrying(settings), self._carried(given, whole, indices)

        def sample(frames: np.ndarray, known: KnownLatents | None, gap: int | None) -> Array:
            this = settings if gap is None else between(settings)
            part, here = inputs[:, frames], kept
            if settings.keyframe_stride > 1:
                here = None if known is None else known.kept()
            seed = settings.seed + (0 if gap is None else 1 + gap)
            noise = self._noise(this, told.at(frames), indices, part, seed)
            if begin is not None:
                noise = self._noised(this, begin, noise)
            return self._run(way, this, told.at(frames), part, noise, keys_of_clips(seed, indices), here)

        known = None if kept is None else KnownLatents.of(kept)
        out = keyframes_first(sample, count, settings.keyframe_stride, known)
        return out if given is None else given.on(out)

    def _carried(self, given: KnownLatents, whole: list[int], indices: np.ndarray) -> Float[Array, "b t i j c"]:
        """What edits begin with that know some frames, see `editing.carrying`."""
        known, clips = to_uint8(self._decode(given.latents[:, whole])), self.worlds.clips.source
        moved = [carried(dict(zip(whole, one, strict=True)), clips[i]) for one, i in zip(known, indices, strict=True)]
        return jnp.stack([self._encode(frames) for frames in moved])

    def _noised(self, settings: EditSettings, latents: Array, noise: Array) -> Float[Array, "b t i j c"]:
        """Clean latents as the first step of a run finds them."""
        first = self.pipeline.sampler(settings).tables.timesteps[0]
        return self.pipeline.config.schedule.add_noise(latents, noise, jnp.full(len(latents), first))

    def inverted(
        self,
        sampler: GuidedSampler,
        told: Conditions,
        latents: Float[Array, "b t i j c"] | Float[np.ndarray, "b t i j c"],
    ) -> Float[Array, "b t i j c"]:
        """`GuidedSampler.inverted`, whose evaluations are counted.

        Args:
            sampler: the one that goes down.
            told: what the denoiser is told on the way up.
            latents: clean ones.
        """
        ascending = sampler.ascending()
        return self.run(ascending, told, latents, [(0, len(ascending.tables.timesteps), sampler.unguided)])

    def _noise(
        self,
        settings: EditSettings,
        told: Conditions,
        indices: Int[np.ndarray, " b"],
        inputs: Float[Array, "b t i j c"],
        seed: int,
    ) -> Float[Array, "b t i j c"]:
        """What edits begin with."""
        if settings.inverted_noise:
            return self.inverted(self.sampler(settings), self.told_input(told, indices), inputs)
        return noise_of_clips(seed, jnp.asarray(indices), inputs.shape[1:])

    def _run(
        self,
        way: Way,
        settings: EditSettings,
        told: Conditions,
        inputs: Float[Array, "b t i j c"],
        noise: Float[Array, "b t i j c"],
        keys: Key[Array, " b"],
        kept: Known | None = None,
    ) -> Float[Array, "b t i j c"]:
        """The sampler's run, from noise or from noised inputs; what is kept is told to a model with an input for it."""
        sampler = self.pipeline.sampler(settings)
        steps = len(sampler.tables.timesteps)
        first_step = way.first_step(steps)
        if first_step:
            timesteps = jnp.full(len(inputs), sampler.tables.timesteps[first_step])
            noise = self.pipeline.config.schedule.add_noise(inputs, noise, timesteps)
        if kept is not None and self.pipeline.config.unet.known:
            told = dataclasses.replace(told, structure=told.structure | {KNOWN: known_signal(*KnownLatents.of(kept))})
        return self.run(sampler, told, noise, steps_from(first_step, guided_parts(settings, sampler)), kept, keys)

    def sampler(self, settings: EditSettings, where: Attended | None = None) -> GuidedSampler:
        """The model's sampler; its frames look at those of others in self-attention, if that is said."""
        sampler = self.pipeline.sampler(settings)
        if where is None:
            return sampler
        key = (where, settings.sampler, settings.shift_windows)
        if key not in self._looking:
            self._looking[key] = sampler.looking_at(where)
        return self._looking[key].with_tables(sampler.tables).with_deep_cache(sampler.deep_cache)

    def run(
        self,
        sampler: GuidedSampler,
        told: Conditions,
        latents: Float[Array, "b t i j c"] | Float[np.ndarray, "b t i j c"],
        parts: Parts,
        kept: Known | None = None,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b t i j c"]:
        """Latents after some steps, all of whose evaluations are counted.

        Args:
            sampler: along whose tables they are taken.
            told: what the denoiser is told.
            latents: to begin with.
            parts: (first step, end, guidance), one after another.
            kept: what is to stay as it is.
            keys: of each clip, for a sampler that draws noise in its steps.

        Returns:
            (B, T, h, w, c). Of a clip that is longer than the model's window each frame counts once, though it may be
            in two windows.
        """
        state = sampler.sampler.init(jnp.array(latents), keys)  # a copy, for the state is donated
        for start, stop, guidance in parts:
            state = sampler.run(state, told, guidance, kept, start=start, stop=stop)
            asked = evaluations(told, guidance.of_images() if latents.shape[1] == 1 else guidance)
            whole = int(whole_steps(sampler, start)[start:stop].sum())
            if in_part := stop - start - whole:
                key = (latents.shape, guidance.branches, *sorted(told.structure))
                self._parts[key] = self._parts.get(key) or part_of_whole(sampler, told, guidance, latents.shape)
                in_part *= self._parts[key]
            self.count((whole + in_part) * asked, latents)
        return state.latents

    def count(
        self, evaluations: float | int, latents: Float[Array, "b t i j c"] | Float[np.ndarray, "b t i j c"]
    ) -> None:
        """Adds what was evaluated for latents of some of the worlds to `evaluations`."""
        frames = self.worlds.clips.source.shape[1] * sum(map(len, self.batches()))
        self.evaluations += evaluations * latents.shape[0] * latents.shape[1] / frames


def _frame_by_frame(told: Conditions, count: int) -> Conditions:
    """Of clips of so many frames, as many clips of one."""
    apart = lambda signal: jax.tree.map(lambda x: x.repeat(count, axis=0), dataclasses.replace(signal, maps=None))
    structure = {
        kind: dataclasses.replace(apart(signal), maps=rearrange(signal.maps, "b t ... -> (b t) 1 ..."))
        for kind, signal in told.structure.items()
    }
    content, beside = jax.tree.map(lambda x: x.repeat(count, axis=0), (told.content, told.beside))
    shares = None if told.shares is None else rearrange(told.shares, "b t n -> (b t) 1 n")
    return dataclasses.replace(told, content=content, beside=beside, shares=shares, structure=structure)
