"""What makes a folder of diffusers' classes edit videos: model_index.json, pipeline.py, and the layers between frames.

temporal/  config.json and tensors of `TemporalLayers`, temporal_layers.py, modeling_gen1.py

The U-Net of the pipeline is put together of unet/ and temporal/, so that no tensor is there twice. The code, which is
that of for_diffusers/ and modeling_gen1.py, is copied; it is not part of this program.
"""

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

from gen1_jax.exporting.networks import Networks, write_json
from gen1_jax.exporting.torch_format import LAYOUT, MODELING, compare, layers_beyond, load_modeling, unet_fields
from gen1_jax.models.module import Params
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.tensors import read_tensors, save_tensors

_TEMPORAL, _LAYERS = "temporal", "temporal_layers"
_CLASS = ["pipeline", "Gen1VideoPipeline"]
_SETTINGS = (
    *("height", "width", "num_frames", "window_overlap", "guidance_scale", "num_inference_steps"),
    *("prior_guidance_scale", "prior_num_inference_steps", "depth_quantiles"),
)
"""Fields of our `Gen1Config` that are arguments of the pipeline."""


def is_video_model(config: Gen1Config) -> bool:
    """Whether there is a pipeline for it: of Gen-1's own layers; public parts have pipelines of their own.

    Its code has no sampler of rectified flow.
    """
    if config.schedule.use_flow_sigmas:
        return False
    return config.clip is not None and bool(config.unet.structure_channels) and not layers_beyond(config.unet)


def write_video_pipeline(config: Gen1Config, unet: Params, folder: Path) -> None:
    """Adds to a folder what it lacks.

    Args:
        config: of the model.
        unet: its parameters, in the type of the export.
        folder: with the networks, each in a folder of its own.
    """
    temporal, here = folder / _TEMPORAL, Path(__file__).parent
    temporal.mkdir()
    tensors = LAYOUT.to_theirs(unet)
    spatial = UNET.to_theirs(unet)
    tensors = {name: value for name, value in tensors.items() if name not in spatial}
    save_tensors(temporal, "diffusion_pytorch_model", tensors, layout="pt")
    shutil.copyfile(here / MODELING, temporal / MODELING)
    for file in (f"{_CLASS[0]}.py", f"{_TEMPORAL}/{_LAYERS}.py"):
        shutil.copyfile(here / "for_diffusers" / file, folder / file)
    version = {"_diffusers_version": importlib.metadata.version("diffusers")}
    write_json(temporal / "config.json", {"_class_name": "TemporalLayers", **version, "unet": unet_fields(config.unet)})
    settings = {name: getattr(config, name) for name in _SETTINGS} | {"structures": _structures(config)}
    write_json(folder / "model_index.json", {"_class_name": _CLASS, **version, **_components(config), **settings})


def compare_video_model(config: Gen1Config, networks: Networks, folder: Path) -> dict[str, float]:
    """How far the network that the pipeline puts together is from ours; see `torch_format.compare`."""
    import torch

    modeling = load_modeling(folder / _TEMPORAL)
    network = modeling.SpaceTimeUNet(modeling.UNetConfig(**unet_fields(config.unet)))
    stored = {name: value for part in ("unet", _TEMPORAL) for name, value in read_tensors(folder / part).items()}
    in_float32 = lambda name, like: torch.tensor(stored[name].astype("float32")).view(like.shape)
    network.load_state_dict({name: in_float32(name, like) for name, like in network.state_dict().items()})
    schedule = config.schedule.to_dict()
    clean = schedule.pop("set_alpha_to_one", False)
    levels, windows = modeling.alphas_cumprod(**schedule), (config.num_frames, config.window_overlap)
    denoiser = modeling.Gen1Denoiser(network, levels, config.vae.scaling_factor, *windows, clean)
    return compare(config, networks, denoiser)


def _structures(config: Gen1Config) -> dict[str, dict[str, Any]]:
    """What the pipeline has to know of pictures of each kind of structure."""
    kinds = {name: config.structure_kind(name) for name in config.unet.structures}
    return {
        name: {"channels": kind.channels, "degrades": kind.degrades, "resampling": kind.resampling}
        for name, kind in kinds.items()
    }


def _components(config: Gen1Config) -> dict[str, list[str | None]]:
    """The library and the class of each folder; none for a network that the model lacks."""
    classes = {
        "unet": ("diffusers", "UNet2DConditionModel"),
        _TEMPORAL: (_LAYERS, "TemporalLayers"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "DDIMScheduler"),
        "clip": ("transformers", "CLIPModel"),
        "tokenizer": ("transformers", "PreTrainedTokenizerFast"),
        "depth": ("transformers", "DPTForDepthEstimation"),
        "prior": ("diffusers", "PriorTransformer"),
        "prior_scheduler": ("diffusers", "UnCLIPScheduler"),
    }
    lacking = {"depth"} if config.depth is None or config.depth.kind != "dpt" else set()
    lacking |= {"prior", "prior_scheduler"} if config.prior is None else set()
    return {name: [None, None] if name in lacking else list(which) for name, which in classes.items()}
