"""From frames and a prompt (or a picture) to edited frames.

    frames ──► structures: maps of depth, edges, ... ──► signals ─┐
    prompt, pictures ──► content: tokens, null tokens ────────────┴─► guided sampler ─► latents ──decode──► frames

All networks see pictures of about the model's own size; the result has the size and number of frames of the input.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.diffusion import get_sampler
from gen1_jax.editing.content import ContentEncoder, Pictures
from gen1_jax.editing.inputs import Clip, Picture, resize, to_frames, to_pictures
from gen1_jax.editing.keyframes import sample_keyframes_first
from gen1_jax.editing.known import KnownFrames, KnownLatents, read_known
from gen1_jax.editing.maps import ClipGeometry, ready_maps
from gen1_jax.editing.masks import GivenMask, MaskClip, latent_change, read_mask
from gen1_jax.editing.masks.regions import composited_regions, contents_of, regions_of, sample_regions
from gen1_jax.editing.progress import sampling_reporter
from gen1_jax.editing.result import EditResult
from gen1_jax.editing.sampling import GuidedSampler, Known, Watch
from gen1_jax.editing.settings import EditSettings, structures_as_text
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
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.module import Bound, Params, cast_kernels
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.unet import KNOWN, known_signal
from gen1_jax.parallel.hardware import default_dtype
from gen1_jax.parallel.mesh import MeshConfig, make_mesh
from gen1_jax.parallel.sharding import UNET_RULES, Layout
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.lora import with_loras


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
        self.source, self.config, self.low_memory = source, source.config, low_memory
        self.dtype = np.dtype(dtype or default_dtype())
        self._layout = None if mesh is None else Layout(make_mesh(mesh))
        self._networks: dict[str, Bound] = {}
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
        if name not in self._networks:
            self._networks[name] = Bound(self.config.build(name, self.dtype), self._weights(name))
        network = self._networks[name]
        if network.params is None:
            network.params = self._weights(name)
        return network

    def _weights(self, name: str) -> Params:
        params = jax.device_put(cast_kernels(self.source.parameters(name), self.dtype))
        if name == "unet" and self._layout is not None:
            params = self._layout.put(params, self._layout.gathered(params, UNET_RULES))
        return params

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
        return ContentEncoder(self.source, self.tokenizer, self.network)

    def edit(
        self,
        frames: Clip,
        prompt: str | Sequence[str] | None = None,
        image: Picture | Sequence[Picture] | None = None,
        structure_blur: int = 0,
        guidance_scale: float | None = None,
        temporal_guidance_scale: float = 1.0,
        num_inference_steps: int | None = None,
        seed: int = 0,
        sampler: str | None = None,
        progress: Progress | None = None,
        *,
        guidance_interval: tuple[float, float] | None = None,
        negative_prompt: str | None = None,
        structure: str | Mapping[str, float] | None = None,
        structure_from: Mapping[str, Clip] | None = None,
        strength: float = 1.0,
        clip_skip: int = 1,
        image_scale: float = 1.0,
        shift_windows: bool = False,
        mask: GivenMask | None = None,
        mask_feather: float | int = EditSettings.mask_feather,
        background: str | None = None,
        shared_noise: bool = False,
        steady_depth: bool = False,
        known: KnownFrames | None = None,
        keyframe_stride: int = 1,
        source_guidance_scale: float | None = None,
    ) -> EditResult | list[EditResult]:
        """Keep the structure of a clip and give it the content of a prompt or of a picture.

        Args:
            frames: uint8 RGB (T, H, W, 3), any size and number; or a list of arrays (H, W, 3) or pictures of PIL; or
                the path of a video, a folder of pictures or a picture. One frame is an image.
            prompt: what the result should look like, or a list of such; needs a model with a prior or a text encoder.
            image: a picture (H, W, 3), one of PIL, or the path of one, instead of a prompt; for a model with an adapter
                for pictures beside it, and several.
            structure_blur: t_s, 0 to 7.
            guidance_scale: w, by default the model's own: 7.5 at full size, 1.5 for "lcm" and "tcd".
            temporal_guidance_scale: w_t.
            num_inference_steps: steps of the sampler, by default the model's own: 50 at full size, 6 for "lcm", "tcd".
            seed: of all randomness.
            sampler: "ddim", "dpm++", "lcm" or "tcd"; by default the model's own.
            progress: called with (stage, done, total).
            guidance_interval: (start, end) of the part of the steps, 0 to 1, in which there is guidance; outside it
                w = w_t = 1, which costs one evaluation a step. By default the model's own, mostly (0, 1).
            negative_prompt: what the result should not look like.
            structure: which kinds of structure are followed and how much, {"depth": 0.9, "canny": 0.5},
                "depth=0.9,canny=0.5" or "depth"; by default the first that the model knows.
            structure_from: ready maps of a kind, as pictures, in place of an estimate: one a frame, or one for all.
            strength: how much of the way from noise is sampled, in (0, 1]; below 1 colours of the input are kept.
            clip_skip: layer of the text encoder that is read, counted from the end.
            image_scale: how much a picture counts beside the prompt.
            shift_windows: whether the seams of a long clip's windows move from step to step.
            mask: what may change, see `editing.masks`: the notation of `--mask`, a picture, or an array (H, W) or
                (T, H, W) of bool, uint8 or 0 to 1. Outside of it the frames stay as they are.
            mask_feather: pixels over which the edit fades in, from the mask's border inwards.
            background: what all outside of the mask should look like; what has neither prompt nor image stays. Without
                a mask the background is what is far.
            shared_noise: whether a long clip's windows begin with the same noise, in other orders.
            steady_depth: whether depth that is estimated frame by frame is brought to one scale from frame to frame.
            known: pictures by the number of their frame, {0: "painted.png"}, that the edit keeps and carries on; or
                frames and a mask (T, H, W), 1 where they count. For a model that has an input for them.
            keyframe_stride: every how many-th frame is sampled first, at full cost; the others are filled in between.
            source_guidance_scale: w_src, how closely the video itself is followed, by a model that sees it ("source").

        Returns:
            The edited frames, of the shape of the input, and the structure that was seen; a list of such for a list of
            prompts, each of the same seed.

        Raises:
            ValueError: neither prompt nor image or too much of it, no frames, or a setting out of range.
        """
        settings = EditSettings(
            structure=structures_as_text(structure),
            structure_blur=structure_blur,
            guidance_scale=guidance_scale,
            temporal_guidance_scale=temporal_guidance_scale,
            guidance_interval=guidance_interval,
            num_inference_steps=num_inference_steps,
            seed=seed,
            sampler=sampler,
            strength=strength,
            clip_skip=clip_skip,
            image_scale=image_scale,
            shift_windows=shift_windows,
            mask_feather=mask_feather,
            shared_noise=shared_noise,
            steady_depth=steady_depth,
            keyframe_stride=keyframe_stride,
            source_guidance_scale=source_guidance_scale,
        ).of(self.config)
        prompts = [prompt] if prompt is None or isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise UserError("prompt is an empty list: say what the result should look like")
        pictures, clip = to_pictures(image), to_frames(frames)
        contents = [contents_of(self, text, pictures, settings, negative_prompt, background) for text in prompts]
        size = clip.shape[1:3]
        small = np.stack([resize(frame, self.config.working_size(*size)) for frame in clip])
        geometry = ClipGeometry(shape=size)
        ready = {
            kind: ready_maps(maps, self.config.structure_kind(kind), len(small), small.shape[1:3], geometry)
            for kind, maps in (structure_from or {}).items()
        }
        estimated = {kind: x for kind, x in ready.items() if kind == "depth"}
        maps = self.read_structure(small, settings, ready, progress, estimated)
        masked = read_mask(self, mask, background, small, maps, settings, geometry, progress, estimated)
        given = read_known(self, known, len(small), small.shape[1:3])
        seen, results = None if masked is None else masked.at(size), []
        for content, behind in contents:
            regions = regions_of(content, behind, masked)
            latents = sample_regions(self, regions, maps, settings, progress, frames=small, given=given)
            edits = [self.decode(each, progress) for each in latents]
            edited = composited_regions(iter(clip), regions, edits, size, settings.mask_feather)
            results.append(EditResult(frames=np.stack(list(edited)), structures=self.pictures_of(maps), mask=seen))
        return results[0] if prompt is None or isinstance(prompt, str) else results

    def encode_content(
        self,
        prompt: str | None,
        pictures: Pictures,
        settings: EditSettings,
        negative_prompt: str | None = None,
    ) -> Conditions:
        """Content and null content; see `ContentEncoder.encode`."""
        told = self.content.encode(prompt, pictures, settings, negative_prompt)
        self.let_go("clip", "prior", "text", "image_encoder", "image_tokens")
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
        self.let_go("depth", "softedge")
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
        """
        settings = settings.of(self.config)
        scale, size = self.config.vae.downscale, frames.shape[1:3]
        masked = mask is not None and not mask.is_everywhere(1)
        start = self.encode_frames(frames) if settings.strength < 1 or (masked and known is None) else None
        change = latent_change(mask.at(size), scale) if masked else None
        kept = None if change is None else Known(start if known is None else known, change)
        kept = kept if given is None else given.kept(kept)
        told = None if kept is None else KnownLatents.of(kept)
        if settings.keyframe_stride > 1:
            return sample_keyframes_first(self, content, maps, settings, progress, frames=frames, given=told)
        signals = self.encode_structure(maps, settings, progress)
        if told is not None and self.config.unet.known:
            signals[KNOWN] = known_signal(*told)
        conditions = dataclasses.replace(content, structure=signals)
        guidance = settings.guidance
        sampler = self.sampler(settings)
        shape = (1, len(frames), *self.latent_size(frames))
        interval = settings.guidance_interval
        compiling = sampler.compiles(shape, guidance, interval=interval, masked=kept is not None)
        report = None if progress is None else sampling_reporter(progress, compiling)
        start = start if settings.strength < 1 else None
        more = dict(latents=start, known=kept, interval=interval, shared_noise=settings.shared_noise)
        latents = sampler(shape, settings.seed, conditions, guidance, report, watch, **more)
        self.let_go("unet")
        return latents if given is None else given.on(latents)

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
            self._samplers[key] = GuidedSampler(
                unet,
                self.config.schedule,
                get_sampler(settings.sampler),
                settings.num_inference_steps,
                window=self.config.num_frames,
                overlap=self.config.window_overlap,
                partition=None if self._layout is None else self._layout.activations(),
                shift=settings.shift_windows,
            )
        return self._samplers[key].with_steps(settings.num_inference_steps, settings.strength)

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
        self.let_go("vae")

    def let_go(self, *names: str) -> None:
        """Frees weights that an edit has done with, where memory is short; what is compiled stays."""
        if self.low_memory:
            for name in set(names) & self._networks.keys():
                self._networks[name].params = None
