"""What is trained, apart from what computes: the whole network, or a few parameters beside a frozen one.

base (frozen) ─┐
learned ───────┴─► weights ─► the network computes with them; gradients go to `learned` alone
"""

from typing import Protocol, runtime_checkable

from gen1_jax.models.module import Params


@runtime_checkable
class Learned(Protocol):
    """How the parameters that are trained become the weights that the network computes with.

    Attributes:
        uses_base: whether `weights` reads the frozen network. The step then finds it among its frozen weights, by the
            name of the component that is trained.
    """

    uses_base: bool

    def initial(self, base: Params, seed: int) -> Params:
        """The parameters to begin with, float32.

        Args:
            base: weights of the network, abstract (`jax.ShapeDtypeStruct`), of arrays or of what gives arrays.
            seed: of what is drawn.
        """
        ...

    def weights(self, base: Params, learned: Params) -> Params:
        """What the network computes with, inside a jit and differentiable in `learned`.

        Args:
            base: weights of the frozen network in the dtype of the computation; empty unless `uses_base`.
            learned: the parameters that are trained, kernels in the dtype of the computation.
        """
        ...


class WholeNetwork:
    """Every weight of the network is trained. See `Learned`."""

    uses_base = False

    def initial(self, base: Params, seed: int) -> Params:
        """The weights of the network."""
        return base

    def weights(self, base: Params, learned: Params) -> Params:
        """What is learned."""
        return learned
