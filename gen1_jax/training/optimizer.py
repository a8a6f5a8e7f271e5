"""AdamW with clipping, a warm-up at the start of every stage, and the running mean of weights."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gen1_jax.errors import UserError
from gen1_jax.models.module import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (https://arxiv.org/abs/1711.05101) and exponential moving average. The paper names neither.

    Attributes:
        learning_rate: its peak.
        warmup_steps: linear from 0 at the start of every stage, for a stage gives gradients to weights that had none.
        schedule: after the warm-up: "constant", or "cosine" or "linear" from the peak to `final_fraction` of it
            at the end of the run.
        final_fraction: of the peak, at the end.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: added to the root of the latter.
        weight_decay: of kernels, times the learning rate; scales, biases and embeddings do not decay.
        max_gradient_norm: longer gradients (over all parameters together) are scaled down to this.
        ema_decay: of the running mean of weights; in step n it is at most (1 + n) / (10 + n).
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 1000
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    final_fraction: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.9999

    def __post_init__(self):
        for name in ("learning_rate", "epsilon", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}, not positive")
        for name in ("beta1", "beta2", "ema_decay", "final_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}, not in [0, 1]")
        if self.warmup_steps < 0 or self.weight_decay < 0:
            raise UserError("optimizer.warmup_steps and weight_decay must not be negative")


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Gradients to the direction of descent; the step multiplies it by minus the learning rate."""
    return optax.chain(_clipping(config), *_of_each(config))


def _clipping(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.clip_by_global_norm(config.max_gradient_norm)


def _of_each(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """What treats each parameter by itself."""
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    return adam, optax.add_decayed_weights(config.weight_decay, mask=_is_kernel)


class Trained(NamedTuple):
    """What an update changes: nested dicts of float32 arrays.

    Attributes:
        params: what is learned.
        ema: the running mean of it.
        optimizer: the state of `make_optimizer`.
    """

    params: Params
    ema: Params
    optimizer: Any


class Rates(NamedTuple):
    """How far an update goes.

    Attributes:
        learning: the learning rate.
        ema: how far the running mean moves, see `ema_rate`.
        applies: whether it is made at all.
    """

    learning: Float[Array, ""]
    ema: Float[Array, ""]
    applies: Bool[Array, ""]


def descend(config: OptimizerConfig, trained: Trained, gradients: Params, learns: Any, rates: Rates) -> Trained:
    """AdamW and the running mean, a parameter at a time; what is traced for one serves all that are alike.

    Args:
        config: of the optimizer.
        trained: before.
        gradients: float32.
        learns: a bool for each parameter; one that could learn nothing keeps its moments.
        rates: how far it goes.
    """
    clip, adam, decay = trained.optimizer
    gradients, clip = _clipping(config).update(gradients, clip)
    of_each = optax.chain(*_of_each(config))

    def one(name: str, yes: bool, gradient: Array, param: Array, mean: Array, mu: Array, nu: Array, count, rates):
        alone = lambda x: {name: x}
        before = optax.ScaleByAdamState(count, alone(mu), alone(nu)), decay
        direction, (after, _) = of_each.update(alone(gradient), before, alone(param))
        new = (param - rates.learning * direction[name], after.mu[name], after.nu[name]) if yes else (param, mu, nu)
        new = (*new, mean + rates.ema * (new[0] - mean), after.count)
        return jax.tree.map(partial(jnp.where, rates.applies), new, (param, mu, nu, mean, count))

    one = jax.jit(one, static_argnums=(0, 1))
    new = jax.tree.map_with_path(
        lambda path, yes, *leaves: one(path[-1].key, yes, *leaves, adam.count, rates),
        learns, gradients, trained.params, trained.ema, adam.mu, adam.nu,
    )  # fmt: skip
    params, mu, nu, ema, counts = jax.tree.transpose(jax.tree.structure(learns), None, new)
    adam = optax.ScaleByAdamState(jax.tree.leaves(counts)[0], mu, nu)
    return Trained(params, ema, (clip, adam, decay))


def _is_kernel(params: Params) -> Any:
    return jax.tree.map_with_path(lambda path, leaf: path[-1].key == "kernel", params)


def learning_rates(
    config: OptimizerConfig, stages: Sequence[tuple[int, float | None]]
) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """The learning rate of every step of the run.

    Args:
        config: schedule and warm-up.
        stages: steps of each stage, and its own peak if it has one.
    """
    total = sum(steps for steps, _ in stages)
    end = config.final_fraction
    shape = {
        "constant": optax.constant_schedule(1.0),
        "cosine": optax.cosine_decay_schedule(1.0, max(total, 1), alpha=end),
        "linear": optax.linear_schedule(1.0, end, max(total, 1)),
    }[config.schedule]

    def rate(step: Int[Array, ""]) -> Float[Array, ""]:
        first, value = 0, jnp.float32(0)
        for steps, peak in stages:
            rise = jnp.clip((step - first + 1) / max(min(config.warmup_steps, steps), 1), 0, 1)
            value = jnp.where(step >= first, (peak or config.learning_rate) * rise, value)
            first += steps
        return (value * shape(step)).astype(jnp.float32)

    return rate


def ema_decays(
    config: OptimizerConfig, stages: Sequence[tuple[int, float | None]]
) -> Callable[[Int[Array, ""]], Float[Array, ""] | float]:
    """The decay of the running mean in every step of the run.

    Args:
        config: has that of stages without their own.
        stages: steps of each stage, and its own decay if it has one.
    """
    if all(decay is None for _, decay in stages):
        return lambda step: config.ema_decay

    def decay(step: Int[Array, ""]) -> Float[Array, ""]:
        first, value = 0, jnp.float32(config.ema_decay)
        for steps, own in stages:
            value = jnp.where(step >= first, config.ema_decay if own is None else own, value)
            first += steps
        return value

    return decay


def ema_rate(step: Int[Array, ""], decay: Float[Array, ""] | float) -> Float[Array, ""]:
    """How far the running mean moves to the weights of update `step`; early on further, so that it soon leaves the
    initial weights."""
    step = step.astype(jnp.float32)
    return 1 - jnp.minimum(decay, (1 + step) / (10 + step))
