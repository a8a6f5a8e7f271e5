"""The networks that a model may have: the class of each one's configuration, and how it is built."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import dacite
from flax import nnx

from gen1_jax.models.clip import CLIPConfig, CLIPModel, CLIPTextConfig, TextEncoder
from gen1_jax.models.denoiser import build_denoiser, denoiser_kind
from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.depth import DPTConfig, DPTDepth
from gen1_jax.models.hed import HED, HEDConfig
from gen1_jax.models.image_encoder import ImageEncoder, ImageEncoderConfig
from gen1_jax.models.image_tokens import ImageTokens, ImageTokensConfig
from gen1_jax.models.prior import PriorConfig, PriorTransformer
from gen1_jax.models.split import Split, SplitConfig
from gen1_jax.models.unet import UNetConfig
from gen1_jax.models.vae import AutoencoderKL, VAEConfig


@dataclasses.dataclass(frozen=True)
class Part:
    """A network that a family may have.

    Attributes:
        config: the class of its configuration, which holds plain values alone.
        build: the network without arrays, of (configuration, dtype=).
        optional: no model has it unless it is asked for, and a config.json does not speak of it where it is absent.
        default: of several classes of configurations, all of which are a `config`, that of the full size.
    """

    config: type
    build: Callable[..., nnx.Module]
    optional: bool = False
    default: type | None = None

    def usual(self) -> Any:
        """The configuration of a model that does not say otherwise."""
        return None if self.optional else (self.default or self.config)()


PARTS: dict[str, Part] = {
    "unet": Part(DenoiserConfig, build_denoiser, default=UNetConfig),
    "vae": Part(VAEConfig, AutoencoderKL),
    "clip": Part(CLIPConfig, CLIPModel),
    "depth": Part(DPTConfig, DPTDepth),
    "prior": Part(PriorConfig, PriorTransformer),
    "text": Part(CLIPTextConfig, TextEncoder, optional=True),
    "image_encoder": Part(ImageEncoderConfig, ImageEncoder, optional=True),
    "image_tokens": Part(ImageTokensConfig, ImageTokens, optional=True),
    "softedge": Part(HEDConfig, HED, optional=True),
    "split": Part(SplitConfig, Split, optional=True),
}
"""Every network by its name, which is that of its file in a model folder; a further one is a further line, optional."""


def _denoiser(values: Mapping[str, Any] | DenoiserConfig) -> DenoiserConfig:
    """The configuration of a denoiser, of the class of its kind."""
    if isinstance(values, DenoiserConfig):
        return values
    kind = denoiser_kind(values.get("kind", UNetConfig.kind))
    return dacite.from_dict(kind.config, values, dacite.Config(strict=True))


STRICT = dacite.Config(strict=True, type_hooks={DenoiserConfig: _denoiser})
"""How a config.json is read: every field, and of the right type."""
