"""Many edits with one model, in batches: by the method of the paper, and by others with the same weights."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int32, UInt8

from gen1_jax.diffusion import Guidance, SamplerState, guidance_runs
from gen1_jax.editing.masks import MaskClip, latent_change
from gen1_jax.editing.masks.compositing import composited, feathered
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.sampling import Known
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import to_uint8
from gen1_jax.errors import UserError
from gen1_jax.evaluation.worlds import EditClips, Worlds
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import normalise_depth, structure_images
from gen1_jax.models.unet import conditions_of


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


class Editor:
    """Edits all of some worlds; depth, content and latents of the inputs are computed once.

    Args:
        pipeline: the model.
        worlds: what is edited, at a size that the model takes as it is.
        batch_size: clips at once at most; they are divided as evenly as can be, see `batches`.

    Attributes:
        content: (N, d), what the prior made of the prompts.
        depth: (N, T, H, W), inverse depth as the model's network estimates it.
    """

    def __init__(self, pipeline: Gen1Pipeline, worlds: Worlds, *, batch_size: int, seed: int = 0):
        self.pipeline, self.worlds, self.batch_size, self.seed = pipeline, worlds, batch_size, seed
        self.content = self._contents()
        self.depth = self.estimate_depth(worlds.clips.source)
        self._latents = self._of_frames(self._encode, worlds.clips.source)

    def edit(self, way: Way, progress: Callable[[int, int], None] | None = None) -> EditClips:
        """The edits, (N, T, H, W, 3); T is 1 where only the first frame is edited."""
        edits, count = [], len(self.worlds)
        for indices in self.batches():
            edits.append(self._over_input(way, indices, to_uint8(self._decode(self._sample(way, indices)))))
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
        return Known(jnp.asarray(self._latents[indices]), jnp.asarray(np.concatenate(change)))

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

    def batches(self) -> Iterator[Int32[np.ndarray, " b"]]:
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

    def _contents(self) -> Float32[np.ndarray, "n d"]:
        """Drawn by the prior, whose noise belongs to the batch: by `batch_size`, however they are divided later."""
        contents = []
        for indices in _batches(len(self.worlds), min(self.batch_size, len(self.worlds))):
            key = jax.random.fold_in(jax.random.key(self.seed), int(indices[0]))
            prompts = [self.worlds.prompts[i] for i in indices]
            contents.append(np.asarray(self.pipeline.content.embed_prompts(prompts, key)))
        return np.concatenate(contents)[: len(self.worlds)]

    def _encode(self, frames: UInt8[np.ndarray, "b h w 3"]) -> Float[Array, "b i j c"]:
        return self.pipeline.vae.images_to_latents(pixels_to_images(frames))

    def _decode(self, latents: Float[Array, "*batch i j c"]) -> Float[Array, "*batch h w 3"]:
        return self.pipeline.vae.latents_to_images(latents)

    def _structure(self, way: Way, indices: np.ndarray) -> Float[Array, "b t i j c"] | None:
        config = self.pipeline.config.unet
        if not config.structures:
            return None
        if not way.sees_structure:
            return jnp.zeros(self._latents[indices].shape)
        level = jnp.full(len(indices), way.settings.structure_blur)
        quantiles = self.pipeline.config.depth_quantiles
        images = structure_images(normalise_depth(jnp.asarray(self.depth[indices]), quantiles), level)
        return self.pipeline.vae.images_to_latents(images)

    def _sample(self, way: Way, indices: np.ndarray) -> Float[Array, "b t i j c"]:
        settings = way.settings.of(self.pipeline.config)
        sampler = self.pipeline.sampler(settings)
        steps = len(sampler.tables.timesteps)
        first_step = min(round(steps * (1 - way.strength)), steps - 1)
        inputs, structure = jnp.asarray(self._latents[indices]), self._structure(way, indices)
        latents = _noise(settings.seed, jnp.asarray(indices), inputs.shape[1:])
        if first_step:
            timesteps = jnp.full(len(indices), sampler.tables.timesteps[first_step])
            latents = self.pipeline.config.schedule.add_noise(inputs, latents, timesteps)
        content, clips = jnp.asarray(self.content[indices])[:, None], len(indices)
        if way.first_frame_only:
            latents, structure = (None if x is None else x[:, :1] for x in (latents, structure))
        if way.frame_by_frame:
            frames = latents.shape[1]
            latents, structure = (
                None if x is None else rearrange(x, "b t ... -> (b t) 1 ...") for x in (latents, structure)
            )
            content = content.repeat(frames, axis=0)
        level = jnp.full(len(latents), settings.structure_blur * way.sees_structure)
        conditions = conditions_of(self.pipeline.config.unet, content, structure, level)
        guidance = Guidance.of(settings.guidance_scale, settings.temporal_guidance_scale)
        state: SamplerState = sampler.sampler.init(latents)
        known = self._known(way, indices)
        for start, stop, part in guidance_runs(guidance, steps, settings.guidance_interval):
            if stop > first_step:
                state = sampler.run(state, conditions, part, known, start=max(start, first_step), stop=stop)
        out = state.latents
        return rearrange(out, "(b n) t ... -> b (n t) ...", b=clips)


def _batches(count: int, size: int) -> Iterator[Int32[np.ndarray, " b"]]:
    """The numbers up to `count` in batches of one size, the last one filled up."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def _noise(seed: int, indices: Array, shape: tuple[int, ...]) -> Float[Array, " b *dims"]:
    """Of every clip its own, whatever the batch."""
    draw = lambda index: jax.random.normal(jax.random.fold_in(jax.random.key(seed), index), shape)
    return jax.vmap(draw)(indices)
