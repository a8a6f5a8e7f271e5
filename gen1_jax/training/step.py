"""The step: gradients of an objective, AdamW, EMA. One function, jitted and donated, compiled once a batch shape.

state at rest, float32, over all devices ──cast──► bfloat16 ──gather over fsdp──► weights
batch ──► microbatches, one after the other ──► gradients, summed, scattered over fsdp ──► AdamW ──► state, EMA
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout as RowMajor
from jax.experimental.layout import with_layout_constraint
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from gen1_jax.models.module import Params, abstract_parameters, cast_kernels
from gen1_jax.models.partition import partitioned
from gen1_jax.parallel.sharding import ENCODER_RULES, UNET_RULES, Layout
from gen1_jax.training.objective import Inputs, Objective
from gen1_jax.training.optimizer import OptimizerConfig, make_optimizer, update_ema

Metrics = dict[str, tuple[Any, Any]]
"""Of each metric the sum over the examples of the global batch that bear on it, and their number."""


class TrainState(NamedTuple):
    """All that a run changes. Nested dicts of float32 arrays, and counters.

    Attributes:
        params: weights.
        ema: their running mean, which is what samples.
        optimizer: optax's state.
        step: steps done since the start of the run, skipped ones included.
        skipped: steps without finite gradients, which changed nothing.
        skipped_in_a_row: how many of them came last.
    """

    params: Params
    ema: Params
    optimizer: Any
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def initial_state(params: Params, config: OptimizerConfig) -> TrainState:
    """The state at step 0; inside a jit, so that nothing is ever whole on one device."""
    zero = lambda: jnp.zeros((), jnp.int32)
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(params, ema, make_optimizer(config).init(params), zero(), zero(), zero())


class TrainStep:
    """One optimizer step: (state, frozen, inputs) -> (state, metrics), for any batch shape.

    Args:
        objective: what is learned.
        optimizer: how weights change.
        learning_rate: of every step of the run.
        layout: where arrays lie.
        dtype: of the computation; float32 parameters are cast to it once a step.
        seed: of every draw; a step's draws depend on it and on the number of the step alone.
        compiled: where to keep what is compiled, to share it with steps whose objectives differ in `inputs` alone.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: OptimizerConfig,
        learning_rate: Callable[[Int[Array, ""]], Float[Array, ""]],
        layout: Layout,
        *,
        dtype: DTypeLike = jnp.float32,
        seed: int = 0,
        compiled: dict[int, Callable] | None = None,
    ):
        self.objective, self.layout = objective, layout
        self._optimizer, self._config = make_optimizer(optimizer), optimizer
        self._learning_rate, self._dtype, self._seed = learning_rate, dtype, seed
        self.rules = UNET_RULES if objective.component == "unet" else ENCODER_RULES
        abstract = abstract_parameters(objective.module)
        self.abstract_state = jax.eval_shape(lambda p: initial_state(p, optimizer), abstract)
        self.state_shardings = layout.at_rest(self.abstract_state, self.rules)
        self._gathered = layout.gathered(abstract, self.rules)
        self._jitted = {} if compiled is None else compiled

    def __call__(self, state: TrainState, frozen: Mapping[str, Params], inputs: Inputs, microbatches: int = 1):
        """Runs a step; `state` is donated."""
        return self.jitted(microbatches)(state, frozen, inputs)

    def jitted(self, microbatches: int = 1) -> Callable:
        """The jitted function, for lowering; compiled anew for each batch shape."""
        if microbatches not in self._jitted:
            self._jitted[microbatches] = jax.jit(
                lambda state, frozen, inputs: self._step(state, frozen, inputs, microbatches),
                donate_argnums=0,
                out_shardings=(self.state_shardings, self.layout.replicated()),
            )
        return self._jitted[microbatches]

    def gradients(self, weights: Params, frozen: Mapping[str, Params], inputs: Inputs, keys) -> tuple[Params, Metrics]:
        """Gradients of the mean loss, float32 and at rest, and the sums of metrics."""

        def mean_loss(weights):
            losses, metrics = self.objective.loss(weights, frozen, inputs, keys)
            return losses.mean(), {"loss": losses, **metrics}

        (_, metrics), grads = jax.value_and_grad(mean_loss, has_aux=True)(weights)
        grads = jax.lax.with_sharding_constraint(_row_major(grads, self.layout), self.state_shardings.params)
        counted = {
            name: (jnp.nansum(values), jnp.sum(~jnp.isnan(values)).astype(jnp.float32))
            for name, values in metrics.items()
            if name != "loss"
        }
        counted["loss"] = (metrics["loss"].sum(), jnp.float32(len(keys)))  # a loss that is not a number must show
        return jax.tree.map(lambda g: g.astype(jnp.float32), grads), counted

    def _step(self, state: TrainState, frozen: Mapping[str, Params], inputs: Inputs, microbatches: int):
        with partitioned(self.layout.activations()):
            grads, metrics = self._accumulate(state, frozen, inputs, microbatches)
        rate = self._learning_rate(state.step)
        norm = optax.global_norm(grads)
        finite = jnp.isfinite(metrics["loss"][0]) & jnp.isfinite(norm)
        updates, optimizer = self._optimizer.update(grads, state.optimizer, state.params)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        applied = state.step + 1 - state.skipped
        ema = update_ema(state.ema, params, applied, self._config.ema_decay)
        params, ema, optimizer = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, ema, optimizer),
            (state.params, state.ema, state.optimizer),
        )
        skipped = (~finite).astype(jnp.int32)
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        new = TrainState(params, ema, optimizer, state.step + 1, state.skipped + skipped, in_a_row)
        one = jnp.float32(1)
        return new, metrics | {
            "gradient_norm": (norm, one),
            "learning_rate": (rate, one),
            "skipped": (skipped.astype(jnp.float32), one),
            "skipped_in_a_row": (in_a_row.astype(jnp.float32), one),
        }

    def _accumulate(self, state: TrainState, frozen: Mapping[str, Params], inputs: Inputs, microbatches: int):
        """Mean gradients over the batch, in parts; example i is in part i mod parts, so that no device idles."""
        size = len(jax.tree.leaves(inputs)[0])
        key = jax.random.fold_in(jax.random.key(self._seed), state.step)
        keys = jax.random.split(key, size)
        weights, frozen = self._weights(state.params), self._gather_frozen(frozen)
        if microbatches == 1:
            return self.gradients(weights, frozen, inputs, keys)

        def part(x):
            return jnp.moveaxis(x.reshape(size // microbatches, microbatches, *x.shape[1:]), 1, 0)

        def add(total, piece):
            return jax.tree.map(jnp.add, total, self.gradients(weights, frozen, *piece)), None

        pieces = jax.tree.map(part, (inputs, keys))
        shapes = jax.eval_shape(self.gradients, weights, frozen, *jax.tree.map(lambda x: x[0], pieces))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (grads, metrics), _ = jax.lax.scan(add, zeros, pieces)
        return jax.tree.map(lambda g: g / microbatches, grads), metrics

    def _weights(self, params: Params) -> Params:
        """What the networks compute with: cast where it lies, then gathered, once a step."""
        cast = jax.lax.with_sharding_constraint(cast_kernels(params, self._dtype), self.state_shardings.params)
        return jax.lax.with_sharding_constraint(cast, self._gathered)

    def _gather_frozen(self, frozen: Mapping[str, Params]) -> dict[str, Params]:
        return jax.lax.with_sharding_constraint(dict(frozen), self.layout.gathered(dict(frozen), ENCODER_RULES))


def _row_major(grads: Params, layout: Layout) -> Params:
    """On GPUs, keeps the layouts of cuDNN's convolutions from spreading into the optimizer, which would transpose its
    whole state to them and back in every step."""
    if layout.platform != "gpu":
        return grads
    return jax.tree.map(lambda g: with_layout_constraint(g, RowMajor(tuple(range(g.ndim)))), grads)
