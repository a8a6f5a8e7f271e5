"""The numbers of an edit, and which structures it follows."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from gen1_jax.diffusion import Guidance, get_sampler, steps_within
from gen1_jax.diffusion.caching import check_in_one
from gen1_jax.editing.deep_cache import check_deep_cache
from gen1_jax.errors import UserError
from gen1_jax.models.conditions import SOURCE
from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, structure_kind
from gen1_jax.pretrained.family import Gen1Config

FEW_STEPS = {"lcm": (6, 1.5), "tcd": (6, 1.5)}
"""Steps and guidance scale of the samplers of consistency models; with a larger scale colours burn."""

BLENDS = PREDICTIONS, EMBEDDINGS = "predictions", "embeddings"
"""How several contents become one."""

_LARGEST = 10.0  # weight of a structure
_USE = re.compile(r"(?P<kind>\w+)(=(?P<weight>[^@]+))?(@(?P<start>[^:]+):(?P<end>.+))?$")


def scale_ranges(config: Gen1Config) -> dict[str, tuple[float, float]]:
    """The scales of guidance that a distilled model has learned, by their settings; nothing of others."""
    return dict(zip(("guidance_scale", "temporal_guidance_scale"), config.distilled_scales, strict=False))


@dataclasses.dataclass(frozen=True)
class StructureUse:
    """How an edit follows one kind of structure. As text: depth, depth=0.9, depth=0.9@0:0.5.

    Attributes:
        kind: of the structure.
        weight: how much it counts, 0 to 10; 1 is as in training.
        start: from which part of the steps on, 0 to 1.
        end: up to which; step i of N follows it if start <= i / N and (i + 1) / N <= end.
    """

    kind: str
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        structure_kind(self.kind)
        if not 0 <= self.weight <= _LARGEST:
            raise UserError(f"structure: the weight of {self.kind} must be 0 to {_LARGEST:g}, got {self.weight:g}")
        if not 0 <= self.start < self.end <= 1:
            raise UserError(f"structure: {self.kind} from {self.start:g} to {self.end:g} is no part of 0 to 1")

    def __str__(self) -> str:
        weight = "" if self.weight == 1 else f"={self.weight:g}"
        span = "" if (self.start, self.end) == (0, 1) else f"@{self.start:g}:{self.end:g}"
        return f"{self.kind}{weight}{span}"

    def span(self, timesteps: np.ndarray) -> np.ndarray | None:
        """First and last of a run's timesteps at which it is followed, descending; None for all of them.

        A part between two steps has none: (-1, T), which no timestep is within.
        """
        if (self.start, self.end) == (0, 1):
            return None
        within = steps_within(self.start, self.end, len(timesteps))
        active = np.asarray(timesteps)[within.start : within.stop]
        return np.array([active[0], active[-1]] if len(active) else [-1, 2**30], np.int32)


def parse_structures(text: str) -> tuple[StructureUse, ...]:
    """Structures such as depth=0.9,canny=0.4@0:0.5.

    Raises:
        UserError: it is not of that form, or names a kind twice.
    """
    uses = []
    for item in text.split(","):
        match = _USE.match(item.strip())
        try:
            given = {name: x if name == "kind" else float(x) for name, x in match.groupdict().items() if x is not None}
        except (AttributeError, ValueError):
            raise UserError(f"structure {item!r}: say KIND, KIND=WEIGHT or KIND=WEIGHT@START:END") from None
        uses.append(StructureUse(**given))
    if len({use.kind for use in uses}) < len(uses):
        raise UserError(f"structure {text!r} names a kind twice")
    return tuple(uses)


def structures_as_text(structures: str | Mapping[str, float] | None) -> str | None:
    """What `pipe.edit` takes as structures, in the form of `parse_structures`."""
    if structures is None or isinstance(structures, str):
        return structures
    if not structures:
        raise UserError("structure is empty: name at least one kind")
    return ",".join(str(StructureUse(kind, float(weight))) for kind, weight in structures.items())


def steps_as_text(steps: Sequence[int] | str | None) -> str | None:
    """Steps as `EditSettings.propagate` has them."""
    return steps if steps is None or isinstance(steps, str) else ",".join(map(str, steps)) or None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditSettings:
    """The numbers of an edit. None is the model's own.

    Attributes:
        structure: the kinds that it follows and their weights, "depth=0.9,canny=0.4"; see `StructureUse`.
        structure_blur: t_s, 0 to 7: how much detail of the structure is given up.
        guidance_scale: w, how strongly the content is followed.
        temporal_guidance_scale: w_t; above 1 smoother in time, below 1 more hand-drawn.
        guidance_interval: (start, end) of the part of the steps, 0 to 1, in which there is guidance; outside it w = w_t
            = 1, which is one evaluation a step. See `diffusion.guidance_runs`.
        num_inference_steps: steps of the sampler.
        seed: of all randomness.
        sampler: "ddim", "dpm++", "lcm" or "tcd"; of rectified flow "euler" or "midpoint".
        strength: how much of the way from noise is sampled, in (0, 1]; below 1 the edit begins at the noised input
            (SDEdit, https://arxiv.org/abs/2108.01073) and keeps of its colours.
        clip_skip: layer of the text encoder that is read, counted from the end, 1 is the last.
        image_scale: how much a picture beside the prompt counts, for models with an adapter for pictures.
        shift_windows: whether seams between windows of a long clip lie elsewhere at each step, for at most one window
            more a step. See `diffusion.windows.windowed`.
        keyframe_stride: every how many-th frame is sampled first; 1 for all at once. See `editing.keyframes`.
        source_guidance_scale: w_src, how closely a model that sees the video ("source") follows it; None for as closely
            as other structures, which are in all branches of guidance.
        mask_feather: pixels over which an edit under a mask fades in, from its border inwards.
        shared_noise: whether noise of the first window is that of all others, in other orders, which holds the look of
            a long clip together; see `diffusion.noise`.
        blend: how several contents become one: "predictions", of which there is one by each content at each step, or
            "embeddings", one evaluation of their mean. See `editing.contents`.
        inverted_noise: whether an edit begins with the noise that DDIM leads the input to, told what it shows and its
            structures, rather than with what the seed draws: steadier, for an evaluation more a step; the seed is
            left what the prior draws. See `GuidedSampler.inverted`.
        propagate: steps of the sampler, counted from 1, as "15,18", at which frames of the estimate of x_0 are mixed
            with their neighbours along the video's motion, see `editing.motion`. Few, late ones: each blurs a little.
        deep_cache: every how many-th step evaluates the whole network, 1 to 10; those between evaluate its finest level
            alone, with what lay deeper at the last whole one (DeepCache, https://arxiv.org/abs/2312.00858). 1 for all
            of them. For clips that a U-Net of several levels sees at once.
        steady_depth: whether depth that is estimated frame by frame is brought to one scale and shift from frame to
            frame; that of a network with layers between frames always is.
    """

    structure: str | None = None
    structure_blur: int = 0
    guidance_scale: float | None = None
    temporal_guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    num_inference_steps: int | None = None
    seed: int = 0
    sampler: str | None = None
    strength: float = 1.0
    clip_skip: int = 1
    image_scale: float = 1.0
    shift_windows: bool = True
    keyframe_stride: int = 1
    source_guidance_scale: float | None = None
    mask_feather: float | int = 2.0
    shared_noise: bool = False
    steady_depth: bool = False
    blend: str = PREDICTIONS
    inverted_noise: bool = False
    propagate: str | None = None
    deep_cache: int = 1

    def __post_init__(self):
        _ = self.propagated_steps
        if self.structure is not None:
            parse_structures(self.structure)
        if not 0 <= self.structure_blur <= MAX_STRUCTURE_LEVEL:
            raise UserError(f"structure_blur must be 0 to {MAX_STRUCTURE_LEVEL}, got {self.structure_blur}")
        for name in ("guidance_scale", "temporal_guidance_scale", "image_scale", "source_guidance_scale"):
            value = getattr(self, name)
            if value is not None and (not np.isfinite(value) or abs(value) > 1000):
                raise UserError(f"{name} must be a number from -1000 to 1000, got {value}")
        if self.guidance_interval is not None:
            start, end = map(float, self.guidance_interval)
            if not 0 <= start < end <= 1:
                raise UserError(f"guidance_interval must ascend within 0 ... 1, got {start:g}:{end:g}")
            object.__setattr__(self, "guidance_interval", (start, end))
        if self.num_inference_steps is not None and not 1 <= self.num_inference_steps <= 1000:
            raise UserError(f"num_inference_steps must be 1 to 1000, got {self.num_inference_steps}")
        if self.seed < 0:
            raise UserError(f"seed must not be negative, got {self.seed}")
        if not 0 < self.strength <= 1:
            raise UserError(f"strength must be above 0 and at most 1, got {self.strength:g}")
        if self.clip_skip < 1:
            raise UserError(f"clip_skip must be 1 or more, got {self.clip_skip}")
        if self.keyframe_stride < 1:
            raise UserError(f"keyframe_stride must be 1 or more, got {self.keyframe_stride}")
        check_deep_cache(self.deep_cache)
        if not 0 <= self.mask_feather <= 1000:
            raise UserError(f"mask_feather must be 0 to 1000 pixels, got {self.mask_feather:g}")
        for name, wrong in (("strength below 1", self.strength < 1), ("shared_noise", self.shared_noise)):
            if self.inverted_noise and wrong:
                raise UserError(f"inverted_noise and {name} both say what an edit begins with: take one of them")
        if self.blend not in BLENDS:
            raise UserError(f"blend is {' or '.join(BLENDS)}, not {self.blend!r}")

    def of(self, config: Gen1Config) -> "EditSettings":
        """The same with the model's own in place of None.

        Raises:
            UserError: it follows a structure that the model does not know, names a sampler that is none or not for its
                noise schedule, or asks for what the model does not have.
        """
        sampler = self.sampler or config.sampler
        get_sampler(sampler, config.schedule)  # refuses it
        steps, guidance = config.num_inference_steps, config.guidance_scale
        if sampler in FEW_STEPS and not (config.unet.guidance_embedded or config.sampler in FEW_STEPS):
            steps, guidance = FEW_STEPS[sampler]
        own = {"sampler": sampler, "num_inference_steps": steps, "guidance_scale": guidance}
        own["guidance_interval"] = config.guidance_interval
        kinds = config.unet.default_kinds
        if self.source_guidance_scale is not None and SOURCE in config.unet.kinds:
            kinds = (*kinds, *({SOURCE} - set(kinds)))
        own["structure"] = ",".join(kinds) or None
        filled = dataclasses.replace(
            self, **{name: value for name, value in own.items() if getattr(self, name) is None}
        )
        filled._check(config)
        return filled

    def guidance(self, unet: DenoiserConfig) -> Guidance:
        """The scales, and which branches a U-Net needs for them."""
        scales = self.guidance_scale, self.temporal_guidance_scale, self.source_guidance_scale
        return Guidance.of(*scales, distilled=unet.guidance_embedded)

    @property
    def unguided(self) -> "EditSettings":
        """The same without guidance, w = w_t = 1 and no w_src: one evaluation a step. See `Guidance.off`."""
        return dataclasses.replace(self, guidance_scale=1.0, temporal_guidance_scale=1.0, source_guidance_scale=None)

    def check_frames(self, frames: int, window: int) -> None:
        """Refuses, before there is any work, what cannot be done of so many frames.

        Args:
            frames: of the clip.
            window: frames that the model sees at once.

        Raises:
            UserError: `deep_cache` of a clip of several windows.
        """
        if self.deep_cache > 1:
            check_in_one(frames, window)

    @property
    def propagated_steps(self) -> tuple[int, ...]:
        """What `propagate` says, from 1; none by default.

        Raises:
            UserError: it is no list of numbers.
        """
        texts = [] if self.propagate is None else [text.strip() for text in self.propagate.split(",")]
        if not all(text.isdecimal() and int(text) for text in texts):
            raise UserError(f"propagate is {self.propagate!r}, not numbers of steps, from 1, as 15,18")
        return tuple(sorted({int(text) for text in texts}))

    @property
    def structures(self) -> tuple[StructureUse, ...]:
        """What `structure` says."""
        return () if self.structure is None else parse_structures(self.structure)

    def _check(self, config: Gen1Config) -> None:
        unet, asked = config.unet, {use.kind for use in self.structures}
        if unknown := sorted(asked - set(unet.kinds)):
            takes = ", ".join(unet.kinds) or "none"
            raise UserError(
                f"structure {unknown[0]}: this model follows {takes}; nano2 follows more, and "
                f"gen1 import --controlnet adds others to public weights"
            )
        if missing := sorted(set(unet.required) - asked):
            raise UserError(f"structure: this model needs {missing[0]}; {missing[0]}=0 leaves it without effect")
        if self.source_guidance_scale is not None and SOURCE not in asked:
            mend = f"--structure {self.structure},source" if SOURCE in unet.kinds else "take a model that does"
            raise UserError(f"source_guidance_scale is for an edit that follows the source: {mend}")
        for name, (low, high) in scale_ranges(config).items():
            if not low <= (value := getattr(self, name)) <= high:
                raise UserError(f"{name} is {value:g}, but this model was distilled for {low:g} to {high:g} alone")
        if self.source_guidance_scale is not None and unet.guidance_embedded:
            raise UserError("source_guidance_scale: this model was distilled, for w and w_t alone; leave it out")
        if self.keyframe_stride > 1 and not unet.known:
            raise UserError(
                "keyframe_stride: this model has no input for known frames; leave it 1, or take one that has"
            )
        if self.keyframe_stride >= config.num_frames:
            most = config.num_frames - 1
            raise UserError(f"keyframe_stride is at most {most}: this model sees {config.num_frames} frames at once")
        check_deep_cache(self.deep_cache, unet)
        if self.propagate is not None and self.keyframe_stride > 1:
            raise UserError("propagate: neighbours of keyframes lie too far apart for it; leave keyframe_stride 1")
        if self.inverted_noise and get_sampler(self.sampler, config.schedule).draws_noise:
            raise UserError(f"inverted_noise is for samplers that draw no noise, which {self.sampler} does: take ddim")
        if self.clip_skip > 1 and not unet.content.reads_text:
            raise UserError("clip_skip is for models whose content is text")
