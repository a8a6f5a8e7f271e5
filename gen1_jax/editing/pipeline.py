"""From frames and a prompt (or a picture) to edited frames.

    frames ──► structures: maps of depth, edges, ... ──► signals ─┐
    prompt, pictures ──► content: tokens, null tokens ────────────┴─► guided sampler ─► latents ──decode──► frames

All networks see pictures of about the model's own size; the result has the size and number of frames of the input.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.diffusion import NoiseSchedule, Sampler, get_sampler
from gen1_jax.editing.calling import call_pipeline
from gen1_jax.editing.carrying import carried, carries, carrying
from gen1_jax.editing.clip_edit import edit_clip
from gen1_jax.editing.content import ENCODERS, ContentEncoder, Pictures
from gen1_jax.editing.contents import ANY_SOUND, ContentUse, joined, shares_of
from gen1_jax.editing.enlarging import tile_of
from gen1_jax.editing.keyframes import sample_keyframes_first
from gen1_jax.editing.known import KnownLatents
from gen1_jax.editing.masks import MaskClip, latent_change
from gen1_jax.editing.motion import Motion, estimated_motion
from gen1_jax.editing.networks import LoadedNetworks, dtype_of
from gen1_jax.editing.progress import sampling_reporter
from gen1_jax.editing.sampling import GuidedSampler, Known, Watch
from gen1_jax.editing.settings import EMBEDDINGS, EditSettings
from gen1_jax.editing.structures import (
    Frames,
    Maps,
    Progress,
    StructureReader,
    in_chunks,
    picture_of_maps,
    reporter,
    to_uint8,
)
from gen1_jax.editing.upscale_clip import upscale_clip
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.content_kind import CONTENT_KINDS
from gen1_jax.models.denoiser_config import KNOWN
from gen1_jax.models.denoiser_inputs import known_signal
from gen1_jax.models.module import Bound
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import Layout
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.lora import with_loras

_OF_CONTENT = ("image_encoder", "image_tokens", *itertools.chain(*(kind.networks for kind in CONTENT_KINDS.values())))


@lru_cache(maxsize=32)
def _sampler(module: nnx.Module, schedule: NoiseSchedule, solver: Sampler, **how: Any) -> GuidedSampler:
    """Without weights; what it compiles serves all pipelines of a family."""
    return GuidedSampler(Bound(module, None), schedule, solver, 1, **how)


class Gen1Pipeline:
    """A model ready to edit. Networks are loaded when they are first needed.

    Args:
        source: configuration, weights and tokenizer.
        dtype: of the computation; by default what `parallel.hardware.default_dtype` says. Matrices are kept in it.
        mesh: devices over which the sampler divides a clip (`context`), its branches (`data`) and the U-Net's layers
            (`tensor`); None for one device.
        low_memory: let every network go when an edit is done with it, and load it again for the next.

    Attributes:
        config: the family's configuration.
        networks: those that are loaded.
        unet, vae, clip, depth, prior: the networks; `prior` is None if the model has none.
    """

    def __init__(
        self,
        source: ModelSource,
        dtype: DTypeLike | None = None,
        mesh: MeshConfig | None = None,
        *,
        low_memory: bool = False,
    ):
        self.source, self.config = source, source.config
        self._layout = None if mesh is None else Layout(make_mesh(mesh))
        dtype = dtype_of(default_dtype() if dtype is None else dtype)
        self.networks = LoadedNetworks(source, dtype, self._layout, low_memory=low_memory)
        self._samplers: dict[tuple[str, bool], GuidedSampler] = {}
        self.structures = StructureReader(self.config, source.name, self.network)
        if source.warning:
            warnings.warn(source.warning, stacklevel=3)
        if self.config.caution:
            warnings.warn(f"{source.name}: {self.config.caution}", stacklevel=3)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        dtype: DTypeLike | None = None,
        mesh: MeshConfig | None = None,
        *,
        low_memory: bool = False,
        loras: Sequence[tuple[str | Path, float]] = (),
    ) -> "Gen1Pipeline":
        """The model that ships ("nano"), a model folder, or a training workdir (the EMA of its last checkpoint).

        Args:
            name_or_folder: of the model.
            dtype, mesh, low_memory: see the class.
            loras: LoRA files and their strengths, merged into it.

        Raises:
            FolderError, LayoutError: see `pretrained.folder.ModelFolder`.
        """
        return cls(with_loras(open_trained(name_or_folder), loras), dtype, mesh, low_memory=low_memory)

    def network(self, name: str) -> Bound:
        """A network of the family, loaded when it is first asked for."""
        return self.networks[name]

    @property
    def dtype(self) -> np.dtype:
        """Of the computation."""
        return self.networks.dtype

    def to(self, dtype: DTypeLike | str) -> "Gen1Pipeline":
        """Itself, computing in another type from now on ("bf16", "float32", jnp.float16), of weights read again.

        Raises:
            UserError: it is none of bfloat16, float16 and float32.
        """
        if (wanted := dtype_of(dtype)) != self.dtype:
            self.networks = self.networks.at(wanted)
            self._samplers.clear()
        return self

    @property
    def unet(self) -> Bound:
        """`SpaceTimeUNet`: (latents, timesteps, content, structure, structure_level) -> prediction."""
        return self.network("unet")

    @property
    def vae(self) -> Bound:
        """`AutoencoderKL`."""
        return self.network("vae")

    @property
    def clip(self) -> Bound:
        """`CLIPModel`."""
        return self.network("clip")

    @property
    def depth(self) -> Bound:
        """`DPTDepth`."""
        return self.network("depth")

    @property
    def prior(self) -> Bound | None:
        """`PriorTransformer`, or None."""
        return self.network("prior") if self.config.prior is not None else None

    @cached_property
    def tokenizer(self):
        """The tokenizer of the text tower."""
        return self.source.tokenizer()

    @cached_property
    def content(self) -> ContentEncoder:
        """Prompts and pictures as content."""
        return ENCODERS[self.config.unet.content_kind](self.source, self.tokenizer, self.network)

    edit = edit_clip
    upscale = upscale_clip
    __call__ = call_pipeline

    def encode_content(
        self,
        prompt: str | None,
        pictures: Pictures,
        settings: EditSettings,
        negative_prompt: str | None = None,
    ) -> Conditions:
        """Content and null content; see `ContentEncoder.encode`."""
        told = self.content.encode(prompt, pictures, settings, negative_prompt)
        self.networks.let_go(*_OF_CONTENT)
        return told

    def encode_contents(
        self,
        uses: Sequence[ContentUse],
        settings: EditSettings,
        negative_prompt: str | None = None,
    ) -> Conditions:
        """Several contents as one, see `contents.joined`; those that follow the sound are to be told of it."""
        shares = shares_of(uses, ANY_SOUND)
        told = self.content.encode_several(uses, settings, negative_prompt)
        self.networks.let_go(*_OF_CONTENT)
        return joined(told, shares, as_embeddings=settings.blend == EMBEDDINGS)

    def content_of(self, frames: Frames) -> Conditions:
        """What a clip shows itself; see `ContentEncoder.of_frames`."""
        told = self.content.of_frames(frames)
        self.networks.let_go(*_OF_CONTENT)
        return told

    def read_structure(
        self,
        frames: Frames,
        settings: EditSettings,
        ready: Maps | None = None,
        progress: Progress | None = None,
        estimated: Maps | None = None,
    ) -> Maps:
        """Degraded maps of frames of the model's size, by kind; see `StructureReader.read`."""
        maps = self.structures.read(frames, settings, ready or {}, progress, estimated)
        self.networks.let_go("depth", "softedge")
        return maps

    def encode_structure(
        self, maps: Maps, settings: EditSettings, progress: Progress | None = None
    ) -> dict[str, Signal]:
        """What the denoiser is told of maps; see `StructureReader.encode`."""
        timesteps = self.sampler(settings).tables.timesteps
        return self.structures.encode(maps, settings, timesteps, progress)

    def pictures_of(self, maps: Maps) -> dict[str, UInt8[np.ndarray, "t i j 3"]]:
        """Maps as pictures, by kind."""
        return {name: picture_of_maps(self.config.structure_kind(name), x) for name, x in maps.items()}

    def sample(
        self,
        content: Conditions,
        maps: Maps,
        settings: EditSettings,
        progress: Progress | None = None,
        watch: Watch | None = None,
        *,
        frames: Frames,
        mask: MaskClip | None = None,
        known: Float[Array, "1 t i j c"] | None = None,
        given: KnownLatents | None = None,
        carry: bool = True,
    ) -> Float[Array, "1 t i j c"]:
        """Latents of the edit.

        Args:
            content: from `encode_content`.
            maps: from `read_structure`.
            settings: of the edit.
            progress: called with the stage, units done, units in all.
            watch: called after each step with the latents that are still under way.
            frames: of the input, of the model's size; with a strength below 1 the sampling begins with them.
            mask: what may change; None is all of it.
            known: latents of what may not; None for those of the input.
            given: what is known of the result, see `editing.known`.
            carry: whether the sampling may begin with frames that are known, see `editing.carrying`.
        """
        settings, content = settings.of(self.config), content.over(len(frames))
        scale, size = self.config.vae.downscale, frames.shape[1:3]
        masked = mask is not None and not mask.is_everywhere(1)
        begins_with_input = settings.strength < 1 or settings.inverted_noise
        start = self.encode_frames(frames) if begins_with_input or (masked and known is None) else None
        change = latent_change(mask.at(size), scale) if masked else None
        kept = None if change is None else Known(start if known is None else known, change)
        kept = kept if given is None else given.kept(kept)
        told = None if kept is None else KnownLatents.of(kept)
        if settings.keyframe_stride > 1:
            return sample_keyframes_first(self, content, maps, settings, progress, frames=frames, given=told)
        whole = given.whole if carry and given is not None else []
        if carries(whole, len(frames), self.config.num_frames, settings):
            settings = carrying(settings)
            pictures = dict(zip(whole, [*self.decode(given.latents[:, whole])], strict=True))
            start = self.encode_frames(carried(pictures, frames))
        signals = self.encode_structure(maps, settings, progress)
        if told is not None and self.config.unet.known:
            signals[KNOWN] = known_signal(*told)
        conditions = dataclasses.replace(content, structure=signals)
        guidance = settings.guidance(self.config.unet)
        sampler = self.sampler(settings)
        shape = (1, len(frames), *self.latent_size(frames))
        interval = settings.guidance_interval
        motion = self._motion(frames, settings, sampler.tables.timesteps)
        own = dict(masked=kept is not None, moved=motion is not None)
        compiling = sampler.compiles(shape, guidance, interval=interval, **own)
        report = None if progress is None else sampling_reporter(progress, compiling)
        noise = self._inverted(sampler, frames, start, signals, progress) if settings.inverted_noise else None
        start = start if settings.strength < 1 else None
        more = dict(latents=start, known=kept, interval=interval, shared_noise=settings.shared_noise)
        more |= dict(noise=noise, motion=motion)
        latents = sampler(shape, settings.seed, conditions, guidance, report, watch, **more)
        self.networks.let_go("unet")
        return latents if given is None else given.on(latents)

    def _inverted(
        self,
        sampler: GuidedSampler,
        frames: Frames,
        latents: Float[Array, "1 t i j c"],
        signals: dict[str, Signal],
        progress: Progress | None,
    ) -> Float[Array, "1 t i j c"]:
        """The noise that leads to the input, told what it shows and its structures, see `GuidedSampler.inverted`."""
        told = dataclasses.replace(self.content_of(frames), structure=signals)
        return sampler.inverted(latents, told, reporter(progress, "inverting"))

    def _motion(self, frames: Frames, settings: EditSettings, timesteps: np.ndarray) -> Motion | None:
        """Along which x_0 is propagated; None where it is not, or nothing can move.

        Raises:
            UserError: a step that the run does not have.
        """
        steps = settings.propagated_steps
        if steps and steps[-1] > len(timesteps):
            raise UserError(f"propagate names step {steps[-1]} of {len(timesteps)}")
        if not steps or len(frames) == 1:
            return None
        chosen = np.asarray([timesteps[step - 1] for step in steps], np.int32)
        return Motion(*estimated_motion(frames, self.config.vae.downscale), chosen)

    def latent_size(self, frames: Any) -> tuple[int, int, int]:
        """(h, w, c) of the latents of frames of the model's size, by their shape."""
        _, height, width, _ = frames.shape
        return height // self.config.vae.downscale, width // self.config.vae.downscale, self.config.unet.latent_channels

    def sampler(self, settings: EditSettings) -> GuidedSampler:
        """The sampler of settings; what it compiles serves every number of steps and every strength.

        Raises:
            ValueError: a strength that leaves no step.
        """
        settings = settings.of(self.config)
        key, unet = (settings.sampler, settings.shift_windows), self.unet
        if key not in self._samplers:
            shared = _sampler(
                unet.module,
                self.config.schedule,
                get_sampler(settings.sampler, self.config.schedule),
                window=self.config.num_frames,
                overlap=self.config.window_overlap,
                partition=None if self._layout is None else self._layout.activations(),
                shift=settings.shift_windows,
                tile=tile_of(self.config),
            )
            self._samplers[key] = shared.with_weights(unet)
        sampler = self._samplers[key].with_steps(settings.num_inference_steps, settings.strength)
        return sampler.with_deep_cache(settings.deep_cache)

    def encode_frames(self, frames: Frames) -> Float[Array, "1 t i j c"]:
        """Latents of frames of the model's size."""
        encode = lambda chunk: self.vae.images_to_latents(pixels_to_images(chunk))
        return jnp.asarray(np.concatenate(list(in_chunks(encode, frames, None)))[None])

    def decode(
        self, latents: Float[Array, "1 t h w c"], progress: Progress | None = None
    ) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The frames of latents, one by one."""
        for chunk in in_chunks(self.vae.latents_to_images, latents[0], reporter(progress, "decoding")):
            yield from to_uint8(chunk)
        self.networks.let_go("vae")
