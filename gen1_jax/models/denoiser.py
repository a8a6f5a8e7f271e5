"""What the sampler and the objectives ask of a denoiser, and which ones there are, by `config.kind`."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, Int

from gen1_jax.errors import UserError
from gen1_jax.models.conditions import Conditions
from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.dit import DiTConfig, SpaceTimeDiT
from gen1_jax.models.unet import SpaceTimeUNet, UNetConfig

Cache = Any
"""What a denoiser keeps from one step of the sampler for the next; None if it keeps nothing."""


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts v, epsilon or x0 (`config.prediction_type`) for every frame of noisy latent clips.

    A clip of one frame is an image: whatever couples frames leaves it alone, and `Conditions.frames` has the same
    meaning for each frame of a longer one.
    """

    def denoise(
        self,
        latents: Float[Array, "b t h w c"],
        timesteps: Int[Array, " b"],
        conditions: Conditions,
        cache: Cache = None,
    ) -> tuple[Float[Array, "b t h w c"], Cache]:
        """The prediction, float32, and what the next evaluation may reuse.

        With a cache only what depends on fine detail is evaluated, the rest is what the cache says; of a model that
        keeps nothing (`config.keeps_features`) the cache is without effect.
        """
        ...


class Kind(NamedTuple):
    """A kind of denoiser.

    Attributes:
        config: the class of its configuration.
        network: called with (config, dtype=, remat=).
    """

    config: type[DenoiserConfig]
    network: Callable[..., nnx.Module]


DENOISERS: dict[str, Kind] = {
    "unet": Kind(UNetConfig, SpaceTimeUNet),
    "dit": Kind(DiTConfig, SpaceTimeDiT),
}
"""By the `kind` of their configuration."""


def denoiser_kind(name: str) -> Kind:
    """The kind of denoiser of this name.

    Raises:
        UserError: there is none.
    """
    if name not in DENOISERS:
        raise UserError(f"kind is {name!r}, not one of {', '.join(DENOISERS)}")
    return DENOISERS[name]


def build_denoiser(config: DenoiserConfig, **how: Any) -> nnx.Module:
    """The denoiser of a configuration without arrays.

    Args:
        config: of any kind in `DENOISERS`.
        how: dtype of the computation, and remat.
    """
    return denoiser_kind(config.kind).network(config, **how)
