"""The denoiser for PyTorch: config.json, unet.safetensors and modeling_gen1.py, which runs them and nothing else needs.

Parameters of spatial layers have diffusers' names, those of temporal layers our own; all are stored as torch stores
them. The file is not part of this program: it is copied, and imported from the folder only to be compared.
"""

import dataclasses
import importlib.machinery
import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gen1_jax.diffusion import DDIM, temporal_guidance
from gen1_jax.exporting.networks import ExportError, Networks, fixed_normal, relative_difference
from gen1_jax.models.module import Bound
from gen1_jax.models.unet import UNetConfig, conditions_of
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.folder import ModelSource
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.tensors import save_tensors

MODELING = "modeling_gen1.py"

LAYOUT = Layout(
    renames=(
        *UNET.renames,
        (r"\.temporal\.block\.", ".temporal.transformer_blocks.0."),
        (r"(\.temporal_conv\d)\.conv\.", r"\1."),
    ),
)
"""Every parameter of the U-Net as modeling_gen1.py has it; a (3, 1, in, out) kernel over time is (out, in, 3, 1)."""

_W, _W_T, _LEVEL, _STEPS = 7.5, 1.5, 3, 2  # of the step that is compared; the scales make every branch count


def write_torch(source: ModelSource, folder: Path, dtype: np.dtype) -> dict[str, float]:
    """Fills a folder with the denoiser and its code, and compares what it computes with the JAX network.

    Args:
        source: the model.
        folder: is there, and empty.
        dtype: float32, bfloat16 or float16, of every tensor.

    Returns:
        The largest relative difference of "unet_image", "unet_video" and "guided_step" (a step of DDIM under guidance),
        computed in float32 by both with the weights as written.

    Raises:
        ExportError: PyTorch is not installed, or the U-Net has layers that are not Gen-1's own.
    """
    try:
        import torch  # noqa: F401, to refuse before anything is written
    except ImportError:
        raise ExportError("the torch format needs torch: pip install torch") from None
    if found := layers_beyond(source.config.unet):
        raise ExportError(f"the torch format is of Gen-1's own U-Net, and this one has {', '.join(found)}")
    networks = Networks(source, dtype)
    (folder / "config.json").write_text(json.dumps(_config(source.config), indent=2) + "\n", encoding="utf-8")
    save_tensors(folder, "unet", LAYOUT.to_theirs(networks["unet"]), layout="pt")
    shutil.copyfile(Path(__file__).with_name(MODELING), folder / MODELING)
    return compare(source.config, networks, load_modeling(folder).Gen1Denoiser.from_pretrained(folder))


def compare(config: Gen1Config, networks: Networks, denoiser: Any) -> dict[str, float]:
    """The largest relative differences between the JAX network and a `Gen1Denoiser`; see `write_torch`."""
    inputs = _inputs(config)
    ours, theirs = _run_jax(networks.bound("unet"), config, inputs), _run_torch(denoiser, inputs)
    return {name: relative_difference(theirs[name], ours[name]) for name in ours}


def load_modeling(folder: Path) -> ModuleType:
    """modeling_gen1.py of a folder as a module; no bytecode is left beside it."""
    path = folder / MODELING
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=_WithoutBytecode(path.stem, str(path)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _WithoutBytecode(importlib.machinery.SourceFileLoader):
    def set_data(self, path, data, **kwargs) -> None:
        """Keeps nothing."""


_NOT_THEIRS = (
    *("kind", "structure_kinds", "structure_optional", "known", "content_kind"),
    *("image_adapter", "temporal", "motion_mid_block", "controls"),
    "guidance_embedded",
)
"""Fields of our `UNetConfig` that name what the tensors are, which PyTorch code need not know, or that are of layers
which it does not have."""


def layers_beyond(config: UNetConfig) -> list[str]:
    """What modeling_gen1.py has no layers for: what is published for Stable Diffusion has code of its own."""
    others = {
        "motion modules": config.temporal == "animatediff",
        "no temporal layers": config.temporal == "none",
        "ControlNets": bool(config.controls),
        "an adapter for pictures": config.image_adapter,
        "scales of guidance as inputs": config.guidance_embedded,
        "several inputs": len(config.inputs) > 1 or config.known,
    }
    return [what for what, there in others.items() if there]


def _config(config: Gen1Config) -> dict[str, Any]:
    """The arguments of the classes in modeling_gen1.py."""
    return {
        "unet": unet_fields(config.unet),
        "schedule": config.schedule.to_dict(),
        "scaling_factor": config.vae.scaling_factor,
        "num_frames": config.num_frames,
        "window_overlap": config.window_overlap,
    }


def unet_fields(config: UNetConfig) -> dict[str, Any]:
    """The fields of the `UNetConfig` in modeling_gen1.py."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_THEIRS}


class _Inputs(NamedTuple):
    """Of one clip, channels last."""

    noise: np.ndarray
    content: np.ndarray
    structure: np.ndarray | None
    timestep: int


def _inputs(config: Gen1Config) -> _Inputs:
    """A clip as small as a U-Net can see, of three frames so that one has two neighbours."""
    unet, scale = config.unet, config.unet.downscale
    size = min(3, config.num_frames), max(4, 2 * scale), max(6, 3 * scale)
    latents = fixed_normal(1, *size, unet.latent_channels + unet.structure_channels)
    noise, structure = np.split(latents, [unet.latent_channels], axis=-1)
    content = fixed_normal(1, 1, unet.cross_attention_dim)
    timestep = DDIM().tables(config.schedule, _STEPS, unet.prediction_type).timesteps[0]
    return _Inputs(noise, content, structure if unet.structure_channels else None, int(timestep))


def _run_jax(unet: Bound, config: Gen1Config, inputs: _Inputs) -> dict[str, np.ndarray]:
    """The image model and the video model, each with the null content and with the content, and a step with both."""
    noise, content, structure, timestep = inputs
    sampler = DDIM()
    tables = sampler.tables(config.schedule, _STEPS, config.unet.prediction_type)
    twice = lambda x: None if x is None else jnp.concatenate([x, x])
    args = (
        twice(noise),
        jnp.full(2, timestep),
        jnp.concatenate([jnp.zeros_like(content), content]),
        twice(structure),
        jnp.full(2, _LEVEL),
    )
    told = conditions_of(config.unet, *args[2:])
    with jax.default_matmul_precision("highest"):  # accelerators round products of float32 otherwise
        image, video = unet.denoise(*args[:2], told.frames())[0], unet(*args)
    guided = temporal_guidance(image[:1], video[:1], video[1:], _W, _W_T)
    step = sampler.step(tables, 0, sampler.init(jnp.asarray(noise)), guided).latents
    outputs = {"unet_image": image, "unet_video": video, "guided_step": step}
    return {name: np.moveaxis(np.asarray(x), -1, 2) for name, x in outputs.items()}


def _run_torch(model: Any, inputs: _Inputs) -> dict[str, np.ndarray]:
    """The same of a `Gen1Denoiser`."""
    import torch

    to_torch = lambda x: None if x is None else torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 2)))
    twice = lambda x: None if x is None else torch.cat([x, x])
    noise, structure, content = to_torch(inputs.noise), to_torch(inputs.structure), torch.from_numpy(inputs.content)
    scales = {"guidance_scale": _W, "temporal_guidance_scale": _W_T}
    steps = model.steps(noise, content, structure, _LEVEL, num_inference_steps=_STEPS, **scales)
    args = (
        twice(noise),
        torch.full((2,), inputs.timestep),
        torch.cat([torch.zeros_like(content), content]),
        twice(structure),
        torch.full((2,), _LEVEL),
    )
    with torch.no_grad():
        outputs = {"unet_image": model.unet(*args, temporal=False), "unet_video": model.unet(*args)}
    return {name: x.numpy() for name, x in {**outputs, "guided_step": next(steps)}.items()}
