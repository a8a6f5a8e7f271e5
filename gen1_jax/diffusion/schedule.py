"""How much signal and how much noise is left at each training timestep."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gen1_jax.diffusion.broadcast import per_example
from gen1_jax.diffusion.prediction import FLOW_PREDICTION_TYPES, PREDICTION_TYPES
from gen1_jax.errors import UserError

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")

_LATER = ("set_alpha_to_one", "use_flow_sigmas", "flow_shift")


class Levels(NamedTuple):
    """How much there is of x_0 and of the noise in x_t = alpha x_0 + sigma eps; numpy, float64.

    Attributes:
        alpha: signal level, from 1 down to 0.
        sigma: noise level, from 0 up to 1.
    """

    alpha: Float[np.ndarray, " n"]
    sigma: Float[np.ndarray, " n"]

    @classmethod
    def of_alpha_bar(cls, alpha_bar: Float[np.ndarray, " n"]) -> "Levels":
        """Those of a variance-preserving process, alpha² = alpha_bar = 1 - sigma²."""
        return cls(np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))

    def at(self, indices: Int[np.ndarray, " m"]) -> "Levels":
        """Some of them, by index: of those of a schedule the levels of these timesteps."""
        return Levels(self.alpha[indices], self.sigma[indices])


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """A discrete schedule of levels, x_t = alpha_t x_0 + sigma_t eps.

    It is variance-preserving, alpha² + sigma² = 1, or rectified flow's (https://arxiv.org/abs/2209.03003): the straight
    path from x_0 to eps, alpha = 1 - t / T and sigma = t / T. These two differ in scale alone: divided by
    sqrt(alpha² + sigma²) the straight path preserves variance, too. The defaults are Stable Diffusion's. Hashable, so
    it may be a static argument of `jax.jit`.

    Attributes:
        num_train_timesteps: T; timesteps run from 0 (nearly clean) to T - 1 (nearly noise), those of the straight path
            from 1 to T (noise alone), see `timesteps`.
        beta_start: the first beta, in (0, 1). "squaredcos_cap_v2" does not use it.
        beta_end: the last beta, in [beta_start, 1). "squaredcos_cap_v2" does not use it.
        beta_schedule: "linear" (https://arxiv.org/abs/2006.11239), "scaled_linear" (linear in sqrt(beta),
            Stable Diffusion's) or "squaredcos_cap_v2" (the cosine of https://arxiv.org/abs/2102.09672 with
            betas capped at 0.999, which unCLIP priors use).
        rescale_zero_terminal_snr: shift and scale sqrt(alpha_bar) so that the last timestep is pure noise
            (https://arxiv.org/abs/2305.08891, algorithm 1). Needs a v or sample prediction.
        set_alpha_to_one: whether DDIM's last step ends at clean data, as AnimateDiff's, rather than at the level of
            timestep 0, as Stable Diffusion's.
        use_flow_sigmas: whether it is the straight path, which has no betas; named as in diffusers' solvers.
        flow_shift: where samplers go along the straight path, see `shifted`; above 1 more of their steps are spent near
            noise, as large pictures need. It changes no level.

    Raises:
        ValueError: a field is out of its range, or does not go with another; the message names the field.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    rescale_zero_terminal_snr: bool = False
    set_alpha_to_one: bool = False
    use_flow_sigmas: bool = False
    flow_shift: float = 1.0

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
        if not 0 < self.flow_shift < float("inf"):
            raise UserError(f"flow_shift must be positive, got {self.flow_shift}")
        if self.flow_shift != 1 and not self.use_flow_sigmas:
            raise UserError("flow_shift is of rectified flow: it needs use_flow_sigmas")
        for name in ("rescale_zero_terminal_snr", "set_alpha_to_one"):
            if self.use_flow_sigmas and getattr(self, name):
                raise UserError(f"{name} is of betas: use_flow_sigmas goes from noise to clean data anyway")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON; later ones only where they are set, so that models of before them are the same."""
        usual = {field.name: field.default for field in dataclasses.fields(self) if field.name in _LATER}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in usual or v != usual[k]}

    @property
    def timesteps(self) -> range:
        """The timesteps of training: 0 ... T - 1; of the straight path 1 ... T, where 0 would be clean data."""
        first = int(self.use_flow_sigmas)
        return range(first, first + self.num_train_timesteps)

    @property
    def prediction_types(self) -> tuple[str, ...]:
        """What a denoiser may predict under this schedule."""
        return FLOW_PREDICTION_TYPES if self.use_flow_sigmas else PREDICTION_TYPES

    def check_prediction(self, prediction_type: str) -> None:
        """Refuses what a model that is trained under this schedule cannot predict at all of its timesteps.

        Raises:
            ValueError: the type is not among `prediction_types`, or "epsilon" where no signal is left.
        """
        if prediction_type not in self.prediction_types:
            which, known = "with" if self.use_flow_sigmas else "without", ", ".join(self.prediction_types)
            raise UserError(f"prediction_type is {prediction_type}, but {which} use_flow_sigmas it is one of {known}")
        if prediction_type == "epsilon" and self.rescale_zero_terminal_snr:
            raise UserError("prediction_type is epsilon, which says nothing at zero terminal SNR")

    @cached_property
    def levels(self) -> Levels:
        """Levels by timestep, from 0 to the last, in the precision from which sampler coefficients are derived."""
        if self.use_flow_sigmas:
            sigma = np.arange(self.num_train_timesteps + 1) / self.num_train_timesteps
            levels = Levels(1 - sigma, sigma)
        else:
            levels = Levels.of_alpha_bar(self.alphas_cumprod_float64)
        return _frozen(levels)

    @cached_property
    def alphas_cumprod_float64(self) -> Float[np.ndarray, " timesteps"]:
        """alpha_bar by timestep in float64; of the straight path that of the process which preserves variance."""
        if self.use_flow_sigmas:
            alpha, sigma = self.levels
            return _frozen((alpha**2 / (alpha**2 + sigma**2),))[0]
        alphas_cumprod = np.cumprod(1 - self._betas())
        if self.rescale_zero_terminal_snr:
            root = np.sqrt(alphas_cumprod)
            alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return _frozen((alphas_cumprod,))[0]

    @property
    def alphas_cumprod(self) -> Float[np.ndarray, " timesteps"]:
        """alpha_bar_t = prod_{s <= t} (1 - beta_s) by timestep, float32."""
        return self.alphas_cumprod_float64.astype(np.float32)

    def alpha_bar(self, timesteps: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """alpha_bar at integer timesteps, float32; alpha_bar / (1 - alpha_bar) is the signal-to-noise ratio.

        NaN at a timestep that there is not.
        """
        return _at(self.alphas_cumprod_float64, timesteps)

    def alpha_sigma(self, timesteps: Int[Array, "*batch"]) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Signal and noise levels at integer timesteps, both float32; NaN at a timestep that there is not."""
        return _at(self.levels.alpha, timesteps), _at(self.levels.sigma, timesteps)

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


def shifted(time: Any, shift: float) -> Any:
    """Times of the straight path, 0 (clean) to 1 (noise), moved towards noise by a shift above 1.

    t' = shift t / (1 + (shift - 1) t). Noise of a strength hides less of a larger picture, whose pixels average it out:
    what n pixels keep at t, m keep at t' for a shift of sqrt(m / n) (https://arxiv.org/abs/2403.03206, equation 23).

    Args:
        time: number or array, numpy or JAX.
        shift: positive.
    """
    return shift * time / (1 + (shift - 1) * time)


def _frozen(arrays: Any) -> Any:
    """The same arrays, which cannot be written to: they are cached, and shared by all who ask."""
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _at(levels: Float[np.ndarray, " timesteps"], timesteps: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Looks levels up; an index out of range gives NaN, where JAX would quietly take the nearest."""
    levels = jnp.asarray(levels, jnp.float32)
    return levels.at[timesteps].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
