"""The family of networks that makes one model: its configuration, its two sizes, and how to build each member."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import dacite
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from gen1_jax.diffusion import NoiseSchedule, get_sampler
from gen1_jax.errors import UserError
from gen1_jax.models.clip import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from gen1_jax.models.content_kind import content_kind
from gen1_jax.models.denoiser_config import LATER, LEVEL_PERIOD
from gen1_jax.models.depth import DPTConfig
from gen1_jax.models.module import flatten
from gen1_jax.models.prior import PriorConfig
from gen1_jax.models.structure import SPLIT, Depth, StructureKind, structure_kind
from gen1_jax.models.unet import UNetConfig
from gen1_jax.models.vae import VAEConfig
from gen1_jax.pretrained.parts import PARTS, STRICT

_DEFAULTS = {name: part.usual() for name, part in PARTS.items()}


@dataclasses.dataclass(frozen=True, kw_only=True, init=False)
class Gen1Config:
    """Everything that describes a model but its weights. The defaults are the full size.

    Each part is an attribute, too (`config.unet`), and a keyword argument (`Gen1Config(unet=...)`,
    `dataclasses.replace(config, prior=None)`); None for one that a model does not have.

    Attributes:
        parts: configurations by name, see `PARTS`. "unet", the denoiser of whatever kind, and "vae", the autoencoder of
            frames and structure, are in every model; "clip" gives content from a picture and features of a prompt,
            "prior" turns a prompt into content, "depth" estimates structure, and so does "softedge". A model whose
            content is text has "text", whose states of a prompt are its content. Where its U-Net has an adapter for
            pictures, too, "image_encoder" and "image_tokens" make tokens of them. "split" makes structure and content
            of latents; beside it "clip" is there for its tokenizer, and to measure with.
        schedule: the noise schedule of training.
        height: of the pictures of training, in pixels; edits have about height * width pixels.
        width: see height.
        num_frames: frames of a training clip, the window of longer edits.
        window_overlap: frames that neighbouring windows of a longer edit share.
        guidance_scale: w of an edit that does not say otherwise.
        guidance_interval: the part of its steps in which there is guidance, see `diffusion.guidance_runs`.
        num_inference_steps: steps of the sampler of an edit that does not say otherwise.
        sampler: of such an edit, see `diffusion.get_sampler`.
        depth_quantiles: of inverse depth over the frames of an example, which become -1 and 1 (`normalise_depth`); a
            model is used with those that it was trained with.
        prior_guidance_scale: of the prior, towards the prompt and away from the empty one; Karlo's is 4.
        prior_num_inference_steps: of the prior. With few, what it draws is nearer to the mean of what fits the prompt.
        learned_content: what an imported U-Net's cross-attention was trained on, which may be another content than it
            is given here (`caution`); "unknown" where nothing told, and of models that were trained here.
        distilled_scales: of a denoiser that is told the scales of guidance (`DenoiserConfig.guidance_embedded`) the
            ranges of w and of w_t that it has learned; nothing of others.

    Raises:
        ValueError: an unknown or a missing part, parts that do not fit each other, or a number out of range.
    """

    parts: Mapping[str, Any]
    schedule: NoiseSchedule = NoiseSchedule()
    height: int = 256
    width: int = 448
    num_frames: int = 8
    window_overlap: int = 4
    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    sampler: str = dataclasses.field(default="ddim", metadata=LATER)
    depth_quantiles: tuple[float, float] = (0.0, 1.0)
    prior_guidance_scale: float = 4.0
    prior_num_inference_steps: int = 25
    learned_content: Literal["unknown", "image", "text"] = "unknown"
    guidance_interval: tuple[float, float] = dataclasses.field(default=(0.0, 1.0), metadata=LATER)
    distilled_scales: tuple[tuple[float, float], ...] = dataclasses.field(default=(), metadata=LATER)

    def __init__(self, *, parts: Mapping[str, Any] | None = None, **values: Any):
        given = dict(_DEFAULTS if parts is None else parts)
        for field in dataclasses.fields(self)[1:]:
            object.__setattr__(self, field.name, values.pop(field.name, field.default))
        given |= values
        if unknown := sorted(given.keys() - PARTS.keys()):
            raise UserError(f"there is no part {unknown[0]!r} of a model, only {', '.join(PARTS)}")
        present = {name: given[name] for name in PARTS if given.get(name) is not None}
        object.__setattr__(self, "parts", present)
        self._check_parts()
        self._check_numbers()

    def __getattr__(self, name: str) -> Any:
        if name in PARTS and "parts" in self.__dict__:
            return self.parts.get(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __hash__(self) -> int:
        return hash((tuple(self.parts.items()), *(getattr(self, f.name) for f in dataclasses.fields(self)[1:])))

    def _check_parts(self) -> None:
        needed = ["unet", "vae"]
        if self.unet is not None:
            needed += [self.unet.content.part, *self.unet.content.beside]
            needed += ["image_encoder", "image_tokens"] if self.unet.image_adapter else []
            needed += ["split", "clip"] if SPLIT in self.unet.kinds else []
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise UserError(f"this model has no {missing[0]}")
        unet, vae, clip, prior, text = self.unet, self.vae, self.clip, self.prior, self.text
        pairs = [("unet.latent_channels", unet.latent_channels, "vae.latent_channels", vae.latent_channels)]
        part, width = unet.content.part, unet.content.width
        reads = getattr(self.parts[part], width)
        pairs += [("unet.cross_attention_dim", unet.cross_attention_dim, f"{part}.{width}", reads)]
        if (split := self.split) is not None:
            pairs += [("split.latent_channels", split.latent_channels, "vae.latent_channels", vae.latent_channels)]
        if text is not None and clip is not None:  # one tokenizer serves both
            pairs += [
                (f"text.{field}", getattr(text, field), f"clip.text.{field}", getattr(clip.text, field))
                for field in ("vocab_size", "max_position_embeddings")
            ]
        if unet.image_adapter:
            pairs += self._pairs_of_pictures()
        if unet.structures:
            pairs += [("unet.structure_channels", unet.structure_channels, "vae.latent_channels", vae.latent_channels)]
        if prior is not None:
            if clip is None:
                raise UserError("this model has a prior, but no clip to read prompts for it")
            pairs += [
                ("prior.embedding_dim", prior.embedding_dim, "clip.projection_dim", clip.projection_dim),
                ("prior.text_hidden_size", prior.text_hidden_size, "clip.text.hidden_size", clip.text.hidden_size),
                (
                    "prior.num_embeddings",
                    prior.num_embeddings,
                    "clip.text.max_position_embeddings",
                    clip.text.max_position_embeddings,
                ),
            ]
        pairs += [
            (f"the downscale of control {c.kind}", c.downscale, "vae.downscale", vae.downscale) for c in unet.controls
        ]
        for name, value, other, expected in pairs:
            if value != expected:
                raise UserError(f"{name} is {value}, but {other} is {expected}")

    def _pairs_of_pictures(self) -> list[tuple[str, int, str, int]]:
        """What must be equal for a picture to become tokens that the U-Net reads."""
        tokens, encoder = self.image_tokens, self.image_encoder
        width = "projection_dim" if tokens.reads == "embed" else "hidden_size"
        read = ("image_tokens.embedding_dim", tokens.embedding_dim, f"image_encoder.{width}", getattr(encoder, width))
        made = ("image_tokens.cross_attention_dim", tokens.cross_attention_dim)
        pairs = [read, (*made, "unet.cross_attention_dim", self.unet.cross_attention_dim)]
        if tokens.kind == "full":
            pairs += [("image_tokens.tokens", tokens.tokens, "image_encoder.tokens", encoder.tokens)]
        return pairs

    def _check_numbers(self) -> None:
        unet = self.unet
        self.schedule.check_prediction(unet.prediction_type)
        if not 1 <= self.num_frames <= unet.max_frames:
            raise UserError(f"num_frames is {self.num_frames}, not in 1 ... unet.max_frames, {unet.max_frames}")
        if not 1 <= self.num_inference_steps <= self.schedule.num_train_timesteps:
            most = self.schedule.num_train_timesteps
            raise UserError(f"num_inference_steps is {self.num_inference_steps}, not in 1 ... {most}")
        get_sampler(self.sampler, self.schedule)  # refuses a name that there is not
        if not 0 <= self.guidance_interval[0] < self.guidance_interval[1] <= 1:
            raise UserError(
                f"guidance_interval is {list(self.guidance_interval)}, which does not ascend within 0 ... 1"
            )
        if self.distilled_scales and not (unet.guidance_embedded and len(self.distilled_scales) == 2):
            raise UserError("distilled_scales are two ranges, of w and w_t, of a model with unet.guidance_embedded")
        if not 2 <= self.prior_num_inference_steps <= 1000:
            raise UserError(f"prior_num_inference_steps is {self.prior_num_inference_steps}, not in 2 ... 1000")
        if not 0 <= self.window_overlap < self.num_frames:
            raise UserError(f"window_overlap is {self.window_overlap}, not in 0 ... num_frames - 1")
        self.structure_kind("depth")  # refuses quantiles that do not ascend
        if self.height < 1 or self.width < 1:
            raise UserError(f"height and width are {self.height} and {self.width}, not positive")

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the networks, as attributes of this and as files of a model folder."""
        return tuple(self.parts)

    @property
    def text_config(self) -> CLIPTextConfig:
        """Of the network that reads prompts, which the model's tokenizer is made for: "text", or a tower of "clip"."""
        return self.clip.text if self.text is None else self.text

    @property
    def takes_prompts(self) -> bool:
        """Whether it makes content of words: by a prior, or because its content is text."""
        return self.parts.get(self.unet.content.of_prompts) is not None

    @property
    def content_tokens(self) -> int:
        """How many tokens its content has, see `ContentKind.tokens`."""
        return self.unet.content.tokens(self.parts[self.unet.content.part])

    @property
    def caution(self) -> str | None:
        """One line on what the model cannot do before it is trained, or None."""
        if self.learned_content in ("unknown", self.unet.content_kind):
            return None
        learned = content_kind(self.learned_content)
        return (
            f"its U-Net was trained on {learned.what} and is given {self.unet.content.what}: "
            f"edits do not follow their prompt or picture until it is trained (gen1 train)"
        )

    def build(self, component: str, dtype: DTypeLike) -> nnx.Module:
        """One network without arrays, computing in `dtype`; it is a description, and the same for all who ask."""
        return _built(component, self.parts[component], np.dtype(dtype))

    def structure_kind(self, name: str) -> StructureKind:
        """A kind of structure as this model is told of it.

        Raises:
            ValueError: there is none of that name.
        """
        kind = structure_kind(name)
        return dataclasses.replace(kind, quantiles=self.depth_quantiles) if isinstance(kind, Depth) else kind

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which clips of height x width are seen: their shape, about the model's number of pixels."""
        multiple = self.size_multiple
        scale = (self.height * self.width / (height * width)) ** 0.5
        return tuple(max(1, round(side * scale / multiple)) * multiple for side in (height, width))

    @property
    def size_multiple(self) -> int:
        """Of what height and width of pictures are multiples, in pixels."""
        return self.vae.downscale * self.unet.downscale

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts of plain values, for JSON; null for a part that the model lacks, nothing for an optional one."""
        parts = {name: self.parts.get(name) for name, part in PARTS.items() if name in self.parts or not part.optional}
        others = {name: value for name, value in _plain(self).items() if name != "parts"}
        return _plain(parts) | others | {"schedule": self.schedule.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Gen1Config":
        """The inverse of `to_dict`; absent fields keep their defaults.

        Raises:
            ValueError: an unknown field, or a value of the wrong type or out of range, by name.
        """
        _check_numbers(values)
        try:
            stored = dacite.from_dict(_STORED, _with_tuples(values), STRICT)
        except (dacite.DaciteError, TypeError) as error:
            raise UserError(str(error)) from None
        return cls(**vars(stored))


_STORED = dataclasses.make_dataclass(
    "Gen1Config",
    [(name, part.config | None, _DEFAULTS[name]) for name, part in PARTS.items()]
    + [(f.name, f.type, f.default) for f in dataclasses.fields(Gen1Config)[1:]],
    kw_only=True,
)
"""What a config.json holds: the parts beside the numbers."""


_MAY_BE_ZERO = (
    "structure_channels",
    "structure_level_channels",
    "backbone_out_indices",
    "window_overlap",
    "depth_quantiles",
    "guidance_interval",
)


@functools.lru_cache(maxsize=32)
def _built(component: str, config: Any, dtype: np.dtype) -> nnx.Module:
    return PARTS[component].build(config, dtype=dtype)


def _check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse what no size, count or scale can be: negative numbers, NaN, and most zeros."""
    for path, value in flatten(values).items():
        numbers = value if isinstance(value, list | tuple) else (value,)
        numbers = [n for n in numbers if isinstance(n, int | float) and not isinstance(n, bool)]
        if not all(n > 0 or (n == 0 and path.endswith(_MAY_BE_ZERO)) for n in numbers):
            raise UserError(f"{path} is {value!r}, which is out of range")


def _plain(value: Any) -> Any:
    """A configuration as nested dicts, without fields that came later (`LATER`) and have their default.

    So what was written before a field was thought of, and its hash, stay as they are.
    """
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
    return {f.name: _plain(x) for f, x in fields if not ("later" in f.metadata and x == f.default)}


def _with_tuples(value: Any) -> Any:
    """JSON's lists as the tuples that configurations hold."""
    if isinstance(value, list):
        return tuple(map(_with_tuples, value))
    return {key: _with_tuples(item) for key, item in value.items()} if isinstance(value, Mapping) else value


FULL = Gen1Config(unet=UNetConfig(structure_level_period=LEVEL_PERIOD))
"""Stable Diffusion 1.5's U-Net and autoencoder, CLIP ViT-L/14, DPT-Large, Karlo's prior, at 448x256."""

NANO = Gen1Config(
    unet=UNetConfig(
        block_out_channels=(64, 96, 128),
        attention_levels=(False, True, True),
        layers_per_block=1,
        num_attention_heads=4,
        norm_num_groups=16,
        max_frames=16,
    ),
    vae=VAEConfig(block_out_channels=(32, 64, 96), layers_per_block=1, norm_num_groups=16),
    clip=CLIPConfig(
        text=CLIPTextConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            vocab_size=1280,
            eos_token_id=1279,
        ),
        vision=CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=4,
            image_size=128,
            patch_size=16,
        ),
    ),
    depth=DPTConfig(
        image_size=128,
        patch_size=8,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        backbone_out_indices=(0, 1, 2, 3),
        reassemble_factors=(2, 1, 0.5, 0.25),
        neck_hidden_sizes=(32, 48, 64, 64),
        fusion_hidden_size=40,
    ),
    prior=PriorConfig(num_attention_heads=4, attention_head_dim=32, num_layers=4, text_hidden_size=128),
    schedule=NoiseSchedule(rescale_zero_terminal_snr=True),
    height=128,
    width=128,
    guidance_scale=2.0,
    guidance_interval=(0.1, 0.6),
    num_inference_steps=20,
    prior_guidance_scale=1.5,
    prior_num_inference_steps=2,
)
"""The same code at 128x128, small enough for a laptop: the whole family has fewer than 16 M parameters."""

_TINY_LAYERS = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)

TINY = Gen1Config(
    unet=UNetConfig(
        block_out_channels=(8, 8),
        attention_levels=(False, False),
        layers_per_block=1,
        num_attention_heads=2,
        cross_attention_dim=16,
        norm_num_groups=4,
        max_frames=4,
    ),
    vae=VAEConfig(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4),
    clip=CLIPConfig(
        text=CLIPTextConfig(
            **_TINY_LAYERS, vocab_size=NANO.clip.text.vocab_size, eos_token_id=NANO.clip.text.eos_token_id
        ),
        vision=CLIPVisionConfig(**_TINY_LAYERS, image_size=16, patch_size=8),
        projection_dim=16,
    ),
    depth=DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        backbone_out_indices=(0, 1, 2, 3),
        neck_hidden_sizes=(8, 8, 8, 8),
        fusion_hidden_size=8,
    ),
    prior=PriorConfig(num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=16, text_hidden_size=16),
    schedule=NoiseSchedule(rescale_zero_terminal_snr=True),
    height=16,
    width=16,
    num_frames=4,
    window_overlap=2,
)
"""Every part at its smallest, to see that a recipe runs; it can learn next to nothing."""
