"""`gen1 info`: what runs here, and what a model consists of."""

import platform

import jax
import numpy as np

from gen1_jax.checkpoints.trained import open_trained
from gen1_jax.errors import UserError, counted
from gen1_jax.models.module import abstract_parameters, parameter_count
from gen1_jax.models.split import SplitConfig
from gen1_jax.pretrained.words import WORDS
from gen1_jax.versions import versions

_PACKAGES = ("gen1-jax", "jax", "jaxlib", "flax", "numpy", "av", "tokenizers", "safetensors")


def describe(model: str) -> dict:
    """Versions, devices and the parts of a model, as plain values.

    Raises:
        FolderError, LayoutError: there is no such model, or it is damaged.
    """
    source = open_trained(model)
    config = source.config
    sizes = {
        component: parameter_count(abstract_parameters(config.build(component, np.float32)))
        for component in config.components
    }
    return {
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
        "devices": [f"{device.platform} {device.id}: {device.device_kind}" for device in jax.devices()],
        "model": {
            "name": source.name,
            "trained": source.warning is None,
            "parameters": sizes,
            "weights": "int8" if getattr(source, "is_quantized", False) else "floating point",
            "follows": list(config.unet.kinds),
            "words": None if (words := getattr(source, "words", None)) is None else len(words),
            "total_parameters": sum(sizes.values()),
            "sampler": config.sampler,  # which the configuration leaves out if it is the first that there was
            "config": config.to_dict(),
        },
        "warning": source.warning,
        "caution": config.caution,
    }


def known_words(model: str) -> list[str]:
    """The words that the captions of a model had.

    Raises:
        UserError: it does not say; FolderError, LayoutError: see `describe`.
    """
    words = getattr(open_trained(model), "words", None)
    if words is None:
        raise UserError(f"{model} does not say which words it knows (it has no {WORDS})")
    return sorted(words)


def render(description: dict) -> str:
    """The description as a person reads it."""
    model = description["model"]
    config = model["config"]
    lines = [
        f"Python {description['python']}, " + ", ".join(f"{n} {v}" for n, v in description["packages"].items()),
        *(f"device {device}" for device in description["devices"]),
        "",
        f"model {model['name']}: {model['total_parameters']:,} parameters, "
        f"clips of {counted(config['num_frames'], 'frame')}, pictures of about {config['width']}x{config['height']}, "
        f"predicts {config['unet']['prediction_type']}",
        *(f"  {name:13} {count:15,}" for name, count in model["parameters"].items()),
    ]
    lines += ["kernels of int8, a scale for each output channel"] if model["weights"] == "int8" else []
    lines += [f"follows {', '.join(model['follows'])}"] if model["follows"] else []
    if "split" in config:
        split = SplitConfig(**config["split"])
        bits = f"{split.grid} x {split.grid} cells, {counted(split.groups, 'group')} of {counted(split.bits, 'bit')}"
        lines.append(f"learned split: {bits}, {split.bits_per_frame:,} bits a frame; its content is of pictures alone")
    lines += [f"layers between frames: {config['unet']['temporal']}"] if "temporal" in config["unet"] else []
    if config["schedule"].get("use_flow_sigmas"):
        steps, shift = counted(config["num_inference_steps"], "step"), config["schedule"].get("flow_shift", 1)
        lines.append(f"rectified flow: {steps} of {model['sampler']}, shift {shift:g}")
    if "distilled_scales" in config:
        ranges = ", ".join(
            f"{name} {low:g} to {high:g}"
            for name, (low, high) in zip(("w", "w_t"), config["distilled_scales"], strict=True)
        )
        steps = counted(config["num_inference_steps"], "step")
        lines.append(f"distilled for {ranges}: {steps} of {model['sampler']}")
    if model["words"] is not None:
        lines.append(f"knows {counted(model['words'], 'word')}: gen1 info --model {model['name']} --words")
    lines += [f"{model['name']}: {description['caution']}"] if description["caution"] else []
    lines += [description["warning"]] if description["warning"] else []
    return "\n".join(lines)
