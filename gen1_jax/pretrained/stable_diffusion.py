"""Stable Diffusion 1.x with what was published for it, as one model whose content is the states of a text.

    checkpoint, or unet + vae + text ─► base ─┐
    motion ─► temporal layers ────────────────┤
    controlnets ─► controls ──────────────────┼─► "unet"      + "vae" + "text" [+ "depth" ...]
    ip_adapter ─► keys and values ────────────┘

Nothing is trained anew, so nothing is left as it was drawn: together the checkpoints fill every parameter.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from gen1_jax.diffusion import NoiseSchedule, default_sampler
from gen1_jax.models.module import Params
from gen1_jax.models.structure import structure_kind
from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.assembly import Network, Source
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.hf_clip import clip_text_config
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_control import (
    CONTROL_FROM_ZERO,
    control_shape,
    with_control,
)
from gen1_jax.pretrained.hf_depth import depth_checkpoint
from gen1_jax.pretrained.hf_folders import (
    Checkpoint,
    HuggingFaceFolders,
    opened,
    schedule_of,
    tokenizer_folder,
    tokenizer_json,
)
from gen1_jax.pretrained.hf_hed import HED, hed_config, hed_tensors
from gen1_jax.pretrained.hf_image_tokens import (
    IMAGE_ENCODER,
    IMAGE_TOKENS,
    image_encoder_config,
    ip_adapter,
)
from gen1_jax.pretrained.hf_motion import MAX_FRAMES, MOTION_FROM_ZERO, motion_shape, with_motion
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.hf_unet import UNET, unet_config, unet_shape
from gen1_jax.pretrained.hf_vae import VAE, vae_config, vae_shape
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.recognition import Signs, check_is
from gen1_jax.pretrained.sizes import MOTION_SCHEDULE, TEXT_UNET, public_family
from gen1_jax.pretrained.spellings import ldm_control, ldm_text, ldm_unet, ldm_vae, motion_original
from gen1_jax.pretrained.tensors import FolderError, checkpoint_files, stored_tensors
from gen1_jax.pretrained.tokenizer import CLIPTokenizer, clip_vocabulary
from gen1_jax.pretrained.unet_parts import BASE, IP_ADAPTER, MOTION_ADAPTER, control_name, unet_parts

_LCM = "animatelcm"
_HEAD_SIZE = 64  # of CLIP's text encoders


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A model that is still in its checkpoints, which were compared with its networks; a `ModelSource`.

    Attributes:
        config: of the family.
        networks: with their checkpoints.
        tokenizer_json: contents of a tokenizer.json.
        tokenizer_name: where that is from.
        notes: lines on what was chosen.
        dtype: that matrices and kernels are read in.
    """

    config: Gen1Config
    networks: dict[str, Network]
    tokenizer_json: str
    tokenizer_name: str
    notes: tuple[str, ...] = ()
    dtype: DTypeLike = np.float32
    name: str = "the model"
    warning: str | None = None

    def parameters(self, component: str) -> Params:
        """The weights of one network, read now."""
        return self.networks[component].parameters(self.dtype)

    def stored(self, component: str) -> Params:
        """The same."""
        return self.parameters(component)

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text encoder; refuses one of another model."""
        return CLIPTokenizer(self.tokenizer_json, self.config.text_config, self.tokenizer_name)


def text_model(given: HuggingFaceFolders) -> Draft:
    """The model of checkpoints whose content is text.

    Raises:
        FolderError, ConfigError, LayoutError: a checkpoint is damaged, another than its option takes, a variant that we
            do not have, or made for another base.
    """
    schedule, prediction_type = schedule_of(given)
    model = _Assembly(_base(given), prediction_type)
    notes: tuple[str, ...] = ()
    sampler = default_sampler(schedule)
    if given.motion is not None:
        sampler, schedule = model.add_motion(given.motion), MOTION_SCHEDULE
        notes = (
            f"noise schedule: {schedule.beta_schedule}, {schedule.beta_start:g} to {schedule.beta_end:g}, predicting "
            "epsilon, as the motion modules were trained",
        )
    if sampler == "lcm":
        notes += ("sampler: lcm, for these are AnimateLCM's motion modules",)
    for kind, path in given.controlnets.items():
        model.add_control(kind, path)
    if given.ip_adapter is not None:
        model.add_image_adapter(given.ip_adapter, given.image_encoder)
    if given.softedge is not None:
        model.add_softedge(given.softedge)
    if given.depth is not None:
        checkpoint, config, layout = depth_checkpoint(given.depth)
        model.add("depth", checkpoint, lambda _: config, layout)
    config = model.family(schedule, sampler)
    vocabulary = tokenizer_folder(given, given.text)
    return Draft(
        config=config,
        networks=model.networks(config),
        tokenizer_json=clip_vocabulary() if vocabulary is None else tokenizer_json(vocabulary),
        tokenizer_name="CLIP's vocabulary" if vocabulary is None else str(vocabulary),
        notes=notes,
    )


class _Assembly:
    """Networks as they are put together: their configurations, and the checkpoints that fill them.

    Args:
        base: checkpoints of U-Net, autoencoder and text encoder.
        prediction_type: of the U-Net.

    Attributes:
        unet: the U-Net's configuration with what was added so far.
    """

    def __init__(self, base: Mapping[str, Checkpoint], prediction_type: str):
        self._configs: dict[str, Any] = {}
        self._sources: dict[str, list[Source]] = {}
        ours = dict(**TEXT_UNET, temporal="none", max_frames=MAX_FRAMES)
        parse = partial(unet_config, prediction_type=prediction_type, **ours)
        self.add("unet", base["unet"], parse, UNET, fills=lambda path: unet_parts(self.unet)[BASE].fills(path))
        self.add("vae", base["vae"], vae_config, VAE)
        self.add("text", base["text"], clip_text_config, TEXT_ENCODER)

    @property
    def unet(self) -> UNetConfig:
        return self._configs["unet"]

    def add(
        self, name: str, checkpoint: Checkpoint, parse: Callable[[Mapping], Any], layout: Layout, **source: Any
    ) -> None:
        """A network, or (of a name that is there) a further checkpoint of one with its new configuration."""
        self._configs[name] = checkpoint.read(parse)
        filled = Source(layout=layout, tensors=checkpoint.tensors, name=checkpoint.name, **source)
        self._sources.setdefault(name, []).append(filled)

    def _extend(
        self,
        checkpoint: Checkpoint,
        parse: Callable[[Mapping], UNetConfig],
        part: str,
        from_zero: tuple[str, ...] = (),
    ) -> None:
        """A part of the U-Net, by its name among `unet_parts`."""
        layout, fills = unet_parts(checkpoint.read(parse))[part]
        self.add("unet", checkpoint, parse, layout, fills=fills, from_zero=from_zero)

    def add_motion(self, path: Path) -> str:
        """Motion modules. Returns the sampler that they were trained for."""
        if self.unet.prediction_type != "epsilon":
            raise ConfigError(
                f"{self._sources['unet'][0].name} predicts {self.unet.prediction_type}, but motion modules were "
                "trained with one that predicts epsilon: take another base, or leave out the motion modules"
            )
        motion = opened(path, "motion", "motion", motion_original, motion_shape)
        parse = partial(with_motion, base=self.unet, tensors=motion.tensors)
        self._extend(motion, parse, MOTION_ADAPTER, MOTION_FROM_ZERO)
        return "lcm" if _is_animatelcm(path, motion) else "ddim"

    def add_control(self, kind: str, path: Path) -> None:
        """A ControlNet of a kind of structure."""
        structure_kind(kind)  # refuses a name that is none
        control = opened(path, "controlnet", "controlnet", ldm_control, control_shape)
        parse = partial(with_control, kind=kind, base=self.unet)
        self._extend(control, parse, control_name(kind), CONTROL_FROM_ZERO)

    def add_image_adapter(self, path: Path, encoder_folder: Path) -> None:
        """An IP-Adapter, which is keys and values of the U-Net and a projection, and the encoder that it reads."""
        encoder = opened(encoder_folder, "image_encoder", "image-encoder")
        self.add("image_encoder", encoder, image_encoder_config, IMAGE_ENCODER)
        tensors = stored_tensors(checkpoint_files(path))
        check_is("ip-adapter", path, tensors)
        adapter = ip_adapter(tensors, self._configs["image_encoder"], self.unet, str(path))
        unet = dataclasses.replace(self.unet, image_adapter=True)
        self._extend(Checkpoint(str(path), {}, adapter.attention), lambda _: unet, IP_ADAPTER)
        projection = Checkpoint(str(path), {}, adapter.projection)
        self.add("image_tokens", projection, lambda _: adapter.tokens, IMAGE_TOKENS[adapter.tokens.kind])

    def add_softedge(self, path: Path) -> None:
        """The detector of soft edges."""
        tensors = hed_tensors(path)
        check_is("softedge", path, tensors)
        self.add("softedge", Checkpoint(str(path), {}, tensors), lambda _: hed_config(tensors, str(path)), HED)

    def family(self, schedule: NoiseSchedule, sampler: str) -> Gen1Config:
        """The configuration of all."""
        try:
            return public_family(self._configs, schedule, sampler)
        except ValueError as error:
            raise ConfigError(f"these parts do not fit together: {error}") from None

    def networks(self, config: Gen1Config) -> dict[str, Network]:
        """Each with its checkpoints."""
        return {
            name: Network(module=config.build(name, np.float32), sources=tuple(sources))
            for name, sources in self._sources.items()
        }


def _base(given: HuggingFaceFolders) -> dict[str, Checkpoint]:
    """U-Net, autoencoder and text encoder; those that are named count before those in the one file."""
    base = {} if given.checkpoint is None else _whole(given.checkpoint)
    if given.unet is not None:
        base["unet"] = opened(given.unet, "unet", "unet")
    if given.vae is not None:
        base["vae"] = opened(given.vae, "vae", "vae", ldm_vae, vae_shape)
    if given.text is not None:
        base["text"] = opened(given.text, "text", "text")
    return base


def _whole(path: Path) -> dict[str, Checkpoint]:
    """The networks of a single file, under diffusers' names and in the shapes that its tensors have.

    Raises:
        FolderError: it is another file, or lacks one of them.
    """
    tensors = stored_tensors(checkpoint_files(path))
    check_is("checkpoint", path, tensors)
    parts = (("unet", ldm_unet, unet_shape), ("vae", ldm_vae, vae_shape), ("text", ldm_text, text_shape))
    base = {}
    for part, spelling, shape in parts:
        seen = spelling(tensors)
        if not seen:
            raise FolderError(f"{path} has no {part}: name one with --{part}")
        base[part] = Checkpoint(str(path), shape(seen), seen)
    return base


def _is_animatelcm(path: Path, motion: Checkpoint) -> bool:
    """Whether motion modules are AnimateLCM's, which look like AnimateDiff's second version.

    Its own file has no positions; as a MotionAdapter it has, and is known by its names.
    """
    near = [*path.resolve().parts[-4:], *([file.name for file in path.iterdir()] if path.is_dir() else [])]
    names = [motion.config.get("_name_or_path") or "", *near]
    return not any(name.endswith(".pe") for name in motion.tensors) or any(_LCM in name.lower() for name in names)


def text_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """What a CLIPTextModel's config.json would say of tensors in transformers' names; heads have 64 features."""
    signs = Signs(tensors)
    vocabulary, width = (signs.size(r"token_embedding\.weight$", axis) for axis in (0, 1))
    return {
        "model_type": "clip_text_model",
        "hidden_size": width,
        "intermediate_size": signs.size(r"layers\.0\.mlp\.fc1\.weight$", 0),
        "num_hidden_layers": (signs.largest(r"encoder\.layers\.(\d+)\.") or 0) + 1,
        "num_attention_heads": (width or 0) // _HEAD_SIZE,
        "vocab_size": vocabulary,
        "max_position_embeddings": signs.size(r"position_embedding\.weight$", 0),
        "eos_token_id": (vocabulary or 0) - 1,
    }
