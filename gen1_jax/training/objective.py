"""What a network learns: from a batch to one loss an example. The step knows nothing else of networks and data."""

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Key

from gen1_jax.data.batch import Batch
from gen1_jax.models.module import Params

Inputs = dict[str, Array]
"""Arrays on the device, each with the batch as its leading axis."""


@runtime_checkable
class Objective(Protocol):
    """What one network learns in one stage.

    Attributes:
        component: the network that is trained, as a component of `Gen1Config`.
        frozen: other components whose weights `loss` reads.
        module: the trained network without arrays.
    """

    component: str
    frozen: tuple[str, ...]
    module: nnx.Module

    def inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """What goes to the device, on the host; every array has the batch as its leading axis."""
        ...

    def loss(
        self, params: Params, frozen: Mapping[str, Params], inputs: Inputs, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, " b"], dict[str, Float[Array, " b"]]]:
        """Losses and metrics, one an example, inside a jit; a metric is NaN where an example does not bear on it.

        Args:
            params: weights of the trained network.
            frozen: weights of the others, by component.
            inputs: of a batch, or of a part of one.
            keys: one an example, so that draws depend neither on sharding nor on accumulation.
        """
        ...


@runtime_checkable
class Calibrated(Protocol):
    """An objective whose network has parameters that come from the data rather than from gradients."""

    def calibrate(self, params: Params, frozen: Mapping[str, Params], batches: Iterator[Batch]) -> Params:
        """Initial parameters with those set."""
        ...
