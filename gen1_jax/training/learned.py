"""What is trained, apart from what computes: the whole network, or a few parameters beside a frozen one.

base (frozen) ─┐
learned ───────┴─► weights ─► the network computes with them; gradients go to `learned` alone
"""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from flax import nnx

from gen1_jax.errors import UserError
from gen1_jax.models.module import Params, abstract_parameters, initial_values
from gen1_jax.models.selection import Selection, together
from gen1_jax.pretrained.folder import ModelSource


@runtime_checkable
class Learned(Protocol):
    """How the parameters that are trained become the weights that the network computes with.

    Attributes:
        uses_base: whether `weights` reads the frozen network. The step then finds it among its frozen weights, by the
            name of the component that is trained.
        in_float32: whether `weights` is given what is learned as it is at rest, whatever the dtype of the computation.
    """

    uses_base: bool
    in_float32: bool

    def initial(self, base: Params, seed: int) -> Params:
        """The parameters to begin with, float32.

        Args:
            base: weights of the network, abstract (`jax.ShapeDtypeStruct`), of arrays or of what gives arrays.
            seed: of what is drawn.
        """
        ...

    def frozen(self, base: Params) -> Params:
        """What `weights` reads of the network; it stays as it is. Nothing unless `uses_base`."""
        ...

    def weights(self, base: Params, learned: Params) -> Params:
        """What the network computes with, inside a jit and differentiable in `learned`.

        Args:
            base: what `frozen` gives, in the dtype of the computation.
            learned: the parameters that are trained, kernels in the dtype of the computation unless `in_float32`.
        """
        ...


class WholeNetwork:
    """Every weight of the network is trained. See `Learned`."""

    uses_base = False
    in_float32 = False

    def initial(self, base: Params, seed: int) -> Params:
        """The weights of the network."""
        return base

    def frozen(self, base: Params) -> Params:
        """Nothing."""
        return {}

    def weights(self, base: Params, learned: Params) -> Params:
        """What is learned."""
        return learned


class Selected:
    """Some of the weights are trained, by their paths, the others stay as they are. See `Learned`.

    Args:
        selection: of those that are trained.
    """

    uses_base = True
    in_float32 = False

    def __init__(self, selection: Selection):
        self.selection = selection

    def initial(self, base: Params, seed: int) -> Params:
        """The selected weights of the network."""
        return self.selection.chosen(base)

    def frozen(self, base: Params) -> Params:
        """The other ones."""
        return self.selection.others(base)

    def weights(self, base: Params, learned: Params) -> Params:
        """All of them."""
        return together(base, learned)


class BesideTeacher:
    """The same, in sight of the network as it was, from which the loss lets it learn. See `Learned`.

    Args:
        learned: what is trained.
    """

    uses_base = True

    def __init__(self, learned: Learned):
        self.learned, self.in_float32 = learned, learned.in_float32

    def initial(self, base: Params, seed: int) -> Params:
        """The parameters to begin with."""
        return self.learned.initial(base, seed)

    def frozen(self, base: Params) -> Params:
        """All of the network: the teacher."""
        return base

    def weights(self, base: Params, learned: Params) -> Params:
        """The student."""
        return self.learned.weights(self.learned.frozen(base), learned)


def selected(trained: Sequence[str], module: nnx.Module, field: str) -> Learned:
    """What of a network is trained, by names of its parameters (`models.selection`); all of it if there are none.

    Args:
        trained: the names.
        module: the network.
        field: of the recipe, that errors name.

    Raises:
        UserError: a name that chooses nothing.
    """
    if not trained:
        return WholeNetwork()
    try:
        selection = Selection(trained)
        selection.check(abstract_parameters(module))
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    return Selected(selection)


def stored_of(source: ModelSource, components: Sequence[str], had: Collection[str]) -> Params:
    """Weights that a model has of what is to learn: of one network; of several, those of each that it has by its name.

    Args:
        source: the model, with networks that it had not.
        components: the networks.
        had: names of those that have weights.
    """
    if len(components) == 1:
        return source.stored(components[0])
    return {name: source.stored(name) for name in components if name in had}


def beginning(module: nnx.Module, seed: int, stored: Params | None) -> Params:
    """Weights to begin with: those that are stored, and drawn ones for layers that they lack; all drawn for None."""
    drawn = initial_values(module, seed)
    return drawn if stored is None else together(drawn, stored)
