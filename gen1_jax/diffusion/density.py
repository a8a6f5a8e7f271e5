"""Which timesteps training sees how often."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from gen1_jax.diffusion.schedule import NoiseSchedule, shifted
from gen1_jax.errors import UserError

DENSITIES = ("uniform", "logit_normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimestepDensity:
    """The density of timesteps that are drawn in training, over times from 0 (clean) to 1 (noise).

    "logit_normal" sees much of the middle, where the velocity is hardest to tell: log(t / (1 - t)) is normal. Either
    may be shifted. Source: https://arxiv.org/abs/2403.03206, section 3.1 and equation 23; m and s are named as in
    diffusers' training scripts.

    Attributes:
        density: "uniform" or "logit_normal".
        logit_mean: location m of "logit_normal"; below 0 nearer to clean data.
        logit_std: scale s of "logit_normal", positive.
        shift: towards noise, see `schedule.shifted`; 1 is none. Edits are sampled by the schedule's `flow_shift`.

    Raises:
        ValueError: a field is out of its range; the message names the field.
    """

    density: str = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float = 1.0

    def __post_init__(self):
        if self.density not in DENSITIES:
            raise UserError(f"timesteps.density is {self.density!r}, not one of {', '.join(DENSITIES)}")
        if not abs(self.logit_mean) < float("inf"):
            raise UserError(f"timesteps.logit_mean is {self.logit_mean:g}, not a number")
        for name in ("logit_std", "shift"):
            if not 0 < (value := getattr(self, name)) < float("inf"):
                raise UserError(f"timesteps.{name} is {value:g}, not positive")

    @property
    def is_uniform(self) -> bool:
        """Whether all timesteps are equally likely."""
        return self.density == "uniform" and self.shift == 1

    def draw(self, key: Key[Array, ""], schedule: NoiseSchedule) -> Int[Array, ""]:
        """A timestep of the schedule: the one in whose T-th part of 0 ... 1 the time falls that is drawn."""
        total, first = schedule.num_train_timesteps, schedule.timesteps[0]
        if self.is_uniform:
            return jax.random.randint(key, (), first, first + total)
        if self.density == "uniform":
            time = jax.random.uniform(key)
        else:
            time = jax.nn.sigmoid(self.logit_mean + self.logit_std * jax.random.normal(key))
        index = jnp.floor(total * shifted(time, self.shift)).astype(jnp.int32)
        return first + jnp.clip(index, 0, total - 1)
