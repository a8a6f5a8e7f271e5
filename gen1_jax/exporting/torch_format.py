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
from gen1_jax.diffusion.wrappers import acting_on_x0, keeping
from gen1_jax.exporting.networks import (
    ExportError,
    Networks,
    fixed_inputs,
    fixed_normal,
    refuse_flow,
    refuse_other_kinds,
    refuse_split,
    relative_difference,
)
from gen1_jax.models.conditions import Conditions, Signal
from gen1_jax.models.denoiser_config import KNOWN
from gen1_jax.models.module import Bound
from gen1_jax.models.unet import UNetConfig
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

_W, _W_T, _STEPS = 7.5, 1.5, 2  # of the step that is compared; the scales make every branch count
_LEVEL, _WEIGHT = 3, 0.7  # of every structure


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
        ExportError: PyTorch is not installed, or the denoiser is no U-Net, has layers that are not Gen-1's own or is a
            rectified flow.
    """
    refuse_other_kinds(source.config.unet, "torch")
    refuse_flow(source.config.schedule, "torch")
    refuse_split(source.config, "torch")
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
    ours, theirs = _run_jax(networks.bound("unet"), config, inputs), _run_torch(denoiser, config, inputs)
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
    *("kind", "structure_channels", "structure_kinds", "structure_optional", "known", "content_kind"),
    *("image_adapter", "temporal", "motion_mid_block", "controls"),
    "guidance_embedded",
)
"""Fields of our `UNetConfig` that PyTorch code is told of as `inputs` and `required`, or that are of layers which it
does not have."""


def layers_beyond(config: UNetConfig) -> list[str]:
    """What modeling_gen1.py has no layers for: what is published for Stable Diffusion has code of its own."""
    others = {
        "motion modules": config.temporal == "animatediff",
        "no temporal layers": config.temporal == "none",
        "ControlNets": bool(config.controls),
        "an adapter for pictures": config.image_adapter,
        "scales of guidance as inputs": config.guidance_embedded,
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
    fields = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_THEIRS}
    return fields | {"inputs": list(config.inputs.items()), "required": config.required}  # libraries sort keys of dicts


class _Inputs(NamedTuple):
    """Of one clip."""

    noise: np.ndarray
    timestep: np.ndarray
    told: Conditions


def _inputs(config: Gen1Config) -> _Inputs:
    """A clip as small as a U-Net can see, of three frames so that one has two neighbours, with all inputs."""
    unet, scale = config.unet, config.unet.downscale
    shape = 1, min(3, config.num_frames), max(4, 2 * scale), max(6, 3 * scale), unet.latent_channels
    structure = {
        name: Signal(maps, np.array([0 if name == KNOWN else _LEVEL], np.int32), np.array([_WEIGHT], np.float32))
        for name, maps in fixed_inputs(unet, shape).items()
    }
    content = {unet.content_kind: fixed_normal(1, 1, unet.cross_attention_dim)}
    timestep = DDIM().tables(config.schedule, _STEPS, unet.prediction_type).timesteps[:1]
    return _Inputs(fixed_normal(*shape), timestep, Conditions(content=content, structure=structure))


def _run_jax(unet: Bound, config: Gen1Config, inputs: _Inputs) -> dict[str, np.ndarray]:
    """The image model and the video model, each with the null content and with the content, and a step with both."""
    noise, timestep, told = jax.tree.map(jnp.asarray, inputs)
    sampler, prediction_type = DDIM(), config.unet.prediction_type
    tables = sampler.tables(config.schedule, _STEPS, prediction_type)
    both, args = told.without_content().together(told), (noise.repeat(2, axis=0), timestep.repeat(2))
    with jax.default_matmul_precision("highest"):  # accelerators round products of float32 otherwise
        image, video = (unet.denoise(*args, conditions)[0] for conditions in (both.frames(), both))
    denoise = lambda *_: temporal_guidance(image[:1], video[:1], video[1:], _W, _W_T)
    if KNOWN in told.structure:
        known, mask = jnp.split(told.structure[KNOWN].maps, [noise.shape[-1]], axis=-1)
        denoise = acting_on_x0(denoise, config.schedule, prediction_type, keeping(known, mask))
    step = sampler.step(tables, 0, sampler.init(noise), denoise(noise, timestep)).latents
    outputs = {"unet_image": image, "unet_video": video, "guided_step": step}
    return {name: np.moveaxis(np.asarray(x), -1, 2) for name, x in outputs.items()}


def _run_torch(model: Any, config: Gen1Config, inputs: _Inputs) -> dict[str, np.ndarray]:
    """The same of a `Gen1Denoiser`."""
    import torch

    to_torch = lambda x: torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 2)))
    noise, content = to_torch(inputs.noise), torch.from_numpy(inputs.told.content[config.unet.content_kind])
    told = {
        name: (to_torch(signal.maps), torch.from_numpy(signal.level), torch.from_numpy(signal.weight))
        for name, signal in inputs.told.structure.items()
    }
    twice = lambda x: torch.cat([x, x])
    scales = {"guidance_scale": _W, "temporal_guidance_scale": _W_T}
    steps = model.steps(noise, content, told, num_inference_steps=_STEPS, **scales)
    args = (
        twice(noise),
        torch.from_numpy(np.repeat(inputs.timestep, 2)),
        torch.cat([torch.zeros_like(content), content]),
        {name: tuple(map(twice, signal)) for name, signal in told.items()},
    )
    with torch.no_grad():
        outputs = {"unet_image": model.unet(*args, temporal=False), "unet_video": model.unet(*args)}
    return {name: x.numpy() for name, x in {**outputs, "guided_step": next(steps)}.items()}
