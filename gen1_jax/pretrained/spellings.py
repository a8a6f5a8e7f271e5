"""Checkpoints in other spellings, seen under diffusers' names, so that one `Layout` a network serves them all.

    ldm_unet ldm_vae ldm_text    parts of a single file (CompVis/latent-diffusion), which most fine-tunes are
    ldm_control                  a ControlNet as its authors store it
    motion_original              motion modules as AnimateDiff's authors store them

Each is a view: a mapping of the same tensors, none of them read, without those that belong to no parameter of the part.
The files number the blocks of a U-Net through, where diffusers counts levels and layers: `_Numbering`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Tensors = Mapping[str, Any]
"""Arrays or `StoredTensor`s by name."""

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
TEXT_PREFIX, CONTROL_PREFIX = "cond_stage_model.transformer.", "control_model."


class Renamed(Mapping):
    """Tensors under other names.

    Args:
        tensors: by their names in the file.
        rename: the new name of a tensor, None for one that is left out.
    """

    def __init__(self, tensors: Tensors, rename: Callable[[str], str | None]):
        renamed = [(rename(name), name) for name in tensors]
        self._tensors, self._names = tensors, {new: name for new, name in renamed if new is not None}

    def __getitem__(self, name: str) -> Any:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_WHOLE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "input_hint_block.0": "controlnet_cond_embedding.conv_in",
    "middle_block_out.0": "controlnet_mid_block",
}
_MIDDLE = ("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1")
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)")


@dataclasses.dataclass(frozen=True)
class _Numbering:
    """How the blocks of a U-Net are numbered: level by level, resnets and a downsampler, or resnets and an upsampler.

    Attributes:
        layers: residual blocks of a level on the way down.
        last_hint: number of the last convolution of a ControlNet's hint.
    """

    layers: int
    last_hint: int | None

    @classmethod
    def of(cls, names: Sequence[str]) -> "_Numbering":
        """That of a file: the first downsampler stands behind the layers of the first level."""
        down = [int(found[1]) for name in names if (found := re.match(r"input_blocks\.(\d+)\.0\.op\.", name))]
        blocks = [int(found[1]) for name in names if (found := re.match(r"input_blocks\.(\d+)\.", name))]
        hints = [int(found[1]) for name in names if (found := re.match(r"input_hint_block\.(\d+)\.", name))]
        return cls(min(down, default=max(blocks, default=0) + 1) - 1, max(hints, default=None))

    def name(self, name: str) -> str:
        """diffusers' name of a tensor of a U-Net or a ControlNet; one that is neither keeps its own."""
        module, _, leaf = name.rpartition(".")
        if self.last_hint is not None and module == f"input_hint_block.{self.last_hint}":
            return f"controlnet_cond_embedding.conv_out.{leaf}"
        if module in _WHOLE:
            return f"{_WHOLE[module]}.{leaf}"
        if found := re.fullmatch(r"input_hint_block\.(\d+)", module):
            return f"controlnet_cond_embedding.blocks.{int(found[1]) // 2 - 1}.{leaf}"
        if found := re.fullmatch(r"zero_convs\.(\d+)\.0", module):
            return f"controlnet_down_blocks.{found[1]}.{leaf}"
        if found := re.fullmatch(r"middle_block\.([012])\.(.+)", name):
            return f"{_MIDDLE[int(found[1])]}.{_inside(found[2])}"
        if found := _BLOCK.fullmatch(name):
            return self._in_level(found[1] == "input", int(found[2]), int(found[3]), found[4])
        return name

    def _in_level(self, is_down: bool, number: int, part: int, rest: str) -> str:
        level, layer = divmod(number - is_down, self.layers + 1)
        block = f"{'down' if is_down else 'up'}_blocks.{level}"
        if rest.startswith("op."):
            return f"{block}.downsamplers.0.conv.{rest[3:]}"
        if rest.startswith("conv."):
            return f"{block}.upsamplers.0.{rest}"
        return f"{block}.{'attentions' if part else 'resnets'}.{layer}.{_inside(rest)}"


def _inside(rest: str) -> str:
    """A name inside a residual block; those inside attention are the same in both spellings."""
    module, _, leaf = rest.rpartition(".")
    return f"{_RESNET.get(module, module)}.{leaf}"


def ldm_unet(tensors: Tensors) -> Tensors:
    """The U-Net of a single file as a UNet2DConditionModel's tensors; its moving average (`model_ema`) left out."""
    return _numbered(tensors, UNET_PREFIX)


def ldm_control(tensors: Tensors) -> Tensors:
    """A ControlNet's file, with or without the prefix `control_model.`, as a ControlNetModel's tensors."""
    return _numbered(tensors, CONTROL_PREFIX if any(name.startswith(CONTROL_PREFIX) for name in tensors) else "")


def _numbered(tensors: Tensors, prefix: str) -> Tensors:
    numbering = _Numbering.of([name[len(prefix) :] for name in tensors if name.startswith(prefix)])
    return Renamed(tensors, lambda name: numbering.name(name[len(prefix) :]) if name.startswith(prefix) else None)


_VAE = (
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
    (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
    (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
    (r"^encoder\.down\.(\d+)\.block\.", r"encoder.down_blocks.\1.resnets."),
    (r"^encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0."),
    (r"^decoder\.up_blocks\.(\d+)\.block\.", r"decoder.up_blocks.\1.resnets."),
    (r"^decoder\.up_blocks\.(\d+)\.upsample\.", r"decoder.up_blocks.\1.upsamplers.0."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)
_VAE_LOSS = re.compile(r"^(loss|model_ema)\.")  # of its training


def ldm_vae(tensors: Tensors) -> Tensors:
    """The autoencoder of a single file, or of a file of its own, as an AutoencoderKL's tensors.

    The file counts the levels of the decoder from the finest, diffusers from the coarsest; its attention is stored as
    1x1 convolutions, which a `Layout` takes for matrices.
    """
    prefix = VAE_PREFIX if any(name.startswith(VAE_PREFIX) for name in tensors) else ""
    ups = [int(found[1]) for name in tensors if (found := re.match(rf"{re.escape(prefix)}decoder\.up\.(\d+)\.", name))]
    finest = max(ups, default=0)

    def rename(name: str) -> str | None:
        if not name.startswith(prefix) or _VAE_LOSS.match(name[len(prefix) :]):
            return None
        name = name[len(prefix) :]
        name = re.sub(r"^decoder\.up\.(\d+)\.", lambda found: f"decoder.up_blocks.{finest - int(found[1])}.", name)
        for pattern, replacement in _VAE:
            name = re.sub(pattern, replacement, name)
        return name

    return Renamed(tensors, rename)


_NO_TEXT = re.compile(r"(\.position_ids|\.logit_scale|\.text_projection(\.weight)?)$")


def ldm_text(tensors: Tensors) -> Tensors:
    """The text encoder of a single file as a CLIPTextModel's tensors, `text_model.` before each name."""

    def rename(name: str) -> str | None:
        if not name.startswith(TEXT_PREFIX) or _NO_TEXT.search(name):
            return None
        return f"text_model.{name[len(TEXT_PREFIX) :].removeprefix('text_model.')}"

    return Renamed(tensors, rename)


MOTION_NAMES = (
    (r"^module\.", ""),
    (r"(\.motion_modules\.\d+)\.temporal_transformer\.", r"\1."),
    (r"\.attention_blocks\.([01])\.", lambda found: f".attn{int(found[1]) + 1}."),
    (r"\.norms\.([01])\.", lambda found: f".norm{int(found[1]) + 1}."),
    (r"\.ff_norm\.", ".norm3."),
)
"""From AnimateDiff's own names to diffusers'."""


def motion_original(tensors: Tensors) -> Tensors:
    """Motion modules in AnimateDiff's own names, or in diffusers', as a MotionAdapter's tensors; buffers stay, too."""

    def rename(name: str) -> str:
        for pattern, replacement in MOTION_NAMES:
            name = re.sub(pattern, replacement, name)
        return name

    return Renamed(tensors, rename)
