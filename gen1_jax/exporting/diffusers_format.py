"""Folders that load with plain classes of diffusers and transformers, laid out as those of a diffusers pipeline.

unet/  UNet2DConditionModel    vae/  AutoencoderKL              scheduler/  DDIMScheduler
clip/  CLIPModel               tokenizer/  CLIPTokenizer        depth/  DPTForDepthEstimation
prior/  PriorTransformer       prior_scheduler/  UnCLIPScheduler

pipeline.py  all of it edits videos     temporal/  the layers between frames, and their code

A model whose content is text, of public checkpoints, is taken apart into them:

text_encoder/  CLIPTextModel               motion_adapter/  MotionAdapter     controlnet_KIND/  ControlNetModel
image_encoder/  CLIPVisionModelWithProjection                                 ip_adapter/, softedge/  authors' names

`gen1 import` reads them back, bit for bit. What such classes have no place for is said in the manifest's `notes`: the
U-Net is the image model; see `video_pipeline` for the video model.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen1_jax.exporting.diffusers_parity import measure
from gen1_jax.exporting.networks import (
    Networks,
    Written,
    refuse_distilled,
    refuse_other_kinds,
    refuse_split,
    write_json,
)
from gen1_jax.exporting.video_pipeline import compare_video_model, is_video_model, write_video_pipeline
from gen1_jax.models.module import Params, flatten, unflatten
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.hf_clip import CLIP, their_clip_config, their_image_processor_config, their_tower_config
from gen1_jax.pretrained.hf_control import their_control_config
from gen1_jax.pretrained.hf_depth import DEPTH, their_depth_config, unread_tensors
from gen1_jax.pretrained.hf_hed import HED
from gen1_jax.pretrained.hf_image_tokens import IMAGE_ENCODER, IMAGE_TOKENS
from gen1_jax.pretrained.hf_motion import position_tensors, their_motion_config
from gen1_jax.pretrained.hf_prior import prior_tensors, their_prior_config, their_prior_scheduler_config
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.hf_unet import their_scheduler_config, their_unet_config
from gen1_jax.pretrained.hf_vae import VAE, their_vae_config
from gen1_jax.pretrained.tensors import save_tensors
from gen1_jax.pretrained.tokenizer import CLIPTokenizer
from gen1_jax.pretrained.unet_parts import BASE, IP_ADAPTER, MOTION_ADAPTER, control_name, unet_parts

_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"
_IP_ADAPTER, _SOFTEDGE = "ip-adapter", "ControlNetHED"
_SCHEDULER = "scheduler_config.json"


def write_diffusers(source: ModelSource, folder: Path, dtype: np.dtype, shard_bytes: int | None) -> Written:
    """Write the folders, load each with its class, and run it beside the JAX network.

    Raises:
        ConfigError: the prior is one that PriorTransformer cannot be.
        ExportError: a class does not take what was written, or the denoiser is no U-Net or is told scales of guidance.
    """
    refuse_other_kinds(source.config.unet, "diffusers")
    refuse_distilled(source.config.unet, "diffusers")
    refuse_split(source.config, "diffusers")
    config, networks, tokenizer = source.config, Networks(source, dtype), source.tokenizer()
    pending: dict[str, np.ndarray] = {}  # of an IP-Adapter, whose file holds parameters of two networks
    for component in config.components:
        for name, network in _networks(component, config, networks[component], tokenizer):
            if name == IP_ADAPTER:
                pending |= network.tensors
                network = network._replace(tensors=pending)
            (folder / name).mkdir(exist_ok=True)
            if network.config is not None:
                write_json(folder / name / "config.json", network.config)
            if name != IP_ADAPTER or component == "image_tokens":
                write_tensors(folder / name, network.stem, network.tensors, shard_bytes)
    for name, tower in (("clip", config.clip and config.clip.vision), ("image_encoder", config.image_encoder)):
        if tower:
            write_json(folder / name / "preprocessor_config.json", their_image_processor_config(tower))
    scheduler = their_scheduler_config(config.schedule, config.unet.prediction_type)
    write_json(folder / "scheduler" / _SCHEDULER, scheduler)
    if config.prior is not None:
        write_json(folder / "prior_scheduler" / _SCHEDULER, their_prior_scheduler_config())
    write_tokenizer(folder / "tokenizer", tokenizer)
    parity = {}
    if is_video_model(config):
        write_video_pipeline(config, networks["unet"], folder)
        parity = compare_video_model(config, networks, folder)
    return Written(measure(source, networks, folder) | parity, {"notes": _notes(config)})


_OF_PARTS = (
    "encoder_hidden_states: states of the text encoder; motion modules were trained with the group norm over each "
    "frame by itself, which diffusers' UNetMotionModel computes over the clip"
)


class _Theirs(NamedTuple):
    """A network as its class stores it: config.json if it has one, tensors, and the name of their file."""

    config: dict[str, Any] | None
    tensors: dict[str, np.ndarray]
    stem: str


def _networks(
    component: str, config: Gen1Config, params: Params, tokenizer: CLIPTokenizer
) -> Iterator[tuple[str, _Theirs]]:
    """What a network becomes, by the name of the folder."""
    size = config.working_size(config.height, config.width)
    match component:
        case "unet":
            latents = tuple(side // config.vae.downscale for side in size)
            yield from _unet_parts(config, params, latents)
        case "vae":
            yield "vae", _Theirs(their_vae_config(config.vae, max(size)), VAE.to_theirs(params), _DIFFUSERS)
        case "clip":
            theirs = their_clip_config(config.clip, tokenizer.start)
            yield "clip", _Theirs(theirs, CLIP.to_theirs(params), _TRANSFORMERS)
        case "depth":
            tensors = {**DEPTH.to_theirs(params), **unread_tensors(config.depth)}
            yield "depth", _Theirs(their_depth_config(config.depth), tensors, _TRANSFORMERS)
        case "prior":
            yield "prior", _Theirs(their_prior_config(config.prior), prior_tensors(config.prior, params), _DIFFUSERS)
        case "text":
            tokens = {"bos_token_id": tokenizer.start, "pad_token_id": config.text.eos_token_id}
            theirs = their_tower_config(config.text, "CLIPTextModel", **tokens)
            yield "text_encoder", _Theirs(theirs, TEXT_ENCODER.to_theirs(params), _TRANSFORMERS)
        case "image_encoder":
            theirs = their_tower_config(config.image_encoder, "CLIPVisionModelWithProjection")
            yield "image_encoder", _Theirs(theirs, IMAGE_ENCODER.to_theirs(params), _TRANSFORMERS)
        case "image_tokens":
            yield IP_ADAPTER, _Theirs(None, IMAGE_TOKENS[config.image_tokens.kind].to_theirs(params), _IP_ADAPTER)
        case "softedge":
            yield "softedge", _Theirs(None, HED.to_theirs(params), _SOFTEDGE)


def _unet_parts(config: Gen1Config, params: Params, latents: tuple[int, int]) -> Iterator[tuple[str, _Theirs]]:
    """A U-Net taken apart into what is published by itself."""
    unet, flat = config.unet, flatten(params)
    configs = {BASE: their_unet_config(unet, latents), MOTION_ADAPTER: their_motion_config(unet), IP_ADAPTER: None}
    configs |= {control_name(control.kind): their_control_config(control, unet) for control in unet.controls}
    for name, part in unet_parts(unet).items():
        of_it = unflatten({path: value for path, value in flat.items() if part.fills(path)})
        tensors, stem = part.layout.to_theirs(of_it), _IP_ADAPTER if name == IP_ADAPTER else _DIFFUSERS
        if name == MOTION_ADAPTER:
            tensors |= position_tensors(tensors, unet.max_frames)
        yield name, _Theirs(configs[name], tensors, stem)


def write_tensors(folder: Path, stem: str, tensors: Mapping[str, np.ndarray], shard_bytes: int | None) -> None:
    """One file, or several with an index of which holds what."""
    weight_map = save_tensors(folder, stem, tensors, layout="pt", shard_bytes=shard_bytes)
    if len(set(weight_map.values())) > 1:
        total = sum(value.nbytes for value in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / f"{stem}.safetensors.index.json", index)


def write_tokenizer(folder: Path, tokenizer: CLIPTokenizer) -> None:
    """The files that transformers' tokenizers load from a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    start, end = tokenizer.marks
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.length,
        "bos_token": start,
        **dict.fromkeys(("eos_token", "pad_token", "unk_token"), end),
    }
    write_json(folder / "tokenizer_config.json", config)


def _notes(config: Gen1Config) -> dict[str, str]:
    """What is to be known of the networks beyond their configurations."""
    if config.unet.content.reads_text:
        return {"unet": _OF_PARTS}
    unet = config.unet
    temporal = "temporal layers are left out: this is the image model, which sees each frame by itself"
    temporal += "; pipeline.py adds them" if is_video_model(config) else ""
    notes = {"unet": f"encoder_hidden_states: a CLIP image embedding as one token, zeros without content; {temporal}"}
    if unet.inputs:
        notes["unet.in_channels"] = "; ".join(_inputs(config))
    notes["clip"] = "content is the projected image embedding, not normalised"
    notes["depth"] = (
        f"square pictures in [-1, 1], sides multiples of {config.depth.size_multiple}; the result is inverse depth"
    )
    if config.depth.temporal_frames:
        notes["depth"] += "; its layers between frames are left out"
    if config.prior is not None and config.prior.text_hidden_size < config.prior.embedding_dim:
        notes["prior"] = (
            f"encoder_hidden_states: text states of {config.prior.text_hidden_size} features, "
            f"padded with zeros to {config.prior.embedding_dim}"
        )
    return notes


def _inputs(config: Gen1Config) -> Iterator[str]:
    """What the input channels of the U-Net are, in their order, and what is in them."""
    unet = config.unet
    yield ", ".join(f"{count} of {name}" for name, count in {"z_t": unet.latent_channels, **unet.inputs}.items())
    if unet.structures:
        yield (
            f"of a structure: {unet.structure_channels} of its maps in [-1, 1] (depth: blurred, near is 1, as 3 equal "
            f"channels), encoded, the mean times {config.vae.scaling_factor:g}; {unet.structure_level_channels} of its "
            f"t_s, constant over a frame: cosines, then sines, of t_s / {unet.structure_level_period:g}^(i / "
            f"{unet.structure_level_channels // 2})"
        )
    if unet.structure_optional:
        yield "all of them 0 for a structure that is absent"
    if unet.known:
        yield "of what is known: its latents, and a mask that is 1 where they are given; elsewhere 0"
