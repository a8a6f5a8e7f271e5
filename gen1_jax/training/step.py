"""The step: gradients of an objective, AdamW, EMA. Compiled as two programs, see `programs`.

state at rest, float32, over all devices ──cast──► bfloat16 ──gather over fsdp──► weights
batch ──► microbatches, one after the other ──► gradients, summed, scattered over fsdp ──► sum over data, once
      ──► AdamW, where something was learned ──► state, EMA
"""

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout as RowMajor
from jax.experimental.layout import with_layout_constraint
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from gen1_jax.models.module import Params, abstract_parameters, cast_kernels
from gen1_jax.models.partition import Undivided, partitioned
from gen1_jax.parallel.cudnn import skip_slow_engines
from gen1_jax.parallel.sharding import Layout, rules_of
from gen1_jax.training.gradients import learning
from gen1_jax.training.objective import ALONE, BatchArrays, Context, Objective
from gen1_jax.training.optimizer import OptimizerConfig, Rates, Trained, descend, ema_rate, make_optimizer
from gen1_jax.training.programs import TRACING, Once, StepProgram

Metrics = dict[str, tuple[Any, Any]]
"""Of each metric the sum over the examples of the global batch that bear on it, and their number."""


class TrainState(NamedTuple):
    """All that a run changes. Nested dicts of float32 arrays, and counters.

    Attributes:
        params: what is learned: the weights themselves, or those of an adapter (`learned.Learned`).
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


class Programs:
    """What is compiled of a step; for steps, too, whose objectives differ in `inputs` alone.

    Args:
        updates: second halves, of other steps of the same parameters, optimizer and rates, too; None for its own.

    Attributes:
        jitted: the function of a number of microbatches.
        compiled: what was compiled of it ahead, by all that tells its arguments apart.
        updates: second halves of these, by which parameters a batch can teach, and in which dtypes.
    """

    def __init__(self, updates: Once | None = None) -> None:
        self.jitted: dict[int, Callable] = {}
        self.compiled: dict[Hashable, Any] = {}
        self.updates = updates or Once()


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
        ema_decay: of every step of the run; None for that of `optimizer`.
        seed: of every draw; a step's draws depend on it and on the number of the step alone.
        programs: where to keep what is compiled.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: OptimizerConfig,
        learning_rate: Callable[[Int[Array, ""]], Float[Array, ""]],
        layout: Layout,
        *,
        dtype: DTypeLike = jnp.float32,
        ema_decay: Callable[[Int[Array, ""]], Float[Array, ""] | float] | None = None,
        seed: int = 0,
        programs: Programs | None = None,
    ):
        skip_slow_engines()
        self.objective, self.layout = objective, layout
        self._optimizer = optimizer
        self._learning_rate, self._dtype, self._seed = learning_rate, dtype, seed
        self._ema_decay = ema_decay or (lambda step: optimizer.ema_decay)
        self.rules = rules_of(objective.component)
        network = abstract_parameters(objective.module)
        abstract = jax.eval_shape(lambda base: objective.learned.initial(base, seed), network)
        self.abstract_state = jax.eval_shape(lambda p: initial_state(p, optimizer), abstract)
        self.state_shardings = layout.at_rest(self.abstract_state, self.rules)
        self._gathered = layout.gathered(abstract, self.rules)
        self.programs = programs or Programs()

    @property
    def placed_state(self) -> TrainState:
        """The abstract state, where it lies."""
        return jax.tree.map(_placed, self.abstract_state, self.state_shardings)

    def __call__(self, state: TrainState, frozen: Mapping[str, Params], inputs: BatchArrays, microbatches: int = 1):
        """Runs a step; `state` is donated."""
        return self.jitted(microbatches)(state, frozen, inputs)

    def compile(
        self,
        state: TrainState,
        frozen: Mapping[str, Any],
        inputs: Mapping[str, Any],
        microbatches: int = 1,
        idle: Callable[[], Any] = lambda: None,
    ) -> StepProgram:
        """The step for batches of one shape, its two programs compiled side by side, the second once for all shapes.

        Args:
            state: arrays or abstract ones where they lie, as all of these.
            frozen: see `gradients`.
            inputs: a batch.
            microbatches: parts of it.
            idle: returns when the device has nothing else to do, for XLA times kernels there; called once it is traced.
        """
        learns = None

        def gradients(params, ema, step, frozen, inputs):
            nonlocal learns
            grads, metrics, learns = self._gradients_of_batch(params, ema, step, frozen, inputs, microbatches)
            return grads, metrics

        shardings = (self.state_shardings.params, self.layout.replicated())
        with TRACING:
            traced = jax.jit(gradients, out_shardings=shardings).trace(
                state.params, state.ema, state.step, frozen, inputs
            )
            lowered = traced.lower()
        grads = jax.tree.map(_placed, traced.out_info[0], self.state_shardings.params)
        metrics = jax.tree.map(lambda leaf: _placed(leaf, self.layout.replicated()), traced.out_info[1])
        dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(grads))  # sums of parts are float32, others may not be
        update = self.programs.updates(
            (tuple(jax.tree.leaves(learns)), dtypes, tuple(metrics)),
            lambda: _compiled(self._lowered_update(learns, state, grads, metrics), idle),
        )
        return StepProgram(_compiled(lowered, idle), update())

    def _lowered_update(self, learns: Any, state: TrainState, grads: Params, metrics: Metrics) -> jax.stages.Lowered:
        with TRACING:
            return self._jitted_update(learns).lower(state, grads, metrics)

    def _jitted_update(self, learns: Any) -> Callable:
        return jax.jit(
            lambda state, grads, metrics: self._update(state, grads, metrics, learns),
            donate_argnums=0,
            out_shardings=(self.state_shardings, self.layout.replicated()),
        )

    def jitted(self, microbatches: int = 1) -> Callable:
        """All of a step as one function, for lowering; compiled anew for each batch shape."""
        jitted = self.programs.jitted
        if microbatches not in jitted:
            jitted[microbatches] = jax.jit(
                lambda state, frozen, inputs: self._step(state, frozen, inputs, microbatches),
                donate_argnums=0,
                out_shardings=(self.state_shardings, self.layout.replicated()),
            )
        return jitted[microbatches]

    @property
    def abstract_context(self) -> Context:
        """What a loss is told beside its batch, without arrays."""
        return Context(self.abstract_state.ema, self.abstract_state.step)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Components whose weights a step is given: those that the loss reads, and the base of what is learned."""
        objective = self.objective
        base = (objective.component,) if objective.learned.uses_base else ()
        return tuple(dict.fromkeys(objective.frozen + base))

    def frozen_part(self, component: str, weights: Params) -> Params:
        """What a step reads of a frozen network: all of it, but of the network that is trained what is not learned."""
        objective = self.objective
        return objective.learned.frozen(weights) if component == objective.component else weights

    def loss(
        self,
        learned: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """What the objective gives for what is learned; arguments of `gradients`."""
        objective = self.objective
        weights = objective.learned.weights(frozen.get(objective.component, {}), learned)
        others = {name: frozen[name] for name in objective.frozen}
        return objective.loss(weights, others, inputs, keys, context)

    def gradients(
        self,
        learned: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
        layout: Layout | None = None,
    ) -> tuple[Params, Metrics]:
        """Gradients of the mean loss at rest, in the dtype of what they are of, and the sums of metrics.

        Args:
            learned: the parameters that are trained, in the dtype of the computation and gathered.
            frozen: weights of the components named by the attribute.
            inputs: a batch, or a part of one.
            keys: one an example.
            context: for the loss.
            layout: where gradients are to lie; None for that of the step.
        """
        layout = layout or self.layout

        def mean_loss(learned):
            losses, metrics = self.loss(learned, frozen, inputs, keys, context)
            return losses.mean(), {"loss": losses, **metrics}

        (_, metrics), grads = jax.value_and_grad(mean_loss, has_aux=True)(learned)
        grads = _row_major(grads, layout)
        if not layout.is_whole:
            at_rest = self.state_shardings.params if layout is self.layout else layout.at_rest(grads, self.rules)
            grads = jax.lax.with_sharding_constraint(grads, at_rest)
        counted = {
            name: (jnp.nansum(values), jnp.sum(~jnp.isnan(values)).astype(jnp.float32))
            for name, values in metrics.items()
            if name != "loss"
        }
        counted["loss"] = (metrics["loss"].sum(), jnp.float32(len(keys)))  # a loss that is not a number must show
        return grads, counted

    def _step(self, state: TrainState, frozen: Mapping[str, Params], inputs: BatchArrays, microbatches: int):
        seen = (state.params, state.ema, state.step)
        return self._update(state, *self._gradients_of_batch(*seen, frozen, inputs, microbatches))

    def _update(self, state: TrainState, grads: Params, metrics: Metrics, learns: Any) -> tuple[TrainState, Metrics]:
        """AdamW where something was learned, and EMA; nothing at all where a gradient is not finite."""
        rate = self._learning_rate(state.step)
        grads = jax.tree.map(lambda g: g.astype(jnp.float32), grads)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(metrics["loss"][0]) & jnp.isfinite(norm)
        applied = state.step + 1 - state.skipped
        rates = Rates(rate, ema_rate(applied, self._ema_decay(state.step)), finite)
        trained = Trained(state.params, state.ema, state.optimizer)
        trained = descend(self._optimizer, trained, grads, learns, rates)
        skipped = (~finite).astype(jnp.int32)
        in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        new = TrainState(*trained, state.step + 1, state.skipped + skipped, in_a_row)
        one = jnp.float32(1)
        return new, metrics | {
            "gradient_norm": (norm, one),
            "learning_rate": (rate, one),
            "skipped": (skipped.astype(jnp.float32), one),
            "skipped_in_a_row": (in_a_row.astype(jnp.float32), one),
        }

    def _gradients_of_batch(
        self,
        params: Params,
        ema: Params,
        step: Int[Array, ""],
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        microbatches: int,
    ) -> tuple[Params, Metrics, Any]:
        """Mean gradients over the batch, sums of metrics, and for each parameter whether the batch can teach it."""
        with partitioned(self.layout.activations()):
            return self._gradients_in_parts(params, ema, step, frozen, inputs, microbatches)

    def _gradients_in_parts(self, params, ema, step, frozen, inputs, microbatches: int) -> tuple[Params, Metrics, Any]:
        size = len(jax.tree.leaves(inputs)[0])
        keys = jax.random.split(jax.random.fold_in(jax.random.key(self._seed), step), size)
        learned, frozen = self._compute_with(params), self._gather_frozen(frozen)
        context = Context(jax.lax.stop_gradient(ema), step)
        given = (learned, frozen, *jax.tree.map(lambda x: x[: size // microbatches], (inputs, keys)), context)
        gradients = jax.jit(self.gradients, inline=True)  # traced once, for both
        learns, (_, metrics) = learning(gradients, *given)
        if microbatches == 1:
            return *gradients(learned, frozen, inputs, keys, context), learns
        in_parts = partial(self._accumulate, microbatches=microbatches, metrics=metrics)
        if not self.layout.sums_once or self.objective.coupled:  # those beside an example are on other devices
            return *in_parts(gradients, learned, frozen, inputs, keys, context), learns
        return *self._sum_over_data(in_parts, learned, frozen, inputs, keys, context), learns

    def _sum_over_data(self, in_parts: Callable, learned, frozen, inputs, keys, context: Context):
        """Each copy of the weights goes through its examples alone; then they are summed, once."""
        copies = self.layout.copies

        def alone(learned, frozen, inputs, keys, ema, step):
            layout = self.layout.inside_data()
            with partitioned(Undivided() if layout.is_whole else layout.activations()):
                gradients = partial(self.gradients, layout=layout)
                grads, metrics = in_parts(gradients, learned, frozen, inputs, keys, Context(ema, step, copies))
            grads, metrics = jax.lax.psum((grads, metrics), "data")
            return jax.tree.map(lambda g: g / copies, grads), metrics

        whole, divided = PartitionSpec(), PartitionSpec("data")
        return jax.shard_map(
            alone,
            mesh=self.layout.mesh,
            axis_names=self.layout.manual_axes,  # what the others divide is the compiler's affair
            in_specs=(whole, whole, divided, divided, whole, whole),
            out_specs=whole,
            check_vma=False,  # it would sum the gradients of each part
        )(learned, frozen, inputs, keys, context.ema, context.step)

    def _accumulate(
        self, gradients, learned, frozen, inputs, keys, context: Context, *, microbatches: int, metrics: Metrics
    ) -> tuple[Params, Metrics]:
        """Mean gradients over a batch, in parts; example i is in part i mod parts, so that no device idles."""
        size = len(keys)

        def part(x):
            return jnp.moveaxis(x.reshape(size // microbatches, microbatches, *x.shape[1:]), 1, 0)

        def add(total, piece):
            return jax.tree.map(jnp.add, total, gradients(learned, frozen, *piece, context)), None

        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (learned, metrics))
        (grads, metrics), _ = jax.lax.scan(add, zeros, jax.tree.map(part, (inputs, keys)))
        return jax.tree.map(lambda g: g / microbatches, grads), metrics

    def _compute_with(self, params: Params) -> Params:
        """The learned parameters in the computation: cast where they lie, then gathered, once a step."""
        cast = params if self.objective.learned.in_float32 else cast_kernels(params, self._dtype)
        cast = jax.lax.with_sharding_constraint(cast, self.state_shardings.params)
        return jax.lax.with_sharding_constraint(cast, self._gathered)

    def _gather_frozen(self, frozen: Mapping[str, Params]) -> dict[str, Params]:
        gathered = {name: self.layout.gathered(weights, rules_of(name)) for name, weights in frozen.items()}
        return jax.lax.with_sharding_constraint(dict(frozen), gathered)


def _row_major(grads: Params, layout: Layout) -> Params:
    """On GPUs, keeps the layouts of cuDNN's convolutions from spreading into the optimizer, which would transpose its
    whole state to them and back in every step."""
    if layout.platform != "gpu":
        return grads
    return jax.tree.map(lambda g: with_layout_constraint(g, RowMajor(tuple(range(g.ndim)))), grads)


def _compiled(lowered: jax.stages.Lowered, idle: Callable[[], Any]) -> jax.stages.Compiled:
    idle()
    return lowered.compile()


def _placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
