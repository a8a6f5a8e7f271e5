"""From frames and a prompt (or a picture) to edited frames.

    frames ──depth──► normalise ──► blur t_s ──encode──► structure ─┐
    prompt ──text tower──► prior ─┐                                 ├─► guided sampler ─► latents ──decode──► frames
    picture ──image tower─────────┴──► content ─────────────────────┘

All networks see pictures of about the model's own size; the result has the size and number of frames of the input.
Frames go through depth, encoder and decoder in chunks of one shape, so neither memory nor compilations grow with T.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, UInt8
from PIL import Image

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.diffusion import Guidance, get_sampler
from gen1_jax.editing.inputs import Clip, Picture, to_frames, to_picture
from gen1_jax.editing.sampling import GuidedSampler, Watch, in_32_bits
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, cast_kernels
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, StructureKind, blur_depth
from gen1_jax.models.unet import conditions_of
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import UNET_RULES, Layout
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.words import unknown_words

Frames = UInt8[np.ndarray, "t h w 3"]
Progress = Callable[[str, int, int], None]
"""Called with the stage ("depth", "structure", "compiling", "sampling", "decoding"), units done and units in all."""

_blur = jax.jit(blur_depth)
_OWN = ("guidance_scale", "num_inference_steps")  # settings that a model has defaults of its own for
_CHUNK = 8  # frames that depth, encoder and decoder see at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSettings:
    """The numbers of an edit.

    Attributes:
        structure_blur: t_s, 0 to 7: how much detail of the structure is given up.
        guidance_scale: w, how strongly the content is followed; None for the model's own.
        temporal_guidance_scale: w_t; above 1 smoother in time, below 1 more hand-drawn.
        num_inference_steps: steps of the sampler; None for the model's own.
        seed: of all randomness.
        sampler: "ddim" or "dpm++".
    """

    structure_blur: int = 0
    guidance_scale: float | None = None
    temporal_guidance_scale: float = 1.0
    num_inference_steps: int | None = None
    seed: int = 0
    sampler: str = "ddim"

    def __post_init__(self):
        if not 0 <= self.structure_blur <= MAX_STRUCTURE_LEVEL:
            raise UserError(f"structure_blur must be 0 to {MAX_STRUCTURE_LEVEL}, got {self.structure_blur}")
        for name in ("guidance_scale", "temporal_guidance_scale"):
            value = getattr(self, name)
            if value is not None and (not np.isfinite(value) or abs(value) > 1000):
                raise UserError(f"{name} must be a number from -1000 to 1000, got {value}")
        if self.num_inference_steps is not None and not 1 <= self.num_inference_steps <= 1000:
            raise UserError(f"num_inference_steps must be 1 to 1000, got {self.num_inference_steps}")
        if self.seed < 0:
            raise UserError(f"seed must not be negative, got {self.seed}")
        get_sampler(self.sampler)

    def of(self, config: Gen1Config) -> "EditSettings":
        """The same with the model's own numbers where None was given."""
        own = {name: getattr(config, name) for name in _OWN if getattr(self, name) is None}
        return dataclasses.replace(self, **own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditResult:
    """An edited clip.

    Attributes:
        frames: the edit, of the size and number of the input.
        structure: what the model saw of the input: blurred depth, near is bright, at the model's size.
    """

    frames: Frames
    structure: UInt8[np.ndarray, "t i j"]


class Gen1Pipeline:
    """A model ready to edit. Networks are loaded when they are first needed.

    Args:
        source: configuration, weights and tokenizer.
        dtype: of the computation; by default what `parallel.hardware.default_dtype` says. Matrices are kept in it.
        mesh: devices over which the sampler divides a clip (`context`), its branches (`data`) and the U-Net's layers
            (`tensor`); None for one device.

    Attributes:
        config: the family's configuration.
        unet, vae, clip, depth, prior: the networks; `prior` is None if the model has none.
    """

    def __init__(self, source: ModelSource, dtype: DTypeLike | None = None, mesh: MeshConfig | None = None):
        self.source, self.config = source, source.config
        self.dtype = jnp.dtype(dtype or default_dtype())
        self._layout = None if mesh is None else Layout(make_mesh(mesh))
        self._samplers: dict[str, GuidedSampler] = {}
        if source.warning:
            warnings.warn(source.warning, stacklevel=3)
        if self.config.caution:
            warnings.warn(f"{source.name}: {self.config.caution}", stacklevel=3)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, dtype: DTypeLike | None = None, mesh: MeshConfig | None = None
    ) -> "Gen1Pipeline":
        """The model that ships ("nano"), a model folder, or a training workdir (the EMA of its last checkpoint).

        Raises:
            FolderError, LayoutError: see `pretrained.folder.ModelFolder`.
        """
        return cls(open_trained(name_or_folder), dtype, mesh)

    @cached_property
    def unet(self) -> Bound:
        """`SpaceTimeUNet`: (latents, timesteps, content, structure, structure_level) -> prediction."""
        unet = self._load("unet")
        if self._layout is not None:
            unet.params = self._layout.put(unet.params, self._layout.gathered(unet.params, UNET_RULES))
        return unet

    @cached_property
    def vae(self) -> Bound:
        """`AutoencoderKL`."""
        return self._load("vae")

    @cached_property
    def clip(self) -> Bound:
        """`CLIPModel`."""
        return self._load("clip")

    @cached_property
    def depth(self) -> Bound:
        """`DPTDepth`."""
        return self._load("depth")

    @cached_property
    def prior(self) -> Bound | None:
        """`PriorTransformer`, or None."""
        return self._load("prior") if self.config.prior is not None else None

    def _load(self, component: str) -> Bound:
        module = self.config.build(component, self.dtype)
        return Bound(module, jax.device_put(cast_kernels(self.source.parameters(component), self.dtype)))

    @cached_property
    def tokenizer(self):
        """The tokenizer of the text tower."""
        return self.source.tokenizer()

    def edit(
        self,
        frames: Clip,
        prompt: str | Sequence[str] | None = None,
        image: Picture | None = None,
        structure_blur: int = 0,
        guidance_scale: float | None = None,
        temporal_guidance_scale: float = 1.0,
        num_inference_steps: int | None = None,
        seed: int = 0,
        sampler: str = "ddim",
        progress: Progress | None = None,
    ) -> EditResult | list[EditResult]:
        """Keep the structure of a clip and give it the content of a prompt or of a picture.

        Args:
            frames: uint8 RGB (T, H, W, 3), any size and number; or a list of arrays (H, W, 3) or pictures of PIL; or
                the path of a video, a folder of pictures or a picture. One frame is an image.
            prompt: what the result should look like, or a list of such; needs a model with a prior.
            image: a picture (H, W, 3), one of PIL, or the path of one, instead of a prompt.
            structure_blur: t_s, 0 to 7.
            guidance_scale: w, by default the model's own: 7.5 at full size.
            temporal_guidance_scale: w_t.
            num_inference_steps: steps of the sampler, by default the model's own: 50 at full size.
            seed: of all randomness.
            sampler: "ddim" or "dpm++".
            progress: called with (stage, done, total).

        Returns:
            The edited frames, of the shape of the input, and the structure that was seen; a list of such for a list of
            prompts, each of the same seed.

        Raises:
            ValueError: not exactly one of prompt and image, no frames, or a setting out of range.
        """
        settings = EditSettings(
            structure_blur=structure_blur,
            guidance_scale=guidance_scale,
            temporal_guidance_scale=temporal_guidance_scale,
            num_inference_steps=num_inference_steps,
            seed=seed,
            sampler=sampler,
        )
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise UserError("prompt is an empty list: say what the result should look like")
        picture, clip = None if image is None else to_picture(image), to_frames(frames)
        contents = [self.encode_content(text, picture, seed) for text in prompts]
        size = clip.shape[1:3]
        small = np.stack([resize(frame, self.config.working_size(*size)) for frame in clip])
        structure = self.structure(small, structure_blur, progress)
        results = []
        for content in contents:
            latents = self.sample(content, structure, settings, progress)
            edited = [resize(frame, size) for frame in self.decode(latents, progress)]
            results.append(EditResult(frames=np.stack(edited), structure=to_uint8(structure)))
        return results[0] if prompt is None or isinstance(prompt, str) else results

    def encode_content(
        self, prompt: str | None, image: UInt8[np.ndarray, "h w 3"] | None, seed: int
    ) -> Float[Array, "1 1 d"]:
        """Content tokens of a prompt (through the prior) or of a picture.

        Raises:
            ValueError: not exactly one of the two, or a prompt for a model without a prior.
        """
        if (prompt is None) == (image is None):
            raise UserError("give either a prompt or an image" + ("" if prompt is None else ", not both"))
        if image is not None:
            return self._encode_picture(image)[:, None]
        if unknown := unknown_words(prompt, getattr(self.source, "words", None)):
            warnings.warn(
                f"{self.source.name} has never seen {_quoted(unknown)}, so the edit may show anything; gen1 info "
                f"--model {self.source.name} --words lists what it knows",
                stacklevel=4,
            )
        return self.encode_prompts([prompt], jax.random.key(in_32_bits(seed)))[:, None]

    def encode_prompts(self, prompts: Sequence[str], key: PRNGKeyArray) -> Float[Array, "n d"]:
        """What the prior makes of prompts: image embeddings of CLIP.

        Raises:
            ValueError: the model has no prior.
        """
        if self.prior is None:
            raise UserError(f"{self.source.name} has no prior, so it cannot take a prompt: give an image")
        for count in map(self.tokenizer.token_count, prompts):
            if count > self.tokenizer.length:
                warnings.warn(
                    f"the prompt has {count} tokens, the last of {self.tokenizer.length} are cut", stacklevel=4
                )
        ids, mask = self.tokenizer([*prompts, ""])
        embeddings, states = self.clip.encode_text_tokens(ids)
        text, empty = ([x[part] for x in (embeddings, states, mask)] for part in (slice(-1), slice(-1, None)))
        guidance, steps = jnp.float32(self.config.prior_guidance_scale), self.config.prior_num_inference_steps
        return self.prior.sample(*text, key, guidance, *empty, num_inference_steps=steps)

    def _encode_picture(self, image: np.ndarray) -> Float[Array, "1 d"]:
        """CLIP embedding of one picture, brought near the size that CLIP sees so that one compilation serves most."""
        size = self.config.clip.vision.image_size
        scale = size / min(image.shape[:2])
        height, width = (max(size, round(side * scale)) for side in image.shape[:2])
        pixels = self.clip.preprocess(resize(image, (height, width))[None])
        return self.clip.encode_image(pixels)

    def structure(
        self, frames: Frames, structure_blur: int, progress: Progress | None = None
    ) -> Float[np.ndarray, "t h w"]:
        """The structure of frames of the model's size: blurred depth in [-1, 1], near is 1."""
        return self.blur_structure(self.estimate_depth(frames, progress), structure_blur)

    def estimate_depth(self, frames: Frames, progress: Progress | None = None) -> Float[np.ndarray, "t h w"]:
        """Depth of frames of the model's size, normalised over the clip to [-1, 1], near is 1."""
        return self.estimate_structure(self.config.structure_kind("depth"), frames, progress)[..., 0]

    def estimate_structure(
        self, kind: StructureKind, frames: Frames, progress: Progress | None = None
    ) -> Float[np.ndarray, "t h w k"]:
        """Maps of one kind of frames of the model's size, normalised over the clip to [-1, 1].

        Raises:
            ValueError: the model lacks the network that estimates them.
        """
        if kind.part is not None and kind.part not in self.config.parts:
            raise UserError(f"{self.source.name} has no {kind.part} network to estimate {kind.name} with")
        networks = {} if kind.part is None else {kind.part: getattr(self, kind.part)}
        estimate = lambda chunk: kind.estimate(chunk, networks)
        maps = np.concatenate(list(_in_chunks(estimate, frames, _reporter(progress, kind.name))))
        return np.asarray(kind.normalise(jnp.asarray(maps)))

    def blur_structure(self, depth: Float[np.ndarray, "t h w"], structure_blur: int) -> Float[np.ndarray, "t h w"]:
        """Normalised depth, t_s times blurred."""
        blur = lambda chunk: _blur(jnp.asarray(chunk)[None], jnp.array([structure_blur]))[0]
        return np.concatenate(list(_in_chunks(blur, depth, None)))

    def encode_structure(
        self, structure: Float[np.ndarray, "t h w"], progress: Progress | None = None
    ) -> Float[Array, "1 t i j c"]:
        """Latents of blurred depth as the autoencoder sees it."""
        maps = lambda chunk: jnp.asarray(chunk)[None, ..., None]
        encode = lambda chunk: self.config.structure_kind("depth").encode(maps(chunk), self.vae.images_to_latents)[0]
        latents = _in_chunks(encode, structure, _reporter(progress, "structure"))
        return jnp.asarray(np.concatenate(list(latents))[None])

    def sample(
        self,
        content: Float[Array, "1 n d"],
        structure: Float[np.ndarray, "t h w"],
        settings: EditSettings,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Float[Array, "1 t i j c"]:
        """Latents of the edit; `watch` is called after each step with those that are still under way."""
        settings = settings.of(self.config)
        frames, height, width = structure.shape
        scale, channels = self.config.vae.downscale, self.config.unet.latent_channels
        encoded = self.encode_structure(structure, progress) if self.config.unet.structures else None
        conditions = conditions_of(self.config.unet, content, encoded, jnp.array([settings.structure_blur]))
        guidance = Guidance.of(settings.guidance_scale, settings.temporal_guidance_scale)
        sampler = self.sampler(settings.sampler, settings.num_inference_steps)
        shape = (1, frames, height // scale, width // scale, channels)
        report = None if progress is None else _sampling(progress, compiles=sampler.compiles(shape, guidance))
        return sampler(shape, settings.seed, conditions, guidance, report, watch)

    def sampler(self, name: str, num_inference_steps: int) -> GuidedSampler:
        """The sampler of that name; what it compiles serves every number of steps."""
        if name not in self._samplers:
            self._samplers[name] = GuidedSampler(
                self.unet,
                self.config.schedule,
                get_sampler(name),
                num_inference_steps,
                window=self.config.num_frames,
                overlap=self.config.window_overlap,
                partition=None if self._layout is None else self._layout.activations(),
            )
        return self._samplers[name].with_steps(num_inference_steps)

    def decode(
        self, latents: Float[Array, "1 t h w c"], progress: Progress | None = None
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The frames of latents, one by one."""
        chunks = _in_chunks(self.vae.latents_to_images, latents[0], _reporter(progress, "decoding"))
        for chunk in chunks:
            yield from to_uint8(chunk)


def to_uint8(images: Float[Array, "*shape"] | Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """[-1, 1] to 0 ... 255, rounded and clipped."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def resize(
    picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> UInt8[np.ndarray, "i j 3"]:
    """A picture at (height, width), antialiased; of a part of it only if there is a box (left, top, right, bottom)."""
    height, width, _ = picture.shape
    if (height, width) == tuple(size) and (box is None or tuple(box) == (0, 0, width, height)):
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box))


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _reporter(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, stage)


def _sampling(progress: Progress, *, compiles: bool) -> Callable[[int, int], None]:
    """Reports steps of the sampler; the first compiles, which is a stage of its own."""
    if compiles:
        progress("compiling", 0, 1)

    def report(done: int, total: int) -> None:
        if compiles and done == 1:
            progress("compiling", 1, 1)
        progress("sampling", done, total)

    return report


def _in_chunks(function, array, report: Callable[[int, int], None] | None) -> Iterator[np.ndarray]:
    """function over chunks of the first axis, all of one shape so that it compiles once; results on the host."""
    total = len(array)
    size = min(total, _CHUNK)
    for start in range(0, total, size):
        chunk = array[start : start + size]
        missing = size - len(chunk)
        padded = np.pad(chunk, [(0, missing)] + [(0, 0)] * (chunk.ndim - 1), mode="edge") if missing else chunk
        yield np.asarray(function(padded))[: len(chunk)]
        if report is not None:
            report(min(start + size, total), total)
