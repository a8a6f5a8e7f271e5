"""How much signal and how much noise is left at each training timestep."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion.broadcast import per_example
from gen1_jax.errors import UserError

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """A discrete variance-preserving schedule, x_t = alpha_t x_0 + sigma_t eps with alpha² + sigma² = 1.

    The defaults are Stable Diffusion's. Hashable, so it may be a static argument of `jax.jit`.

    Attributes:
        num_train_timesteps: T; timesteps run from 0 (nearly clean) to T - 1 (nearly noise).
        beta_start: the first beta, in (0, 1). "squaredcos_cap_v2" does not use it.
        beta_end: the last beta, in [beta_start, 1). "squaredcos_cap_v2" does not use it.
        beta_schedule: "linear" (https://arxiv.org/abs/2006.11239), "scaled_linear" (linear in sqrt(beta),
            Stable Diffusion's) or "squaredcos_cap_v2" (the cosine of https://arxiv.org/abs/2102.09672 with
            betas capped at 0.999, which unCLIP priors use).
        rescale_zero_terminal_snr: shift and scale sqrt(alpha_bar) so that the last timestep is pure noise
            (https://arxiv.org/abs/2305.08891, algorithm 1). Needs a v or sample prediction.
        set_alpha_to_one: whether DDIM's last step ends at clean data, as AnimateDiff's, rather than at the level of
            timestep 0, as Stable Diffusion's.

    Raises:
        ValueError: a field is out of its range; the message names the field.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    rescale_zero_terminal_snr: bool = False
    set_alpha_to_one: bool = False

    def __post_init__(self):
        fewest = 2 if self.rescale_zero_terminal_snr else 1  # the rescaling needs a first and a last timestep
        if self.num_train_timesteps < fewest:
            raise UserError(f"num_train_timesteps must be at least {fewest}, got {self.num_train_timesteps}")
        if not 0 < self.beta_start < 1:
            raise UserError(f"beta_start must be between 0 and 1, got {self.beta_start}")
        if not self.beta_start <= self.beta_end < 1:
            raise UserError(f"beta_end must be in [beta_start, 1), got {self.beta_end}")
        if self.beta_schedule not in BETA_SCHEDULES:
            raise UserError(f"beta_schedule must be one of {BETA_SCHEDULES}, got {self.beta_schedule!r}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON; `set_alpha_to_one` only where it is set, so that models of before it are the same."""
        fields = dataclasses.asdict(self)
        return fields if self.set_alpha_to_one else {k: v for k, v in fields.items() if k != "set_alpha_to_one"}

    @cached_property
    def alphas_cumprod_float64(self) -> Float[np.ndarray, " timesteps"]:
        """alpha_bar of every timestep, in the precision from which sampler coefficients are derived."""
        alphas_cumprod = np.cumprod(1 - self._betas())
        if self.rescale_zero_terminal_snr:
            root = np.sqrt(alphas_cumprod)
            alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        alphas_cumprod.flags.writeable = False  # it is cached, and shared by all who ask
        return alphas_cumprod

    @property
    def alphas_cumprod(self) -> Float[np.ndarray, " timesteps"]:
        """alpha_bar_t = prod_{s <= t} (1 - beta_s) of every timestep, float32."""
        return self.alphas_cumprod_float64.astype(np.float32)

    def alpha_bar(self, timesteps: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """alpha_bar at integer timesteps, float32; NaN at a timestep outside 0 ... T - 1."""
        return _at(self.alphas_cumprod_float64, timesteps)

    def alpha_sigma(self, timesteps: Int[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Signal and noise levels (sqrt(alpha_bar), sqrt(1 - alpha_bar)) at integer timesteps.

        Both float32, from float64 square roots; NaN at a timestep outside 0 ... T - 1.
        """
        alphas_cumprod = self.alphas_cumprod_float64
        return _at(np.sqrt(alphas_cumprod), timesteps), _at(np.sqrt(1 - alphas_cumprod), timesteps)

    def add_noise(
        self, x0: Float[Array, " b *dims"], noise: Float[Array, " b *dims"], timesteps: Int[Array, " b"]
    ) -> Float[Array, " b *dims"]:
        """Draws x_t ~ q(x_t | x_0) with the given standard normal noise, each example at its own timestep."""
        alpha, sigma = self.alpha_sigma(timesteps)
        return per_example(alpha, x0) * x0 + per_example(sigma, x0) * noise

    def _betas(self) -> Float[np.ndarray, " timesteps"]:
        count = self.num_train_timesteps
        if self.beta_schedule == "linear":
            return np.linspace(self.beta_start, self.beta_end, count)
        if self.beta_schedule == "scaled_linear":
            return np.linspace(self.beta_start**0.5, self.beta_end**0.5, count) ** 2
        time = np.linspace(0, 1, count + 1)
        alpha_bar = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)


def _at(levels: Float[np.ndarray, " timesteps"], timesteps: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Looks levels up; an index out of range gives NaN, where JAX would quietly take the nearest."""
    levels = jnp.asarray(levels, jnp.float32)
    return levels.at[timesteps].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
