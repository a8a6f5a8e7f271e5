"""Folders that load with plain classes of diffusers and transformers, laid out as those of a diffusers pipeline.

unet/  UNet2DConditionModel    vae/  AutoencoderKL              scheduler/  DDIMScheduler
clip/  CLIPModel               tokenizer/  CLIPTokenizer        depth/  DPTForDepthEstimation
prior/  PriorTransformer       prior_scheduler/  UnCLIPScheduler

`gen1 import` reads them back, bit for bit. What such classes have no place for is said in the manifest's `notes`: the
U-Net is the image model, its temporal layers stay behind.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gen1_jax.exporting.diffusers_parity import measure
from gen1_jax.exporting.networks import Networks, Written
from gen1_jax.models.module import Params
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.hf_clip import CLIP, their_clip_config, their_image_processor_config
from gen1_jax.pretrained.hf_depth import DEPTH, their_depth_config, unread_tensors
from gen1_jax.pretrained.hf_prior import prior_tensors, their_prior_config, their_prior_scheduler_config
from gen1_jax.pretrained.hf_unet import UNET, their_scheduler_config, their_unet_config
from gen1_jax.pretrained.hf_vae import VAE, their_vae_config
from gen1_jax.pretrained.tensors import save_tensors
from gen1_jax.pretrained.tokenizer import CLIPTokenizer

_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"
_SCHEDULER = "scheduler_config.json"


def write_diffusers(source: ModelSource, folder: Path, dtype: np.dtype, shard_bytes: int | None) -> Written:
    """Write the folders, load each with its class, and run it beside the JAX network.

    Raises:
        ConfigError: the prior is one that PriorTransformer cannot be.
        ExportError: a class does not take what was written.
    """
    config, networks, tokenizer = source.config, Networks(source, dtype), source.tokenizer()
    for component in config.components:
        network = _network(component, config, networks[component], tokenizer)
        (folder / component).mkdir()
        _write_json(folder / component / "config.json", network.config)
        _write_tensors(folder / component, network.stem, network.tensors, shard_bytes)
    _write_json(folder / "clip" / "preprocessor_config.json", their_image_processor_config(config.clip))
    scheduler = their_scheduler_config(config.schedule, config.unet.prediction_type)
    _write_json(folder / "scheduler" / _SCHEDULER, scheduler)
    if config.prior is not None:
        _write_json(folder / "prior_scheduler" / _SCHEDULER, their_prior_scheduler_config())
    _write_tokenizer(folder / "tokenizer", tokenizer)
    return Written(measure(source, networks, folder), {"notes": _notes(config)})


class _Theirs(NamedTuple):
    """A network as its class stores it: config.json, tensors, and the name of their file."""

    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    stem: str


def _network(component: str, config: Gen1Config, params: Params, tokenizer: CLIPTokenizer) -> _Theirs:
    size = config.working_size(config.height, config.width)
    match component:
        case "unet":
            latents = tuple(side // config.vae.downscale for side in size)
            return _Theirs(their_unet_config(config.unet, latents), UNET.to_theirs(params), _DIFFUSERS)
        case "vae":
            return _Theirs(their_vae_config(config.vae, max(size)), VAE.to_theirs(params), _DIFFUSERS)
        case "clip":
            return _Theirs(their_clip_config(config.clip, tokenizer.start), CLIP.to_theirs(params), _TRANSFORMERS)
        case "depth":
            tensors = {**DEPTH.to_theirs(params), **unread_tensors(config.depth)}
            return _Theirs(their_depth_config(config.depth), tensors, _TRANSFORMERS)
        case "prior":
            return _Theirs(their_prior_config(config.prior), prior_tensors(config.prior, params), _DIFFUSERS)


def _write_tensors(folder: Path, stem: str, tensors: Mapping[str, np.ndarray], shard_bytes: int | None) -> None:
    """One file, or several with an index of which holds what."""
    weight_map = save_tensors(folder, stem, tensors, layout="pt", shard_bytes=shard_bytes)
    if len(set(weight_map.values())) > 1:
        total = sum(value.nbytes for value in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / f"{stem}.safetensors.index.json", index)


def _write_tokenizer(folder: Path, tokenizer: CLIPTokenizer) -> None:
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.json, encoding="utf-8")
    start, end = tokenizer.marks
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": tokenizer.length,
        "bos_token": start,
        **dict.fromkeys(("eos_token", "pad_token", "unk_token"), end),
    }
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _notes(config: Gen1Config) -> dict[str, str]:
    """What is to be known of the networks beyond their configurations."""
    unet, scale = config.unet, f"{config.vae.scaling_factor:g}"
    latents, structure = unet.latent_channels, unet.structure_channels
    temporal = "temporal layers are left out: this is the image model, which sees each frame by itself"
    notes = {"unet": f"encoder_hidden_states: a CLIP image embedding as one token, zeros without content; {temporal}"}
    if structure:
        notes["unet.in_channels"] = (
            f"{latents} of z_t; {structure} of structure: blurred depth in [-1, 1] (near is 1) as 3 equal channels, "
            f"encoded, the mean times {scale}; {unet.structure_level_channels} of t_s, constant over a frame: cosines, "
            f"then sines, of t_s / {unet.structure_level_period:g}^(i / {unet.structure_level_channels // 2})"
        )
    notes["clip"] = "content is the projected image embedding, not normalised"
    notes["depth"] = (
        f"square pictures in [-1, 1], sides multiples of {config.depth.size_multiple}; the result is inverse depth"
    )
    if config.prior is not None and config.prior.text_hidden_size < config.prior.embedding_dim:
        notes["prior"] = (
            f"encoder_hidden_states: text states of {config.prior.text_hidden_size} features, "
            f"padded with zeros to {config.prior.embedding_dim}"
        )
    return notes
