"""What every kind of denoiser is told and predicts, as fields of its configuration: the part that others read.

DenoiserConfig      latents, structures, content, frames, prediction
├─ UNetConfig       kind "unet": levels and their layers
└─ DiTConfig        kind "dit": patches and blocks
"""

import dataclasses
from collections.abc import Collection
from typing import ClassVar

import numpy as np

from gen1_jax.errors import UserError
from gen1_jax.models.content_kind import ContentKind, content_kind

LEVEL_PERIOD = 16.0
"""`structure_level_period` of new models, in which levels 0 to 7 lie apart; the default is that of old ones."""


LATER = {"later": True}
"""Marks a field that configurations of before lack: it is not written where it has its default."""

KNOWN = "known"
"""Name of the input that has latents where they are given, in `Conditions.structure` and in recipes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """The fields that denoisers of all kinds have. The defaults are Stable Diffusion 1.x's.

    Attributes:
        kind: of the denoiser, see `models.denoiser`.
        latent_channels: channels of z_t and of the prediction.
        structure_channels: channels of each encoded structure; 0 builds a model without structure or t_s.
        structure_level_channels: channels of the sinusoidal embedding of t_s (arXiv 2302.03011).
        structure_level_period: longest period of that embedding, in rounds of blur, over 2π. 10,000 is that of
            timesteps, under which half of the channels hardly tell 0 from 7; about 16 suits levels.
        structure_kinds: the structures that the model sees, in the order of their channels.
        structure_optional: whether any subset of them may be given, as the model was trained; it needs all otherwise.
        known: whether it can be given latents of some frames or regions, which it is to keep and to go on from: as
            many further channels, zero elsewhere, and a mask that is 1 where they are given.
        content_kind: what content tokens are, a name of `models.content_kind`.
        cross_attention_dim: width of a content token.
        max_frames: the longest clip of one evaluation.
        guidance_embedded: whether it is told the scales w and w_t of guidance beside the timestep, as one that was
            distilled from guided predictions: one evaluation is then all of equation 10 (arXiv 2210.03142; 2310.04378).
        prediction_type: what the output means: "v_prediction", "epsilon", "sample" or "flow_prediction".
    """

    kind: str = ""
    latent_channels: int = 4
    structure_channels: int = 4
    structure_level_channels: int = 4
    structure_level_period: float = 10_000.0
    structure_kinds: tuple[str, ...] = ("depth",)
    structure_optional: bool = dataclasses.field(default=False, metadata=LATER)
    known: bool = dataclasses.field(default=False, metadata=LATER)
    content_kind: str = "image"
    cross_attention_dim: int = 768
    max_frames: int = 32
    guidance_embedded: bool = dataclasses.field(default=False, metadata=LATER)
    prediction_type: str = "v_prediction"

    # What a kind has if it has a field of that name.
    image_adapter: ClassVar[bool] = False
    controls: ClassVar[tuple] = ()

    def __post_init__(self):
        if self.prediction_type not in (known := ("v_prediction", "epsilon", "sample", "flow_prediction")):
            raise UserError(f"prediction_type is {self.prediction_type!r}, not one of {', '.join(known)}")
        if len(set(self.structure_kinds)) < len(self.structure_kinds) or not self.structure_kinds:
            raise UserError(f"structure_kinds are {self.structure_kinds}: name each once, and at least one")
        if KNOWN in self.structure_kinds:
            raise UserError(f"structure_kinds names {KNOWN!r}, which is no structure: it is a field of its own")
        if twice := sorted({kind for kind in self.kinds if self.kinds.count(kind) > 1}):
            raise UserError(f"there are two inputs for the structure {twice[0]!r}")
        content_kind(self.content_kind)  # refuses a name that there is not

    @property
    def structures(self) -> tuple[str, ...]:
        """The kinds of structure that are channels beside the latents."""
        return self.structure_kinds if self.structure_channels else ()

    @property
    def required(self) -> tuple[str, ...]:
        """Those of `structures` that it cannot do without."""
        return () if self.structure_optional else self.structures

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of structure that the model can follow: `structures`, then those of its controls."""
        return (*self.structures, *(control.kind for control in self.controls))

    @property
    def default_kinds(self) -> tuple[str, ...]:
        """The kinds of structure that an edit follows where nothing else is said: those it needs, else the first."""
        return self.required or self.kinds[:1]

    @property
    def content(self) -> ContentKind:
        """The kind of content that it needs."""
        return content_kind(self.content_kind)

    @property
    def content_kinds(self) -> tuple[str, ...]:
        """The kinds of content that it reads, the first of which it needs."""
        return (self.content_kind, "image") if self.image_adapter else (self.content_kind,)

    @property
    def inputs(self) -> dict[str, int]:
        """Channels of each input beside z_t, in their order: a structure's maps and the embedding of its t_s, or what
        is known and its mask."""
        inputs = dict.fromkeys(self.structures, self.structure_channels + self.structure_level_channels)
        return inputs | ({KNOWN: self.latent_channels + 1} if self.known else {})

    def rows(self, given: Collection[str] | None) -> np.ndarray | None:
        """Channels of conv_in that z_t and some of `inputs` have; None for all of them."""
        if given is None or all(name in given for name in self.inputs):
            return None
        has = [True] * self.latent_channels
        for name, count in self.inputs.items():
            has += [name in given] * count
        return np.flatnonzero(has)

    @property
    def in_channels(self) -> int:
        """Channels of conv_in, the first layer of every denoiser: z_t, then those of `inputs`."""
        return self.latent_channels + sum(self.inputs.values())

    @property
    def downscale(self) -> int:
        """Of what height and width of latents should be multiples."""
        raise NotImplementedError

    @property
    def couples_frames(self) -> bool:
        """Whether it has layers between frames, so that a clip is more to it than its pictures."""
        raise NotImplementedError

    @property
    def keeps_features(self) -> bool:
        """Whether it leaves deep features (a cache) with which it can be evaluated in part, see `models.denoiser`."""
        return False

    @property
    def timestep_features(self) -> int:
        """Width of the sinusoid of the timestep, to which scales of guidance are added."""
        raise NotImplementedError

    @property
    def hint_features(self) -> int:
        """Channels of the features of a hint, which its controls follow."""
        raise NotImplementedError
