"""Networks that several checkpoints fill, and what of their values is refused."""

import jax
import numpy as np
import pytest
from flax import nnx

from gen1_jax.errors import UserError
from gen1_jax.models.layers import Linear
from gen1_jax.models.module import flatten
from gen1_jax.models.norms import LayerNorm
from gen1_jax.pretrained.assembly import Network, Source
from gen1_jax.pretrained.layout import Layout


class Pair(nnx.Module):
    def __init__(self):
        self.base, self.added = nnx.List([LayerNorm(3), Linear(3, 3)]), Linear(3, 2)


BASE = {
    "base.0.weight": np.ones(3),
    "base.0.bias": np.zeros(3),
    "base.1.weight": np.arange(9.0).reshape(3, 3),
    "base.1.bias": np.ones(3),
}
ADDED = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.ones(2)}


def network(base=(), added=(), **sources):
    base = Source(
        layout=Layout(), tensors=BASE | dict(base), name="base", fills=lambda path: not path.startswith("added.")
    )
    added = Source(
        layout=Layout(renames=((r"^added\.", ""),)),
        tensors=ADDED | dict(added),
        name="added",
        fills=lambda path: path.startswith("added."),
        from_zero=(r"^added\.kernel$",),
    )
    chosen = sources or {"base": base, "added": added}
    return Network(module=Pair(), sources=tuple(chosen.values()))


def test_each_checkpoint_fills_its_own_part():
    filled = flatten(network().parameters())
    np.testing.assert_array_equal(filled["base.1.kernel"], BASE["base.1.weight"].T)
    np.testing.assert_array_equal(filled["added.kernel"], ADDED["weight"].T)
    assert all(isinstance(x, np.ndarray) and x.dtype == np.float32 for x in jax.tree.leaves(filled))


def test_what_no_checkpoint_fills_is_named_before_anything_is_read():
    only = Source(layout=Layout(), tensors=BASE, name="base", fills=lambda path: not path.startswith("added."))
    with pytest.raises(UserError, match=r"^base has nothing for added\.bias and 1 more$"):
        network(only=only)
    with pytest.raises(UserError, match=r"^added has tensors that the network does not: x$"):
        network(added={"x": np.ones(2)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": {"base.1.bias": np.array([1, np.nan, 1])}}, "^base is damaged: base.1.bias is not finite"),
        ({"base": {"base.1.bias": np.array([1, np.inf, 1])}}, "^base is damaged: base.1.bias is not finite"),
        ({"added": {"weight": np.zeros((2, 3))}}, "^added is not trained: weight and all others like it are zero"),
        ({"base": {"base.0.weight": np.zeros(3)}}, "^base is damaged or not trained: the scales of its norms are 0 on"),
        ({"base": {"base.0.weight": np.full(3, 1e4)}}, "the scales of its norms are 1e\\+04 on average"),
    ],
)
def test_values_that_no_training_gives_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        network(**changes).parameters()


def test_one_dtype_for_matrices_and_another_for_vectors():
    filled = flatten(network().parameters("bfloat16"))
    assert {path: x.dtype.name for path, x in filled.items() if path.startswith("base.1")} == {
        "base.1.kernel": "bfloat16",
        "base.1.bias": "float32",
    }
    with pytest.raises(UserError, match=r"^added has weights beyond those that float16 holds: import it as bfloat16"):
        network(added={"weight": np.full((2, 3), 1e5)}).parameters("float16")
