"""The suite runs with annotations checked: a wrong shape or type is an error where it enters or leaves a function."""

import dataclasses
import sys

import numpy as np
import pytest
from checked import check_annotations
from jaxtyping import TypeCheckError

from gen1_jax.measures.pixels import psnr
from gen1_jax.pretrained.family import TINY

PACKAGE = '''
"""Functions wherever they can stand."""
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from jaxtyping import Float
import numpy as np

@functools.cache
def twice(x: int) -> int:
    return 2 * x

@dataclass
class Pair:
    a: Float[np.ndarray, "n"]
    b: Float[np.ndarray, "n"]

    @property
    def wrong(self) -> int:
        return "one"

    @staticmethod
    def rows(x: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n"]:
        def last(y: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "m"]:
            return y[:, 0]
        return last(x)

def pairs(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> Iterator[tuple]:
    yield from zip(x, y)

def first(x: Float[np.ndarray, "n"], others: "Pair") -> Float[np.ndarray, "n"]:
    list(pairs(others.a, others.b))  # of another size
    return x

try:
    raise KeyError
except KeyError:
    if True:
        def half(x: float) -> float:
            return x / 2
'''


def test_whatever_is_defined_is_checked(tmp_path, monkeypatch):
    (tmp_path / "measured.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.meta_path", [*sys.meta_path])
    check_annotations("measured")
    import measured

    assert measured.twice(2) == 4 and measured.half(1.0) == 0.5 and measured.twice.__module__ == "measured"
    pair = measured.Pair(np.zeros(2), np.ones(2))
    assert measured.Pair.rows(np.eye(2)).tolist() == [1, 0]  # square: the axis that is wrong has the same size
    assert measured.first(np.zeros(3), pair).size == 3
    for wrong in (
        lambda: measured.twice("2"),
        lambda: measured.half("1"),
        lambda: measured.Pair(np.zeros(2), np.zeros(3)),
        lambda: measured.Pair.rows(np.zeros((2, 3))),
        lambda: measured.pairs(np.zeros(2), np.zeros(3)),  # before any item is asked for
        lambda: measured.first(np.zeros(3), "a pair"),
        lambda: pair.wrong,
    ):
        with pytest.raises(TypeCheckError):
            wrong()
    with pytest.raises(AssertionError, match="imported already"):
        check_annotations("measured")


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        psnr(np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 4, 5, 3), np.float32))
    with pytest.raises(TypeCheckError):
        dataclasses.replace(TINY.vae, latent_channels="4")
