"""Low-rank adapters (LoRA, arXiv 2106.09685) as what is learned: two small matrices beside each frozen kernel.

base (frozen) ──────────────────┐
down, up (float32, learned) ────┴─► kernel + scale * down @ up ─► the network computes with it
"""

from flax import nnx

from gen1_jax.errors import UserError
from gen1_jax.models.denoiser_config import DenoiserConfig
from gen1_jax.models.low_rank import LowRankConfig, changed, initial_factors, target_kernels
from gen1_jax.models.module import Params, abstract_parameters
from gen1_jax.training.learned import Learned, selected


class LowRank:
    """Changes of low rank are learned, the network stays as it is. See `Learned`.

    State, running mean and checkpoints are of the small matrices alone; what is frozen is in no optimizer, so that
    neither weight decay nor moments of a stage before can move it. At the start the changes are 0.

    Args:
        config: which kernels, and the rank.
        unet: of the network.

    Raises:
        UserError: see `target_kernels`.
    """

    uses_base = True
    in_float32 = True

    def __init__(self, config: LowRankConfig, unet: DenoiserConfig):
        self.config, self._unet = config, unet

    def initial(self, base: Params, seed: int) -> Params:
        """The matrices, by the path of the kernel that they change."""
        return initial_factors(self.config, target_kernels(self.config, self._unet, base), seed)

    def frozen(self, base: Params) -> Params:
        """All of the network."""
        return base

    def weights(self, base: Params, learned: Params) -> Params:
        """The network with the changes."""
        return changed(base, learned, self.config.scale)


def learned_of(trained: tuple[str, ...], lora: LowRankConfig, module: nnx.Module) -> Learned:
    """What of a denoiser is trained: an adapter, some of its parameters, or all of them.

    Args:
        trained: see `DenoisingConfig`.
        lora: the same.
        module: the denoiser.

    Raises:
        UserError: names that are in none of its parameters, or both of them.
    """
    if not lora.rank:
        return selected(trained, module, "unet.trained")
    if trained:
        raise UserError("unet.trained and unet.lora: give one of them, an adapter leaves all of the network frozen")
    try:
        target_kernels(lora, module.config, abstract_parameters(module))
    except UserError as error:
        raise UserError(f"unet.{error}") from None
    return LowRank(lora, module.config)
