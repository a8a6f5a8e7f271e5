"""What edits of many clips are told: a way of editing, and what is read of the clips, once, in batches."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int, UInt8

from gen1_jax.editing.content import filled_batches
from gen1_jax.editing.contents import joined
from gen1_jax.editing.masks import MaskClip
from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EMBEDDINGS, EditSettings
from gen1_jax.editing.structures import to_uint8
from gen1_jax.errors import UserError
from gen1_jax.evaluation.kinds import estimate_kind, exact_kind
from gen1_jax.evaluation.worlds import EditClips, Worlds
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import picture_encoder, told_level


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


class EditInputs:
    """What edits of some worlds are told: content, and depth, other structures and latents of the inputs, read once.

    Args:
        pipeline: the model.
        worlds: what is edited, at a size that the model takes as it is.
        batch_size: clips at once at most; they are divided as evenly as can be, see `batches`.
        seed: of the prior.
        content: (d,), of all edits, instead of what the model makes of the prompts.

    Attributes:
        content: (N, n, d), what the edits are told: what the prior makes of the prompts, or the text encoder's states.
        beside: further contents of as many clips, by `way.settings.blend`; all count alike.
        null: (1, n, d), what says nothing; None for zeros.
        depth: (N, T, H, W), inverse depth as the model's network estimates it.
        latents: (N, T, h, w, c), of the inputs.
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
        self.pipeline, self.batch_size, self.seed = pipeline, batch_size, seed
        self.worlds = worlds
        self.content, self.null = (
            self.told_contents() if content is None else (np.tile(content, (len(worlds), 1, 1)), None)
        )
        self.beside: Sequence[np.ndarray] = ()
        self._read(worlds)

    def _read(self, worlds: Any) -> None:
        self.__dict__.pop("source_content", None)
        self.worlds = worlds
        self.depth = self.estimate_depth(worlds.clips.source)
        self.latents = self._of_frames(self._encode, worlds.clips.source)
        self._found: dict[str, np.ndarray] = {}

    @contextlib.contextmanager
    def telling(self, *contents: Float32[np.ndarray, "n m d"]) -> Iterator[None]:
        """Other contents of all clips, for as long as that lasts."""
        before = self.content, self.beside
        self.content, *self.beside = contents
        try:
            yield
        finally:
            self.content, self.beside = before

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
        return filled_batches(count, -(-count // -(-count // self.batch_size)))

    def _of_frames(self, function: Callable[[np.ndarray], Any], clips: np.ndarray) -> np.ndarray:
        """A function of pictures over the frames of all clips, a batch of clips at a time."""
        outputs = []
        for indices in self.batches():
            frames = function(rearrange(clips[indices], "b t ... -> (b t) ..."))
            outputs.append(rearrange(np.asarray(frames), "(b t) ... -> b t ...", b=len(indices)))
        return np.concatenate(outputs)[: len(clips)]

    def told_contents(self) -> tuple[Float32[np.ndarray, "n m d"], Float32[np.ndarray, "1 m d"] | None]:
        """What edits are told where nothing else is said, and what says nothing, None for zeros: of the prompts.

        Drawn by the prior, whose noise belongs to the batch: by `batch_size`, however they are divided later.
        """
        return self.pipeline.content.of_prompts(self.worlds.prompts, self.seed, self.batch_size)

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
                encoded = kind.encode(maps, picture_encoder(kind, self.pipeline.network))
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
        told = [
            Conditions(content={reads: jnp.asarray(content[indices])}, null=null)
            for content in (self.content, *self.beside)
        ]
        shares = np.full((len(indices), 1, len(told)), 1 / len(told), np.float32)
        one = joined(told, shares, as_embeddings=way.settings.blend == EMBEDDINGS) if self.beside else told[0]
        return dataclasses.replace(one.over(self.latents.shape[1]), structure=self._structure(way, indices))

    @cached_property
    def source_content(self) -> Float32[np.ndarray, "n m d"]:
        """What the inputs show, as content, see `shown`; of text, which they lack, nothing."""
        if self.null is not None:
            return np.repeat(self.null, len(self.worlds), axis=0)
        return self.shown(self.worlds.clips.source)

    def shown(self, clips: EditClips) -> Float32[np.ndarray, "n m d"]:
        """What clips show, as content, see `ContentEncoder.shown`."""
        tokens = [np.asarray(self.pipeline.content.shown(clips[indices])) for indices in self.batches()]
        return np.concatenate(tokens)[: len(clips)]

    def told_input(self, told: Conditions, indices: Int[np.ndarray, " b"]) -> Conditions:
        """The same, told what the inputs show."""
        shown = jnp.asarray(self.source_content[indices])
        return dataclasses.replace(told, content=dict.fromkeys(told.content, shown), beside=(), shares=None)
