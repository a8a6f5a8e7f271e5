"""How far the networks of an exported folder, run by diffusers and transformers, are from ours.

torch and the two libraries are imported where they are used: the other formats do without.
"""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.diffusion import default_sampler, get_sampler, sample
from gen1_jax.diffusion.schedule import shifted
from gen1_jax.exporting.networks import (
    ExportError,
    Networks,
    fixed_inputs,
    fixed_normal,
    fixed_pictures,
    relative_difference,
)
from gen1_jax.exporting.public_parity import UNetParts, measure_image_encoder, measure_image_tokens, measure_text
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.unet.control import concatenated
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource

_TEXTS = ("a clay cat in the snow", "")
_MOST_STEPS = 10


def measure(source: ModelSource, networks: Networks, folder: Path) -> dict[str, float]:
    """Largest relative difference of what networks, scheduler and tokenizer give, on fixed inputs.

    Raises:
        ExportError: a class lacks tensors in its folder or has no place for some.
    """
    import torch

    measures = {"unet": _unet, "vae": _vae, "clip": measure_clip, "depth": _depth, "prior": _prior}
    alone = {
        "text": lambda *given: measure_text(*given, folder / "text_encoder", _load, _TEXTS),
        "image_encoder": lambda *given: measure_image_encoder(*given, folder / "image_encoder", _load),
        "image_tokens": lambda *given: measure_image_tokens(*given, folder, _load),
    }  # and "softedge" is written in its authors' names, for whom there is no class
    parity = {}
    with torch.no_grad(), quiet(), jax.default_matmul_precision("highest"):
        for component in source.config.components:
            if component in measures:
                parity |= measures[component](source, networks, folder / component)
            elif component in alone:
                parity[component] = alone[component](source, networks)
        parity["scheduler"] = _scheduler(source.config, folder / "scheduler")
        parity["tokenizer"] = _tokenizer(source, folder / "tokenizer")
    return parity


def _unet(source: ModelSource, networks: Networks, folder: Path) -> dict[str, float]:
    import torch
    from diffusers import UNet2DConditionModel

    config, side = source.config.unet, 2 * source.config.unet.downscale
    latents = fixed_normal(2, 1, side, side, config.latent_channels)
    content = fixed_normal(2, 1, config.cross_attention_dim, seed=1)
    timesteps, levels = np.array([3, 900], np.int32), np.array([0, 5], np.int32)
    maps = fixed_inputs(config, latents.shape)
    signals = {name: Signal.of(jnp.asarray(x), jnp.asarray(levels)) for name, x in maps.items()}
    told = Conditions(content={config.content_kind: jnp.asarray(content)}, structure=signals)
    beside = concatenated(config, told, jnp.asarray(latents), jnp.asarray(timesteps)).first
    inputs = [latents] if beside is None else [latents, beside]
    theirs = _load(UNet2DConditionModel, folder)(
        _channels_first(np.concatenate(inputs, axis=-1)[:, 0]), torch.tensor(timesteps), torch.tensor(content)
    )
    ours = networks.bound("unet")
    prediction, _ = ours.denoise(latents, timesteps, told)
    parity = {"unet": relative_difference(prediction[:, 0], _channels_last(theirs.sample))}
    return parity | UNetParts(source, ours, folder.parent, _load).measure()


def _vae(source: ModelSource, networks: Networks, folder: Path) -> dict[str, float]:
    from diffusers import AutoencoderKL

    config = source.config.vae
    images = fixed_pictures(2, 4 * config.downscale, 4 * config.downscale, config.in_channels)
    latents = fixed_normal(2, 4, 4, config.latent_channels)
    theirs, ours = _load(AutoencoderKL, folder), networks.bound("vae")
    moments = theirs.encode(_channels_first(images)).latent_dist
    encoded = map(_channels_last, (moments.mean, moments.logvar))
    decoded = _channels_last(theirs.decode(_channels_first(latents)).sample)
    return {
        "vae_encode": max(map(relative_difference, ours.encode(images), encoded)),
        "vae_decode": relative_difference(ours.decode(latents), decoded),
    }


def measure_clip(source: ModelSource, networks: Networks, folder: Path) -> dict[str, float]:
    """Of CLIP in a folder of CLIPModel; see `measure`."""
    import torch
    from transformers import CLIPModel

    theirs, ours = _load(CLIPModel, folder), networks.bound("clip")
    size = source.config.clip.vision.image_size
    pixels, (ids, _) = fixed_normal(2, size, size, 3), source.tokenizer()(_TEXTS)
    states = theirs.text_model(torch.tensor(ids).long())
    text = (theirs.text_projection(states.pooler_output), states.last_hidden_state)
    image = theirs.visual_projection(theirs.vision_model(_channels_first(pixels)).pooler_output)
    return {
        "clip_image": relative_difference(ours.encode_image(pixels), image),
        "clip_text": max(map(relative_difference, ours.encode_text_tokens(ids), text)),
        "clip_logit_scale": relative_difference(ours.params["logit_scale"], theirs.logit_scale),
    }


def _depth(source: ModelSource, networks: Networks, folder: Path) -> dict[str, float]:
    from transformers import DPTForDepthEstimation

    size, multiple = source.config.depth.image_size, source.config.depth.size_multiple
    side = -(-size // multiple) * multiple
    pixels = fixed_pictures(2, side, side, 3)  # the class takes square pictures only
    theirs = _load(DPTForDepthEstimation, folder)(_channels_first(pixels)).predicted_depth
    return {"depth": relative_difference(networks.bound("depth")(pixels), theirs)}


def _prior(source: ModelSource, networks: Networks, folder: Path) -> dict[str, float]:
    import torch
    from diffusers import PriorTransformer

    config = source.config.prior
    ids, mask = source.tokenizer()(_TEXTS)
    noisy, text = (fixed_normal(len(ids), config.embedding_dim, seed=seed) for seed in (0, 1))
    states = fixed_normal(*ids.shape, config.text_hidden_size, seed=2)
    padded = np.pad(states, ((0, 0), (0, 0), (0, config.embedding_dim - config.text_hidden_size)))
    timesteps = np.array([3, 900], np.int32)
    theirs, ours = _load(PriorTransformer, folder), networks.bound("prior")
    embedding = theirs(*map(torch.tensor, (noisy, timesteps, text, padded, mask))).predicted_image_embedding
    expected = ours(noisy, timesteps, text, states, mask) * ours.params["clip_std"] + ours.params["clip_mean"]
    return {"prior": relative_difference(expected, theirs.post_process_latents(embedding))}


def _scheduler(config: Gen1Config, folder: Path) -> float:
    """Of samples that a denoiser without a network leads to."""
    import torch
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    is_flow, total = config.schedule.use_flow_sigmas, config.schedule.num_train_timesteps
    theirs = (FlowMatchEulerDiscreteScheduler if is_flow else DDIMScheduler).from_pretrained(folder)
    steps = max(n for n in range(1, _MOST_STEPS + 1) if total % n == 0)  # others they do not step through alike
    sampler = get_sampler(default_sampler(config.schedule), config.schedule)
    if is_flow:  # ours are whole timesteps; it is told times before its shift
        visited = sampler.tables(config.schedule, steps, config.unet.prediction_type).timesteps
        theirs.set_timesteps(sigmas=shifted(visited / total, 1 / theirs.shift).tolist())
    else:
        theirs.set_timesteps(steps)
    noise = fixed_normal(1, 64)
    latents = torch.tensor(noise)
    for t in theirs.timesteps:
        latents = theirs.step(torch.tanh(latents), t, latents).prev_sample
    denoise = lambda x, timesteps: jnp.tanh(x)
    ours = sample(denoise, config.schedule, sampler, jnp.asarray(noise), steps, config.unet.prediction_type)
    return relative_difference(ours, latents)


def _tokenizer(source: ModelSource, folder: Path) -> float:
    from transformers import PreTrainedTokenizerFast

    ours = source.tokenizer()
    theirs = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    ids = theirs(list(_TEXTS), padding="max_length", truncation=True, max_length=ours.length)["input_ids"]
    return relative_difference(ours(_TEXTS)[0], ids)


def _load(network_class: type, folder: Path):
    """The network in a folder, in float32, refused unless it takes every tensor and misses none."""
    network, info = network_class.from_pretrained(
        folder, output_loading_info=True, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
    )
    if problems := {problem: sorted(map(str, names)) for problem, names in info.items() if names}:
        raise ExportError(f"{network_class.__name__} does not load {folder.name}: {problems}")
    return network.float().eval()


@contextlib.contextmanager
def quiet():
    """Neither library reports how it goes about loading."""
    import diffusers
    import transformers

    loggers = (diffusers.utils.logging, transformers.utils.logging)
    before = [logger.get_verbosity() for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    try:
        for logger in loggers:
            logger.set_verbosity_error()
            logger.disable_progress_bar()
        yield
    finally:
        for logger, verbosity in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bars:
                logger.enable_progress_bar()


def _channels_first(x: np.ndarray):
    import torch

    return torch.tensor(np.moveaxis(np.asarray(x), -1, 1).copy())


def _channels_last(x) -> np.ndarray:
    return np.moveaxis(x.numpy(), 1, -1)
