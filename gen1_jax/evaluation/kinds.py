"""How well an edit keeps each kind of structure beside depth: that which is estimated of it against the exact one."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Float32

from gen1_jax import synthetic
from gen1_jax.data.world import World, world_maps
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import angular_error, edge_f1, endpoint_error, region_consistency
from gen1_jax.models.module import Bound
from gen1_jax.models.structure import StructureKind

Maps = Float32[np.ndarray, "n t h w k"]


class KindError(NamedTuple):
    """How the error of a kind is measured.

    Attributes:
        values: its range, and its unit where it has one.
        definition: in one line; less is better.
        error: of estimated maps of N clips against the exact ones.
    """

    values: str
    definition: str
    error: Callable[[Maps, Maps], Float[np.ndarray, " n"]]


def _regions(maps: Maps) -> np.ndarray:
    """Numbers of the colours of each clip, (n, t, h, w)."""
    return np.stack([_numbered(clip.reshape(-1, clip.shape[-1])).reshape(clip.shape[:-1]) for clip in maps])


def _numbered(rows: np.ndarray) -> np.ndarray:
    """A number for each different row: `numpy.unique` of whole rows takes eight times as long."""
    number = np.zeros(len(rows), np.int64)
    for column in rows.T:
        values, at = np.unique(column, return_inverse=True)
        number = np.unique(number * len(values) + at, return_inverse=True)[1]
    return number


KIND_ERRORS = {
    "edges": KindError(
        "0 to 1",
        "1 - F1 of the edit's estimated edges and the true ones, within a pixel",
        lambda maps, truth: 1 - np.asarray(jax.jit(edge_f1)(maps[..., 0], truth[..., 0])),
    ),
    "normals": KindError(
        "0 to 180 degrees",
        "mean angle between the normals of the edit's estimated depth and the true ones",
        lambda maps, truth: np.asarray(jax.jit(angular_error)(maps, truth)),
    ),
    "flow": KindError(
        "pixels, from 0",
        "mean distance of where the edit's estimated motion and the true one take a pixel",
        lambda maps, truth: np.asarray(jax.jit(endpoint_error)(maps, truth)),
    ),
    "segmentation": KindError(
        "0 to 1",
        "share of pixels in a region of the edit that overlaps another thing more than theirs",
        lambda maps, truth: 1 - region_consistency(_regions(maps), _regions(truth)),
    ),
}
"""Of the kinds that are estimated of any clip: not of poses. Depth has `structure_error`."""


def error_name(kind: str) -> str:
    """Of the measure, in results."""
    return f"{kind}_error"


def measured(kinds: Iterable[str]) -> tuple[str, ...]:
    """Those of some kinds that have an error here."""
    return tuple(kind for kind in kinds if kind in KIND_ERRORS)


def exact_kind(worlds: Worlds, kind: str) -> Maps:
    """Exact maps of all clips of `Worlds`."""
    clips, found = worlds.clips, []
    for index, (structure, *_) in enumerate(worlds.scenes):
        one = jax.tree.map(lambda x: x[index], clips)  # noqa: B023
        clip = synthetic.Clip(one.source, 1 / one.inverse_depth, one.ids, one.flow)
        world = World(clip, one.maps, one.source, np.asarray(structure.shapes), index)
        found.append(world_maps(world, kind))
    return np.stack(found)


def estimate_kind(
    kind: StructureKind, network: Callable[[str], Bound], clips: np.ndarray, in_batches: Callable[..., np.ndarray]
) -> Maps:
    """Maps of a kind as an edit has them, of N clips, before they are normalised.

    Args:
        kind: one that is estimated.
        network: gives a network of the model by its name.
        clips: (N, T, H, W, 3).
        in_batches: applies a function of frames to all clips, see `Editor`.
    """
    if kind.runs_on_host:
        with ThreadPoolExecutor() as pool:  # OpenCV, in which they are, lets other threads go on
            return np.stack([*pool.map(lambda clip: np.asarray(kind.estimate(clip, {}), np.float32), clips)])
    networks = {} if kind.part is None else {kind.part: network(kind.part)}
    return in_batches(lambda frames: kind.estimate(frames, networks, frames_per_chunk=len(frames)), clips)
