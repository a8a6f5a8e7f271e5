"""Stable Diffusion 1.x with what was published for it, as one model whose content is the states of a text.

    checkpoint, or unet + vae + text ─► base ─┐
    motion ─► temporal layers ────────────────┤
    controlnets ─► controls ──────────────────┼─► "unet"      + "vae" + "text" [+ "depth" ...]
    ip_adapter ─► keys and values ────────────┘

Nothing is trained anew, so nothing is left as it was drawn: together the checkpoints fill every parameter.
"""

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.models.structure import structure_kind
from gen1_jax.models.unet import UNetConfig
from gen1_jax.pretrained.assembly import Network, Source
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.hf_clip import clip_text_config
from gen1_jax.pretrained.hf_config import ConfigError
from gen1_jax.pretrained.hf_control import (
    CONTROL_FROM_ZERO,
    control_config,
    control_layout,
    control_paths,
    control_shape,
)
from gen1_jax.pretrained.hf_depth import DEPTH, depth_config
from gen1_jax.pretrained.hf_folders import (
    Checkpoint,
    HuggingFaceFolders,
    opened,
    schedule_of,
    tokenizer_folder,
    tokenizer_json,
)
from gen1_jax.pretrained.hf_motion import MAX_FRAMES, MOTION, MOTION_FROM_ZERO, MOTION_PATHS, motion_shape, with_motion
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.hf_unet import UNET, unet_config, unet_shape
from gen1_jax.pretrained.hf_vae import VAE, vae_config, vae_shape
from gen1_jax.pretrained.recognition import Signs, check_is
from gen1_jax.pretrained.spellings import ldm_control, ldm_text, ldm_unet, ldm_vae, motion_original
from gen1_jax.pretrained.tensors import checkpoint_files, stored_tensors
from gen1_jax.pretrained.tokenizer import clip_vocabulary

SCHEDULE = NoiseSchedule(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, set_alpha_to_one=True)
"""Of AnimateDiff's training, whatever the base's own is."""

_CLIP_FRAMES, _OVERLAP = 16, 6  # of motion modules' training, and of neighbouring windows of longer edits
_LCM = "animatelcm"
_NOT_OF_THE_BASE = re.compile(rf"{MOTION_PATHS}|^controls\.|\.attn2\.to_[kv]_image\.")
_HEAD_SIZE = 64  # of CLIP's text encoders


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
    """A model that can be read: what its files say was compared with its networks.

    Attributes:
        config: of the family.
        networks: with their checkpoints.
        tokenizer: contents of a tokenizer.json.
        tokenizer_name: where it is from.
        notes: lines on what was chosen.
    """

    config: Gen1Config
    networks: Mapping[str, Network]
    tokenizer: str
    tokenizer_name: str
    notes: tuple[str, ...] = ()


def text_model(given: HuggingFaceFolders) -> Draft:
    """The model of checkpoints whose content is text.

    Raises:
        FolderError, ConfigError, LayoutError: a checkpoint is damaged, another than its option takes, a variant that we
            do not have, or made for another base.
    """
    base = _base(given)
    schedule, prediction_type = schedule_of(given)
    ours = dict(prediction_type=prediction_type, content_kind="text", structure_channels=0, temporal="none")
    unet = base["unet"].read(partial(unet_config, max_frames=MAX_FRAMES, **ours))
    of_unet = [_source(base["unet"], UNET, fills=lambda path: not _NOT_OF_THE_BASE.search(path))]
    numbers, notes = {}, []
    if given.motion is not None:
        if prediction_type != "epsilon":
            raise ConfigError(
                f"{base['unet'].name} predicts {prediction_type}, but motion modules were trained with one that "
                "predicts epsilon: take another base, or leave out the motion modules"
            )
        unet, source, told = _motion(given.motion, unet)
        of_unet.append(source)
        schedule, numbers = SCHEDULE, told
        notes.append(
            f"noise schedule: {schedule.beta_schedule}, {schedule.beta_start:g} to {schedule.beta_end:g}, predicting "
            "epsilon, as the motion modules were trained"
        )
    for kind, path in given.controlnets.items():
        unet, source = _control(kind, path, unet)
        of_unet.append(source)
    configs = {"unet": unet, "vae": base["vae"].read(vae_config), "text": base["text"].read(clip_text_config)}
    sources = {"unet": of_unet, "vae": [_source(base["vae"], VAE)], "text": [_source(base["text"], TEXT_ENCODER)]}
    if given.depth is not None:
        depth = opened(given.depth, "depth", "depth", _as_it_is, _as_it_is)
        configs["depth"], sources["depth"] = depth.read(depth_config), [_source(depth, DEPTH)]
    frames = min(_CLIP_FRAMES, unet.max_frames)
    config = _family(
        configs,
        schedule=schedule,
        height=512,
        width=512,
        num_frames=frames,
        window_overlap=min(_OVERLAP, frames - 1),
        num_inference_steps=25,
        learned_content="text",
        **numbers,
    )
    vocabulary = tokenizer_folder(given, given.text)
    return Draft(
        config=config,
        networks={
            name: Network(module=config.build(name, np.float32), sources=tuple(of_it))
            for name, of_it in sources.items()
        },
        tokenizer=clip_vocabulary() if vocabulary is None else tokenizer_json(vocabulary),
        tokenizer_name="CLIP's vocabulary" if vocabulary is None else str(vocabulary),
        notes=tuple(notes),
    )


def _base(given: HuggingFaceFolders) -> dict[str, Checkpoint]:
    """U-Net, autoencoder and text encoder; those that are named count before those in the one file."""
    base = {} if given.checkpoint is None else _whole(given.checkpoint)
    if given.unet is not None:
        base["unet"] = opened(given.unet, "unet", "unet", _as_it_is, unet_shape)
    if given.vae is not None:
        base["vae"] = opened(given.vae, "vae", "vae", ldm_vae, vae_shape)
    if given.text is not None:
        base["text"] = opened(given.text, "text", "text", _as_it_is, _text_shape)
    return base


def _whole(path: Path) -> dict[str, Checkpoint]:
    """The networks of a single file, under diffusers' names and in the shapes that its tensors have."""
    tensors = stored_tensors(checkpoint_files(path))
    check_is("checkpoint", path, tensors)
    parts = (("unet", ldm_unet, unet_shape), ("vae", ldm_vae, vae_shape), ("text", ldm_text, _text_shape))
    seen = {part: (spelling(tensors), shape) for part, spelling, shape in parts}
    if not seen["text"][0]:
        del seen["text"]
    return {part: Checkpoint(str(path), shape(view), view) for part, (view, shape) in seen.items()}


def _motion(path: Path, unet: UNetConfig) -> tuple[UNetConfig, Source, dict[str, Any]]:
    """The U-Net with motion modules, what fills them, and which numbers of the family follow from them."""
    motion = opened(path, "motion", "motion", motion_original, motion_shape)
    numbers = {"sampler": "lcm"} if _is_animatelcm(path, motion) else {}
    source = _source(
        motion, MOTION, fills=lambda path: re.search(MOTION_PATHS, path) is not None, from_zero=MOTION_FROM_ZERO
    )
    return motion.read(lambda config: with_motion(unet, config, motion.tensors)), source, numbers


def _is_animatelcm(path: Path, motion: Checkpoint) -> bool:
    """Whether motion modules are AnimateLCM's, which look like AnimateDiff's second version.

    Its own file has no positions; as a MotionAdapter it has, and is known by its names.
    """
    near = [*path.resolve().parts[-4:], *([file.name for file in path.iterdir()] if path.is_dir() else [])]
    has_positions = any(name.endswith(".pe") for name in motion.tensors)
    return not has_positions or any(_LCM in name.lower() for name in (motion.config.get("_name_or_path") or "", *near))


def _control(kind: str, path: Path, unet: UNetConfig) -> tuple[UNetConfig, Source]:
    """The U-Net with a ControlNet, and what fills that."""
    structure_kind(kind)  # refuses a name that is none
    control = opened(path, "controlnet", "controlnet", ldm_control, control_shape)
    config = control.read(lambda theirs: control_config(kind, theirs, unet))
    paths = re.compile(control_paths(kind))
    source = _source(
        control,
        control_layout(kind),
        fills=lambda path: paths.search(path) is not None,
        from_zero=CONTROL_FROM_ZERO,
    )
    return dataclasses.replace(unet, controls=(*unet.controls, config)), source


def _source(checkpoint: Checkpoint, layout: Any, **how: Any) -> Source:
    return Source(layout=layout, tensors=checkpoint.tensors, name=checkpoint.name, **how)


def _family(configs: Mapping[str, Any], **numbers: Any) -> Gen1Config:
    try:
        return Gen1Config(parts=configs, **numbers)
    except ValueError as error:
        raise ConfigError(f"these parts do not fit together: {error}") from None


def _as_it_is(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    return tensors


def _text_shape(tensors: Mapping[str, Any]) -> dict[str, Any]:
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
