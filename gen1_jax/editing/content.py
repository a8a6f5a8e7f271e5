"""What an edit should look like, as the content that a model reads.

model whose content is an image    picture ─► CLIP's image tower ─┐
                                   prompt ─► text tower ─► prior ─┼─► an embedding
                                   adapter ─► its subject ────────┘
model whose content is text        prompt, negative prompt ─► chunks ─► text encoder ─► states, null states
                                   pictures ─► image encoder ─► image tokens, null tokens
model with a split                 a picture or frames of a clip ─► autoencoder ─► split ─► a token
"""

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from gen1_jax.editing.contents import ContentUse
from gen1_jax.editing.inputs import resize, resize_frames, to_picture
from gen1_jax.editing.sampling import in_32_bits
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.structures import Frames, in_chunks
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.image_tokens import null_tokens, picture_tokens
from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.prompts import encode_prompts, weighted
from gen1_jax.pretrained.subject import caption_of, embedding_of
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.pretrained.words import unknown_words

Prompt = str | None
Prompts = Sequence[str]
Pictures = Sequence[UInt8[np.ndarray, "_ _ 3"]]


@dataclasses.dataclass(frozen=True)
class ContentEncoder(ABC):
    """How content of one kind is made, a class for each of `models.content_kind`.

    Attributes:
        source: of the model.
        tokenizer: of its text tower.
        network: gives a network of the family by its name.
    """

    source: ModelSource
    tokenizer: CLIPTokenizer
    network: Callable[[str], Bound]

    @abstractmethod
    def encode(
        self, prompt: Prompt, pictures: Pictures, settings: EditSettings, negative: Prompt = None, beside: Prompts = ()
    ) -> Conditions:
        """Content, and the null content of guidance; no structure.

        Args:
            prompt: what the edit should look like.
            pictures: the same, shown.
            settings: seed, layer of the text encoder, weight of the pictures.
            negative: what it should not look like.
            beside: further prompts, as long as the longest of which tokens of text are to be.

        Raises:
            UserError: neither or too much is given, or something that the model does not take.
        """

    @abstractmethod
    def of_prompts(
        self, prompts: Prompts, seed: int, batch_size: int
    ) -> tuple[Float[np.ndarray, "n m d"], Float[np.ndarray, "1 m d"] | None]:
        """Tokens of many prompts, and those of none; None for zeros.

        Args:
            prompts: of as many edits.
            seed: of what is drawn of them.
            batch_size: how many are drawn together at most.

        Raises:
            UserError: the model reads no prompts.
        """

    @abstractmethod
    def of_frames(self, frames: Frames) -> Conditions:
        """What a clip shows itself: nothing, where no clip can show it.

        Args:
            frames: of the clip, uint8 (T, H, W, 3).
        """

    @abstractmethod
    def shown(self, clips: UInt8[np.ndarray, "n t h w 3"]) -> Float[Array, "n m d"]:
        """What clips of the model's size show.

        Raises:
            UserError: no clip can show it.
        """

    def encode_several(
        self, uses: Sequence[ContentUse], settings: EditSettings, negative: Prompt = None
    ) -> list[Conditions]:
        """Each of several contents by itself, tokens of one shape; see `encode`."""
        prompts = [use.prompt for use in uses if use.prompt is not None]
        pictures = [[] if use.image is None else [to_picture(use.image)] for use in uses]
        return [
            self.encode(use.prompt, shown, settings, negative, prompts)
            for use, shown in zip(uses, pictures, strict=True)
        ]


class ImageContent(ContentEncoder):
    """CLIP's embedding of a picture, or what the prior makes of a prompt. See `ContentEncoder`."""

    def encode(
        self, prompt: Prompt, pictures: Pictures, settings: EditSettings, negative: Prompt = None, beside: Prompts = ()
    ) -> Conditions:
        """Of a prompt or of one picture.

        An adapter of `gen1 customize` tells its subject where there is no picture: alone if there is no prompt, beside
        it otherwise, see `pretrained.subject.embedding_of`.
        """
        subjects = [] if pictures else getattr(self.source, "subjects", [])
        subject = self._check(embedding_of(subjects))
        if prompt is None and not pictures and subject is None:
            raise UserError("give either a prompt or an image")
        if prompt is not None and pictures:
            raise UserError("give either a prompt or an image, not both")
        if len(pictures) > 1:
            raise UserError(f"{self.source.name} takes one image, not {len(pictures)}")
        key = jax.random.key(in_32_bits(settings.seed))
        null = {} if not negative else {"image": self.embed_prompts([negative], key)[:, None]}
        if pictures:
            return Conditions(content={"image": self._embed_picture(pictures[0])[:, None]}, null=null)
        if prompt is not None:
            self._warn_of_unknown(prompt)
            prompted = self.embed_prompts([prompt], key)
            subject = prompted[0] if subject is None else embedding_of(subjects, np.asarray(prompted[0]))
        return Conditions(content={"image": jnp.asarray(subject)[None, None]}, null=null)

    def of_prompts(self, prompts: Prompts, seed: int, batch_size: int) -> tuple[Float[np.ndarray, "n 1 d"], None]:
        """Drawn by the prior, whose noise belongs to the batch."""
        contents = []
        for indices in filled_batches(len(prompts), min(batch_size, len(prompts))):
            key = jax.random.fold_in(jax.random.key(seed), int(indices[0]))
            contents.append(np.asarray(self.embed_prompts([prompts[i] for i in indices], key)))
        return np.concatenate(contents)[: len(prompts), None], None

    def of_frames(self, frames: Frames) -> Conditions:
        """Of the first frame."""
        return Conditions(content={"image": self._embed_picture(frames[0])[:, None]})

    def shown(self, clips: UInt8[np.ndarray, "n t h w 3"]) -> Float[Array, "n 1 d"]:
        """Of the first frames."""
        clip = self.network("clip")
        return clip.encode_image(clip.preprocess(clips[:, 0]))[:, None]

    def embed_prompts(self, prompts: Prompts, key: PRNGKeyArray) -> Float[Array, "n d"]:
        """What the prior makes of prompts: image embeddings of CLIP.

        Raises:
            UserError: the model has no prior.
        """
        config = self.source.config
        if config.prior is None:
            raise UserError(f"{self.source.name} has no prior, so it cannot take a prompt: give an image")
        for count in map(self.tokenizer.token_count, prompts):
            if count > self.tokenizer.length:
                warnings.warn(
                    f"the prompt has {count} tokens, the last of {self.tokenizer.length} are cut", stacklevel=4
                )
        ids, mask = self.tokenizer([*prompts, ""])
        embeddings, states = self.network("clip").encode_text_tokens(ids)
        told = [np.asarray(x) for x in (embeddings, states, mask)]
        text, empty = ([x[part] for x in told] for part in (slice(-1), slice(-1, None)))
        guidance, steps = np.float32(config.prior_guidance_scale), config.prior_num_inference_steps
        return self.network("prior").sample(*text, key, guidance, *empty, num_inference_steps=steps)

    def _embed_picture(self, picture: np.ndarray) -> Float[Array, "1 d"]:
        clip = self.network("clip")
        return clip.encode_image(clip.preprocess(_near(picture, clip.config.vision.image_size)[None]))

    def _check(self, subject: Float[np.ndarray, " d"] | None) -> Float[np.ndarray, " d"] | None:
        """A subject's embedding, if it is one of the model's."""
        if subject is not None and len(subject) != (width := self.source.config.unet.cross_attention_dim):
            raise UserError(f"{self.source.name} reads embeddings of {width} numbers, its subject's has {len(subject)}")
        return subject

    def _warn_of_unknown(self, prompt: str) -> None:
        if line := line_of_unknown(self.source, prompt):
            warnings.warn(line, stacklevel=5)


class TextContent(ContentEncoder):
    """The text encoder's states of a prompt, and tokens of pictures beside it. See `ContentEncoder`."""

    def encode(
        self, prompt: Prompt, pictures: Pictures, settings: EditSettings, negative: Prompt = None, beside: Prompts = ()
    ) -> Conditions:
        """Of a prompt, and of any number of pictures beside it if there is an adapter for them.

        The caption of an adapter of `gen1 customize` is the prompt, if there is no other.
        """
        if prompt is None and not pictures:
            prompt = caption_of(getattr(self.source, "subjects", ()))
        if prompt is None and not pictures:
            raise UserError("give a prompt, an image, or both")
        states = self.states([prompt or "", negative or "", *beside], settings.clip_skip)
        content, null, strength = {"text": states[:1]}, {"text": states[1:2]}, {}
        if pictures:
            if not self.source.config.unet.image_adapter:
                raise UserError(f"{self.source.name} takes no image: import it with --ip-adapter and --image-encoder")
            encoder, tokens = self.network("image_encoder"), self.network("image_tokens")
            size = encoder.config.image_size
            pixels = jnp.concatenate([encoder.preprocess(_near(picture, size)[None]) for picture in pictures])
            content["image"] = picture_tokens(encoder, tokens, pixels)
            null["image"] = null_tokens(encoder, tokens, len(pictures))
            strength["image"] = jnp.array([settings.image_scale], jnp.float32)
        return Conditions(content=content, null=null, strength=strength)

    def of_prompts(
        self, prompts: Prompts, seed: int, batch_size: int
    ) -> tuple[Float[np.ndarray, "n m d"], Float[np.ndarray, "1 m d"]]:
        """Nothing is drawn."""
        states = np.asarray(self.states([*prompts, ""]))
        return states[:-1], states[-1:]

    def of_frames(self, frames: Frames) -> Conditions:
        """Of the empty prompt."""
        return Conditions(content={"text": self.states([""])})

    def shown(self, clips: UInt8[np.ndarray, "n t h w 3"]) -> Float[Array, "n m d"]:
        """Refused."""
        raise UserError(f"{self.source.name} reads text: no clip can show it what an edit should look like")

    def states(self, prompts: Prompts, clip_skip: int = 1) -> Float[Array, "n s d"]:
        """The text encoder's states of prompts, as long as the longest of them needs; see `pretrained.prompts`."""
        ids, weights = encode_prompts(self.tokenizer, prompts)
        states = self.network("text").states(ids.reshape(-1, ids.shape[-1]), clip_skip=clip_skip)
        return weighted(states.reshape(*ids.shape, -1), jnp.asarray(weights))


class SplitContent(ContentEncoder):
    """What a split makes of a picture, or of all frames of a clip. See `ContentEncoder`."""

    def encode(
        self, prompt: Prompt, pictures: Pictures, settings: EditSettings, negative: Prompt = None, beside: Prompts = ()
    ) -> Conditions:
        """Of pictures, as frames of one clip."""
        if prompt is not None or negative:
            raise self._reads_no_text()
        if not pictures:
            raise UserError("give an image: a picture or a clip")
        frames = resize_frames(pictures, self.source.config.working_size(*pictures[0].shape[:2]))
        return self.of_frames(frames)

    def of_prompts(self, prompts: Prompts, seed: int, batch_size: int) -> NoReturn:
        """Refused."""
        raise self._reads_no_text()

    def of_frames(self, frames: Frames) -> Conditions:
        """Of all frames."""
        return Conditions(content={"split": self.shown(frames[None])})

    def shown(self, clips: UInt8[np.ndarray, "n t h w 3"]) -> Float[Array, "n 1 d"]:
        """Of all frames of each clip."""
        vae = self.network("vae")
        encode = lambda chunk: vae.images_to_latents(pixels_to_images(chunk))
        latents = np.concatenate([*in_chunks(encode, clips.reshape(-1, *clips.shape[2:]), None)])
        return self.network("split").content(jnp.asarray(latents.reshape(*clips.shape[:2], *latents.shape[1:])))

    def _reads_no_text(self) -> UserError:
        return UserError(f"{self.source.name} reads no text, its content is learned: show it a picture or a clip")


ENCODERS: dict[str, type[ContentEncoder]] = {"image": ImageContent, "text": TextContent, "split": SplitContent}
"""By the name of the kind of content."""


def filled_batches(count: int, size: int) -> Iterator[Int[np.ndarray, " b"]]:
    """The numbers up to `count` in batches of one size, the last one filled up."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def _near(picture: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "i j 3"]:
    """A picture brought near the size that an encoder sees, so that one compilation serves most."""
    scale = size / min(picture.shape[:2])
    return resize(picture, tuple(max(size, round(side * scale)) for side in picture.shape[:2]))


def line_of_unknown(source: ModelSource, *prompts: str) -> str | None:
    """What there is to tell of words in prompts that a model has never seen, or None."""
    unknown = unknown_words(" ".join(prompts), getattr(source, "words", None))
    if not unknown:
        return None
    return (
        f"{source.name} has never seen {_quoted(unknown)}, so the edit may show anything; gen1 info "
        f"--model {source.name} --words lists what it knows"
    )


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)
