"""What a network learns: from a batch to one loss an example. The step knows nothing else of networks and data."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from gen1_jax.data.batch import Batch
from gen1_jax.models.module import Params
from gen1_jax.training.learned import Learned

BatchArrays = dict[str, Array]
"""Arrays on the device, each with the batch as its leading axis."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What a loss may know beside weights and batch.

    Attributes:
        ema: running mean of the learned parameters, at rest and out of reach of gradients.
        step: of the run.
        groups: of devices that each compute a loss of their own examples at the same time, unseen by `loss`.
    """

    ema: Params | Any
    step: Int[Array, ""] | Any = 0
    groups: int = dataclasses.field(default=1, metadata={"static": True})


ALONE = Context(ema={})
"""Of a loss that is asked for by itself, at step 0 and without a running mean."""


@runtime_checkable
class Objective(Protocol):
    """What one network learns in one stage.

    Attributes:
        component: the network that is trained, as a component of `Gen1Config`.
        frozen: other components whose weights `loss` reads.
        module: the trained network without arrays.
        learned: which parameters are trained, and what the network computes with.
        coupled: whether the loss of an example depends on the others beside it.
    """

    component: str
    frozen: tuple[str, ...]
    module: nnx.Module
    learned: Learned
    coupled: bool

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """What goes to the device, on the host; every array has the batch as its leading axis."""
        ...

    def loss(
        self,
        weights: Params,
        frozen: Mapping[str, Params],
        inputs: BatchArrays,
        keys: Key[Array, " b"],
        context: Context = ALONE,
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """Losses and metrics, one an example, inside a jit; a metric is NaN where an example does not bear on it.

        Args:
            weights: of the trained network.
            frozen: weights of the others, by component.
            inputs: of a batch, or of a part of one.
            keys: one an example, so that draws depend neither on sharding nor on accumulation.
            context: what else is known.
        """
        ...


@runtime_checkable
class Calibrated(Protocol):
    """An objective whose network has parameters that come from the data rather than from gradients."""

    def calibrate(self, params: Params, frozen: Mapping[str, Params], batches: Iterator[Batch]) -> Params:
        """Initial parameters with those set."""
        ...
