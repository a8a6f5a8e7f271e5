"""What a public checkpoint is, told by its tensors' names and shapes: so that a swapped or foreign file is said to be.

names, shapes ─► a variant that nothing here runs ─► refused, with the reason
              └► a kind of `KINDS` ─► is it the one that the option takes?
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gen1_jax.pretrained.tensors import FolderError

V1_POSITIONS = 24
"""Frame positions of AnimateDiff's first motion modules; later ones have 32."""

_ONLY_SD1 = "only Stable Diffusion 1.x and its fine-tunes are read"


class Signs:
    """What rules ask of a checkpoint. Nothing is read but names and shapes.

    Args:
        tensors: whatever has a shape, by name.
    """

    def __init__(self, tensors: Mapping[str, Any]):
        self._tensors, self._text = tensors, "\n".join(tensors)

    def has(self, pattern: str) -> bool:
        """Whether the names, a line each, have the pattern somewhere; ^ and $ are the ends of a name."""
        return re.search(pattern, self._text, re.MULTILINE) is not None

    def size(self, pattern: str, axis: int) -> int | None:
        """The size of the first tensor that has the pattern in its name along an axis; None if there is none."""
        found = next((x for name, x in self._tensors.items() if re.search(pattern, name)), None)
        return found.shape[axis] if found is not None and len(found.shape) > axis else None

    def largest(self, pattern: str) -> int | None:
        """The largest number that the pattern's group matches."""
        return max(map(int, re.findall(pattern, self._text, re.MULTILINE)), default=None)


_CONV_IN = r"^(module\.|model\.diffusion_model\.|control_model\.)?(conv_in|input_blocks\.0\.0)\.weight$"
_CONTEXT = r"\.attn2\.to_k\.weight$"
_MOTION = r"(motion_modules|motion_module)\."
_HINT = r"(controlnet_cond_embedding|input_hint_block)\."
_LORA = r"(\.lora_(up|down)\.|\.lora_[AB]\.|[._]lora\.(up|down)\.|lora_linear_layer\.|\.hada_w1|\.lokr_w1|^unet:\d+:)"


def _input_channels(channels: int) -> Callable[[Signs], bool]:
    return lambda signs: signs.size(_CONV_IN, 1) == channels


@dataclasses.dataclass(frozen=True)
class _Variant:
    """A network that looks like one of ours and is not."""

    what: str
    shows: Callable[[Signs], bool]
    reason: str


_VARIANTS = (
    _Variant(
        "a Control-LoRA",
        lambda signs: (
            signs.has(r"^lora_controlnet$") or signs.has(r"^(input_blocks|down_blocks|zero_convs)\.\S*\.(up|down)$")
        ),
        "which holds differences to one base model alone: take the full ControlNet (control_v11...)",
    ),
    _Variant(
        "an IP-Adapter FaceID",
        lambda signs: (
            (signs.has(r"^image_proj\.(perceiver_resampler|norm)\.") and signs.has(r"^image_proj\.proj\.0\."))
            or (signs.has(r"^ip_adapter\.") and signs.has(_LORA))
        ),
        "which needs embeddings of faces: take ip-adapter-plus-face_sd15",
    ),
    _Variant(
        "an IP-Adapter of SDXL",
        lambda signs: signs.size(r"^ip_adapter\.\d+\.to_k_ip\.weight$", 1) == 2048,
        "take one of Stable Diffusion 1.5 (ip-adapter-plus_sd15)",
    ),
    _Variant(
        "an IP-Adapter for the image encoder ViT-bigG",
        lambda signs: signs.size(r"^image_proj\.proj\.weight$", 1) == 1280,
        "take one for ViT-H (ip-adapter_sd15, ip-adapter-plus_sd15)",
    ),
    _Variant(
        "motion modules of HotshotXL",
        lambda signs: signs.has(r"(temporal_attentions|pos_encoder\.positional_encoding)"),
        "which are for SDXL: take AnimateDiff v3, v2 or AnimateLCM",
    ),
    _Variant(
        "AnimateLCM-I2V",
        lambda signs: signs.has(r"(^|\.)img_encoder\."),
        "which animates a first picture: take AnimateLCM",
    ),
    _Variant(
        "a SparseCtrl",
        lambda signs: (
            signs.has(_MOTION)
            and (signs.has(_HINT) or (signs.has(r"attention_blocks\.0\.") and not signs.has(r"attention_blocks\.1\.")))
        ),
        "which guides a few frames only: take a ControlNet",
    ),
    _Variant(
        "PIA",
        lambda signs: signs.has(_MOTION) and signs.size(_CONV_IN, 1) == 9,
        "which animates a first picture, with norms over the clip: take AnimateDiff v3, v2 or AnimateLCM",
    ),
    _Variant(
        "AnimateDiff's motion modules v1",
        lambda signs: signs.has(_MOTION) and signs.size(r"pos_(encoder|embed)\.pe$", 1) == V1_POSITIONS,
        "which were trained with the U-Net's norms over all frames of a clip, here they are over each: take v3 or v2",
    ),
    _Variant(
        "motion modules of SDXL",
        lambda signs: signs.has(_MOTION) and signs.largest(r"^\S*down_blocks\.(\d+)\.") == 2,
        "take AnimateDiff v3, v2 or AnimateLCM, which are for Stable Diffusion 1.5",
    ),
    _Variant("a T2I-Adapter", lambda signs: signs.has(r"^(adapter\.)?body\.\d+\."), "take a ControlNet"),
    _Variant(
        "a textual inversion",
        lambda signs: signs.has(r"^(emb_params|string_to_param\S*)$"),
        "which is a word of the prompt and not a network",
    ),
    _Variant("of Stable Diffusion 3", lambda signs: signs.has(r"joint_blocks\."), _ONLY_SD1),
    _Variant("of FLUX", lambda signs: signs.has(r"double_blocks\."), _ONLY_SD1),
    _Variant(
        "of SDXL",
        lambda signs: (
            signs.has(r"(^conditioner\.embedders\.|(^|\.)(label_emb|add_embedding)\.)")
            or signs.size(_CONTEXT, 1) == 2048
        ),
        _ONLY_SD1,
    ),
    _Variant(
        "of Stable Diffusion 2",
        lambda signs: signs.has(r"^cond_stage_model\.model\.") or signs.size(_CONTEXT, 1) == 1024,
        _ONLY_SD1,
    ),
    _Variant(
        "a U-Net of LCM that is told the guidance scale",
        lambda signs: signs.has(r"^time_embedding\.cond_proj\."),
        "take the model that it was made from, with LCM's LoRA",
    ),
    _Variant("an inpainting model (9 input channels)", _input_channels(9), "take the model that it was made from"),
    _Variant("of InstructPix2Pix (8 input channels)", _input_channels(8), "take the model that it was made from"),
    _Variant("a depth model (5 input channels)", _input_channels(5), "take a model with a ControlNet of depth"),
)

KINDS: dict[str, tuple[str, Callable[[Signs], bool]]] = {
    "ip-adapter": ("an IP-Adapter", lambda signs: signs.has(r"^(image_proj|ip_adapter)\.")),
    "lora": ("a LoRA", lambda signs: signs.has(_LORA)),
    "motion": (
        "motion modules",
        lambda signs: signs.has(_MOTION) and not signs.has(r"\.resnets\.") and not signs.has(r"^pretrained\."),
    ),
    "controlnet": ("a ControlNet", lambda signs: signs.has(r"(zero_convs|controlnet_down_blocks)\.")),
    "checkpoint": (
        "a whole model in one file",
        lambda signs: signs.has(r"^model\.diffusion_model\.") and signs.has(r"^first_stage_model\."),
    ),
    "unet": ("a U-Net", lambda signs: signs.has(r"(up_blocks|output_blocks)\.") and signs.has(r"(time_embed)")),
    "vae": ("an autoencoder", lambda signs: signs.has(r"^(first_stage_model\.)?(encoder|decoder)\.conv_(in|out)\.")),
    "image-encoder": (
        "a CLIP image encoder",
        lambda signs: signs.has(r"(^|\.)vision_model\.") and not signs.has(r"(^|\.)text_model\."),
    ),
    "clip": ("a CLIP with both towers", lambda signs: signs.has(r"vision_model\.") and signs.has(r"text_model\.")),
    "text": ("a text encoder", lambda signs: signs.has(r"(^|\.)(text_model|encoder\.layers\.\d+\.self_attn)\.")),
    "depth": ("a depth network", lambda signs: signs.has(r"^(dpt|neck|(depth_)?head)\.")),
    "softedge": ("an edge detector (HED)", lambda signs: signs.has(r"^block1\.convs?")),
}
"""What each option of `gen1 import` takes, by the option's name: what to call it, and its sign. The first that fits
counts."""


def check_is(option: str, path: Path | str, tensors: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that shows to be another than an option takes.

    Args:
        option: a key of `KINDS`.
        path: what to call it.
        tensors: whatever has a shape and a dtype, by name; nothing is read.

    Raises:
        FolderError: a variant that nothing here runs, the reason with it; another kind, and its option; numbers of
            eight bits.
    """
    signs = Signs(tensors)
    for variant in _VARIANTS:
        if variant.shows(signs):
            raise FolderError(f"{path} is {variant.what}, {variant.reason}")
    found = next((kind for kind, (_, shows) in KINDS.items() if shows(signs)), None)
    what = KINDS[option][0]
    if found is None:
        shown = next(iter(sorted(tensors)), None)
        raise FolderError(f"{path} is not {what}: " + (f"it has {shown}" if shown else "it has no tensors"))
    if found != option:
        raise FolderError(f"{path} is {KINDS[found][0]}, not {what}: give it with --{_usage(found)}")
    if eights := sorted(name for name, x in tensors.items() if str(x.dtype).upper().startswith(("F8", "FLOAT8"))):
        raise FolderError(f"{path} has numbers of 8 bits ({eights[0]}): take its float16 or float32 version")


def _usage(kind: str) -> str:
    return "controlnet KIND=PATH" if kind == "controlnet" else kind
