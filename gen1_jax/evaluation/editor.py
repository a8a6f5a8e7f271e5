"""Many edits with one model, in batches: by the method of the paper, and by others with the same weights."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int, Key, UInt8

from gen1_jax.diffusion import Guidance, guidance_runs
from gen1_jax.editing.keyframes import between, keyframes_first
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.masks import MaskClip, latent_change
from gen1_jax.editing.masks.compositing import composited, feathered
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.sampling import GuidedSampler, Known
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import to_uint8
from gen1_jax.errors import UserError
from gen1_jax.evaluation.kinds import estimate_kind, exact_kind
from gen1_jax.evaluation.worlds import EditClips, Worlds
from gen1_jax.models.attended import Attended
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser_config import KNOWN
from gen1_jax.models.denoiser_inputs import known_signal
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import told_level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How edits are sampled: Gen-1's own way, or another editor with the same weights.

    Attributes:
        settings: the numbers of an edit.
        strength: SDEdit's (https://arxiv.org/abs/2108.01073): how much noise the input is given before it is
            denoised; at 1 nothing of it is left but its structure.
        sees_structure: whether the U-Net is given the structure of the input.
        frame_by_frame: whether every frame is sampled by itself, by the image model.
        first_frame_only: whether only the first frame is edited.
        masks: what of each clip may change; the rest stays the input. None is all of it.
    """

    settings: EditSettings
    strength: float = 1.0
    sees_structure: bool = True
    frame_by_frame: bool = False
    first_frame_only: bool = False
    masks: Sequence[MaskClip] | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self):
        if not 0 < self.strength <= 1:
            raise UserError(f"strength must be above 0 and at most 1, got {self.strength}")

    def first_step(self, steps: int) -> int:
        """Of a run of so many steps, where one of this strength begins; at least one step is taken."""
        return min(round(steps * (1 - self.strength)), steps - 1)


class Editor:
    """Edits all of some worlds; depth, content and latents of the inputs are computed once.

    Args:
        pipeline: the model.
        worlds: what is edited, at a size that the model takes as it is.
        batch_size: clips at once at most; they are divided as evenly as can be, see `batches`.
        content: (d,), of all edits, instead of what the model makes of the prompts.

    Attributes:
        content: (N, n, d), what the edits are told: what the prior makes of the prompts, or the text encoder's states.
        null: (1, n, d), what says nothing; None for zeros.
        depth: (N, T, H, W), inverse depth as the model's network estimates it.
        latents: (N, T, h, w, c), of the inputs.
        evaluations: of the denoiser so far, for each frame of the worlds; guidance of n branches is n of them.
    """

    def __init__(
        self,
        pipeline: Gen1Pipeline,
        worlds: Worlds,
        *,
        batch_size: int,
        seed: int = 0,
        content: Float32[np.ndarray, " d"] | None = None,
    ):
        self.pipeline, self.worlds, self.batch_size, self.seed = pipeline, worlds, batch_size, seed
        self.content, self.null = self._contents() if content is None else (np.tile(content, (len(worlds), 1, 1)), None)
        self.depth = self.estimate_depth(worlds.clips.source)
        self.latents = self._of_frames(self._encode, worlds.clips.source)
        self.evaluations = 0.0
        self._found: dict[str, np.ndarray] = {}
        self._looking: dict[tuple, GuidedSampler] = {}

    def showing(self, worlds: Any) -> "Editor":
        """An editor of other clips that is told the same, one of the other after one of its own; counts for itself.

        Args:
            worlds: as many, whose `clips.source` is what is edited; for structures that are estimated.
        """
        other = copy.copy(self)
        other.__dict__.pop("source_content", None)
        other.worlds, other.evaluations, other._found = worlds, 0.0, {}
        other.depth = other.estimate_depth(worlds.clips.source)
        other.latents = other._of_frames(other._encode, worlds.clips.source)
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

    def through_autoencoder(self, clips: EditClips) -> EditClips:
        """What is left of clips after the autoencoder."""
        return self._of_frames(lambda frames: to_uint8(self._decode(self._encode(frames))), clips)

    def embed(self, clips: EditClips) -> Float32[np.ndarray, "n t d"]:
        """CLIP's embedding of every frame."""
        clip = self.pipeline.clip
        return self._of_frames(lambda frames: clip.encode_image(clip.preprocess(frames)), clips)

    def embed_texts(self, texts: tuple[str, ...]) -> Float32[np.ndarray, "n d"]:
        """CLIP's embedding of every text."""
        ids, _ = self.pipeline.tokenizer(list(texts))
        return np.asarray(self.pipeline.clip.encode_text(ids))

    def estimate_depth(self, clips: EditClips) -> Float32[np.ndarray, "n t h w"]:
        """Inverse depth of every frame by the model's network."""
        return self._of_frames(
            lambda x: self.pipeline.depth.estimate(pixels_to_images(x), frames_per_chunk=len(x)), clips
        )

    def estimate(self, kind: str, clips: EditClips) -> Float32[np.ndarray, "n t h w k"]:
        """Maps of a kind as an edit estimates them, not normalised."""
        of_kind = self.pipeline.config.structure_kind(kind)
        return estimate_kind(of_kind, self.pipeline.network, clips, self._of_frames)

    def _maps(self, kind: str) -> Float32[np.ndarray, "n t h w k"]:
        """Maps of the inputs: as an edit estimates them; exact where nothing estimates them."""
        if kind == "depth":
            return self.depth[..., None]
        if kind not in self._found:
            is_estimated = self.pipeline.config.structure_kind(kind).is_estimated
            source = self.worlds.clips.source
            self._found[kind] = self.estimate(kind, source) if is_estimated else exact_kind(self.worlds, kind)
        return self._found[kind]

    def batches(self) -> Iterator[Int[np.ndarray, " b"]]:
        """Indices of the clips that are taken at once: batches of one size, for which one program is compiled.

        As few as `batch_size` allows, and as small as their number allows: 20 clips are two batches of 10, and the
        last clip is only repeated where they do not come out even.
        """
        count = len(self.worlds)
        return _batches(count, -(-count // -(-count // self.batch_size)))

    def _of_frames(self, function: Callable[[np.ndarray], Any], clips: np.ndarray) -> np.ndarray:
        """A function of pictures over the frames of all clips, a batch of clips at a time."""
        outputs = []
        for indices in self.batches():
            frames = function(rearrange(clips[indices], "b t ... -> (b t) ..."))
            outputs.append(rearrange(np.asarray(frames), "(b t) ... -> b t ...", b=len(indices)))
        return np.concatenate(outputs)[: len(clips)]

    def _contents(self) -> tuple[Float32[np.ndarray, "n m d"], Float32[np.ndarray, "1 m d"] | None]:
        """Drawn by the prior, whose noise belongs to the batch: by `batch_size`, however they are divided later."""
        if self.pipeline.config.unet.content_kind == "text":
            states = np.asarray(self.pipeline.content.states([*self.worlds.prompts, ""]))
            return states[:-1], states[-1:]
        contents = []
        for indices in _batches(len(self.worlds), min(self.batch_size, len(self.worlds))):
            key = jax.random.fold_in(jax.random.key(self.seed), int(indices[0]))
            prompts = [self.worlds.prompts[i] for i in indices]
            contents.append(np.asarray(self.pipeline.content.embed_prompts(prompts, key)))
        return np.concatenate(contents)[: len(self.worlds), None], None

    def _encode(self, frames: UInt8[np.ndarray, "b h w 3"]) -> Float[Array, "b i j c"]:
        return self.pipeline.vae.images_to_latents(pixels_to_images(frames))

    def _decode(self, latents: Float[Array, "*batch i j c"]) -> Float[Array, "*batch h w 3"]:
        return self.pipeline.vae.latents_to_images(latents)

    def _structure(self, way: Way, indices: np.ndarray) -> dict[str, Signal]:
        """What the model is told of the inputs: zeros, and t_s 0, of what it needs where it is not to see it."""
        unet, settings = self.pipeline.config.unet, way.settings.of(self.pipeline.config)
        if not way.sees_structure:
            return {kind: Signal.of(jnp.zeros(self.latents[indices].shape)) for kind in unet.required}
        level = jnp.full(len(indices), settings.structure_blur)
        signals = {}
        for use in settings.structures:
            kind = self.pipeline.config.structure_kind(use.kind)
            maps = kind.degrade(kind.normalise(jnp.asarray(self._maps(kind.name)[indices])), level)
            if use.kind in unet.structures:
                encoded = kind.encode(maps, self.pipeline.vae.images_to_latents)
            else:
                encoded = self.pipeline.unet.hint(kind.hint(maps), kind=use.kind)
            weight = jnp.full(len(indices), use.weight, jnp.float32)
            signals[use.kind] = Signal.of(encoded, told_level(kind, level), weight)
        return signals

    def told(self, way: Way, indices: Int[np.ndarray, " b"]) -> Conditions:
        """What the denoiser is told of some worlds.

        Args:
            way: which structures it sees, and how.
            indices: of the worlds.
        """
        reads = self.pipeline.config.unet.content_kind
        null = {} if self.null is None else {reads: jnp.asarray(self.null)}
        content = {reads: jnp.asarray(self.content[indices])}
        return Conditions(content=content, null=null, structure=self._structure(way, indices))

    @cached_property
    def source_content(self) -> Float32[np.ndarray, "n m d"]:
        """What the inputs show, as content: CLIP's embedding of the first frames; of text, which they lack, nothing."""
        if self.null is not None:
            return np.repeat(self.null, len(self.worlds), axis=0)
        return self.embed(self.worlds.clips.source[:, :1])

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
            noise = noise_of_clips(settings.seed, jnp.asarray(indices), inputs.shape[1:])
            keys = jax.vmap(lambda key: jax.random.split(key, count))(_keys(settings.seed, indices)).reshape(-1)
            inputs, noise = (rearrange(x, "b t ... -> (b t) 1 ...") for x in (inputs, noise))
            kept = None if kept is None else Known(*(rearrange(x, "b t ... -> (b t) 1 ...") for x in kept))
            out = self._run(way, settings, _frame_by_frame(told, count), inputs, noise, keys, kept)
            return rearrange(out, "(b n) t ... -> b (n t) ...", b=clips)

        def sample(frames: np.ndarray, known: KnownLatents | None, gap: int | None) -> Array:
            this = settings if gap is None else between(settings)
            part, here = inputs[:, frames], kept
            if settings.keyframe_stride > 1:
                here = None if known is None else known.kept()
            seed = settings.seed + (0 if gap is None else 1 + gap)
            noise = noise_of_clips(seed, jnp.asarray(indices), part.shape[1:])
            return self._run(way, this, told.at(frames), part, noise, _keys(seed, indices), here)

        known = None if kept is None else KnownLatents.of(kept)
        out = keyframes_first(sample, count, settings.keyframe_stride, known)
        return out if given is None else given.on(out)

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
        return self.run(sampler, told, noise, _after(first_step, guided_parts(settings, sampler)), kept, keys)

    def sampler(self, settings: EditSettings, where: Attended | None = None) -> GuidedSampler:
        """The model's sampler; its frames look at those of others in self-attention, if that is said."""
        sampler = self.pipeline.sampler(settings)
        if where is None:
            return sampler
        key = (where, settings.sampler, settings.shift_windows)
        if key not in self._looking:
            self._looking[key] = sampler.looking_at(where)
        return self._looking[key].with_tables(sampler.tables)

    def run(
        self,
        sampler: GuidedSampler,
        told: Conditions,
        latents: Float[Array, "b t i j c"] | Float[np.ndarray, "b t i j c"],
        parts: Iterable[tuple[int, int, Guidance]],
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
            branches = (guidance.of_images() if latents.shape[1] == 1 else guidance).branches
            self.count((stop - start) * len(branches), latents)
        return state.latents

    def count(self, evaluations: int, latents: Float[Array, "b t i j c"] | Float[np.ndarray, "b t i j c"]) -> None:
        """Adds what was evaluated for latents of some of the worlds to `evaluations`."""
        frames = self.worlds.clips.source.shape[1] * sum(map(len, self.batches()))
        self.evaluations += evaluations * latents.shape[0] * latents.shape[1] / frames


def _after(first_step: int, parts: Iterable[tuple[int, int, Guidance]]) -> Iterator[tuple[int, int, Guidance]]:
    """What is left of a run in parts that begins at one of its steps."""
    return ((max(start, first_step), stop, guidance) for start, stop, guidance in parts if stop > first_step)


def _frame_by_frame(told: Conditions, count: int) -> Conditions:
    """Of clips of so many frames, as many clips of one."""
    apart = lambda signal: jax.tree.map(lambda x: x.repeat(count, axis=0), dataclasses.replace(signal, maps=None))
    structure = {
        kind: dataclasses.replace(apart(signal), maps=rearrange(signal.maps, "b t ... -> (b t) 1 ..."))
        for kind, signal in told.structure.items()
    }
    content = {kind: x.repeat(count, axis=0) for kind, x in told.content.items()}
    return dataclasses.replace(told, content=content, structure=structure)


def _batches(count: int, size: int) -> Iterator[Int[np.ndarray, " b"]]:
    """The numbers up to `count` in batches of one size, the last one filled up."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def guided_parts(settings: EditSettings, sampler: GuidedSampler) -> list[tuple[int, int, Guidance]]:
    """Guidance as an edit has it over the steps of a sampler: (first step, end, guidance), one after another."""
    guidance, steps = settings.guidance(sampler.unet.config), len(sampler.tables.timesteps)
    return guidance_runs(guidance, steps, settings.guidance_interval)


def _keys(seed: int, indices: Int[np.ndarray, " b"]) -> Key[Array, " b"]:
    """Of every clip its own, for what is drawn beside `noise_of_clips`."""
    draw = lambda index: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), index), 1)
    return jax.vmap(draw)(jnp.asarray(indices))


def noise_of_clips(seed: int, indices: Array, shape: tuple[int, ...]) -> Float[Array, " b *dims"]:
    """Of every clip its own, whatever the batch."""
    draw = lambda index: jax.random.normal(jax.random.fold_in(jax.random.key(seed), index), shape)
    return jax.vmap(draw)(indices)
