"""Which of our kernels a LoRA file means: every spelling of a module's name, made from the model's own names.

Nothing is parsed out of names whose dots became underscores: they are looked up.

    down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0             diffusers, PEFT; maybe "unet." before it
    ...attn1.processor.to_out_lora                                             diffusers before 2024, AnimateDiff
    lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0   kohya-ss/sd-scripts
    lora_unet_input_blocks_2_1_transformer_blocks_0_attn1_to_out_0             the same with a single file's names

Kernels that no checkpoint of others has, those of Gen-1's layers between frames, are called by our own paths.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from gen1_jax.models.module import Params, abstract_parameters, flatten
from gen1_jax.pretrained.family import Gen1Config
from gen1_jax.pretrained.hf_motion import MOTION, MOTION_PATHS
from gen1_jax.pretrained.hf_text import TEXT_ENCODER
from gen1_jax.pretrained.hf_unet import UNET
from gen1_jax.pretrained.layout import Layout
from gen1_jax.pretrained.spellings import MOTION_NAMES

COMPONENTS = {"unet": "lora_unet_", "text": "lora_te_"}
"""Networks that a LoRA may change, and what kohya's names of their modules begin with."""

PEFT_PREFIXES = {"unet": "unet.", "text": "text_encoder."}
"""What diffusers' names of their modules begin with."""


class FactorNames(NamedTuple):
    """What the two factors of a module are called in a file, and its alpha where it is written."""

    down: str
    up: str
    alpha: str | None = None


def _peft(component: str, module: str) -> FactorNames:
    name = PEFT_PREFIXES[component] + module
    return FactorNames(f"{name}.lora_A.weight", f"{name}.lora_B.weight")


def _kohya(component: str, module: str) -> FactorNames:
    name = COMPONENTS[component] + module.replace(".", "_")
    return FactorNames(f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha")


SPELLINGS: dict[str, Callable[[str, str], FactorNames]] = {"peft": _peft, "kohya": _kohya}
"""How files that we write are spelt: names of the factors of a module of a network."""

_DOTTED = (
    *MOTION_NAMES,
    (r"^(unet|text_encoder)\.", ""),
    (r"^base_model\.model\.", ""),
    (r"^(unet|text_encoder)\.", ""),
    (r"^encoder\.layers\.", "text_model.encoder.layers."),
    (r"\.processor\.to_out_lora$", ".to_out.0"),
    (r"\.processor\.(to_[qkv])_lora$", r".\1"),
    (r"\.self_attn\.to_(q|k|v|out)_lora$", r".self_attn.\1_proj"),
)
"""From names with dots to diffusers' and transformers' own."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A kernel of ours that a LoRA changes.

    Attributes:
        component: the network.
        path: of the kernel.
        shape: of the kernel.
        layout: how a checkpoint stores it.
    """

    component: str
    path: str
    shape: tuple[int, ...]
    layout: Layout

    @property
    def module(self) -> str:
        """What diffusers or transformers call the module that has the kernel."""
        return self.layout.their_name(self.path).removesuffix(".weight")

    def ours(self, weight: np.ndarray) -> np.ndarray:
        """A weight as PyTorch stores it, or a change of one, as our kernel.

        Raises:
            ValueError: it has another shape.
        """
        return self.layout.to_ours(self.path, weight, self.shape)

    def theirs(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel, or a factor of a change of one, of as many axes as ours, as PyTorch stores it."""
        (weight,) = self.layout.to_theirs({self.path: kernel}).values()
        return weight


class Targets(Mapping[str, Target]):
    """The kernels of a model by every spelling of their modules' names.

    Args:
        networks: parameters of networks, abstract or not, by the name of the network.
    """

    def __init__(self, networks: Mapping[str, Params]):
        self._by_spelling: dict[str, Target] = {}
        for component, prefix in COMPONENTS.items():
            targets = {target.module: target for target in _kernels(component, networks.get(component, {}))}
            layers = sum(re.fullmatch(r"down_blocks\.0\.resnets\.\d+\.conv1", name) is not None for name in targets)
            for name, target in targets.items():
                spellings = [name, prefix + name.replace(".", "_")]
                if component == "unet":
                    spellings += [prefix + old.replace(".", "_") for old in single_file_names(name, layers)]
                self._by_spelling |= dict.fromkeys(spellings, target)

    @classmethod
    def of(cls, config: Gen1Config) -> "Targets":
        """Those of a model; nothing is allocated."""
        names = [name for name in COMPONENTS if name in config.components]
        return cls({name: abstract_parameters(config.build(name, np.float32)) for name in names})

    def __getitem__(self, name: str) -> Target:
        for pattern, replacement in () if name in self._by_spelling else _DOTTED:
            name = re.sub(pattern, replacement, name)
        return self._by_spelling[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_spelling)

    def __len__(self) -> int:
        return len(self._by_spelling)


_OWN = Layout()  # our own names


def _kernels(component: str, parameters: Params) -> Iterator[Target]:
    flat = flatten(parameters)
    has_motion = any(".motions." in path for path in flat)  # Gen-1's temporal layers are nobody's but ours
    for path, parameter in flat.items():
        layout = TEXT_ENCODER if component == "text" else UNET
        if has_motion and re.search(MOTION_PATHS, path):
            layout = MOTION
        if path.endswith(".kernel"):
            yield Target(component, path, tuple(parameter.shape), _OWN if layout.is_new(path) else layout)


_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_out": "out.2",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_BLOCK = re.compile(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.((\w+)\.(\d+))\.(.+)")


def single_file_names(module: str, layers: int) -> list[str]:
    """What single files (CompVis/latent-diffusion) call a module of the U-Net; an upsampler has two possible names.

    Args:
        module: diffusers' name.
        layers: residual blocks of a level on the way down.
    """
    if module in _OUTSIDE:
        return [_OUTSIDE[module]]
    found = _BLOCK.fullmatch(module)
    if found is None:
        return []
    way, level, part, kind, number, inside = found.groups()
    inside = _RESNET.get(inside, inside)
    if way is None:
        return [f"middle_block.{_MIDDLE[part]}.{inside}"] if part in _MIDDLE else []
    place = int(level) * (layers + 1) + int(number)
    if kind == "downsamplers":
        return [f"input_blocks.{place + layers + 1}.0.op"]
    if kind == "upsamplers":  # after the attention, where the level has one
        return [f"output_blocks.{place + layers}.{after}.{inside}" for after in (1, 2)]
    if kind not in ("resnets", "attentions"):
        return []
    blocks = f"input_blocks.{place + 1}" if way == "down" else f"output_blocks.{place}"
    return [f"{blocks}.{int(kind == 'attentions')}.{inside}"]
