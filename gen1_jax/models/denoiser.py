"""What the sampler and the objectives ask of a denoiser, and which ones there are, by `config.kind`."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float, Int

from gen1_jax.models.conditions import Conditions
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
        """The prediction, float32, and what the next evaluation may reuse."""
        ...


DENOISERS: dict[str, Callable[..., nnx.Module]] = {"unet": SpaceTimeUNet}
"""Networks by the `kind` of their configuration; each is called with (config, dtype=, remat=)."""


def build_denoiser(config: UNetConfig, **how: Any) -> nnx.Module:
    """The denoiser of a configuration without arrays.

    Args:
        config: of any kind in `DENOISERS`.
        how: dtype of the computation, and remat.
    """
    return DENOISERS[config.kind](config, **how)
