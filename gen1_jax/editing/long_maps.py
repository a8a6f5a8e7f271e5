"""Maps of a clip that is too long to be held: in a file, made in one pass over the frames, of one scale.

frames ──► pieces as they are estimated ──► file ──► least and largest, or quantiles, of the whole clip
                                                └──► a block ──normalise──► degrade by t_s ──► encode
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from gen1_jax.editing.structures import StructureReader, picture_of_maps
from gen1_jax.files import replacing, write_text
from gen1_jax.models.structure import Depth, StructureKind
from gen1_jax.models.structure.depth import Quantiles, depth_between

_BINS = 2**16  # of a histogram of depth
_CHUNK = 8  # frames


class MapFile:
    """Maps of one kind of all frames.

    Args:
        folder: where its files lie.
        reader: of structures.
        kind: of structure.
        level: t_s.
        shape: (T, H, W).
        ready: whether its maps were given, and so are normalised.

    Attributes:
        kind: see above.
    """

    def __init__(
        self,
        folder: Path,
        reader: StructureReader,
        kind: StructureKind,
        level: int,
        shape: tuple[int, int, int],
        *,
        ready: bool,
    ):
        self.kind = kind
        self._reader, self._level, self._ready = reader, level, ready
        self._has_ends = isinstance(kind, Depth) and not ready  # which the whole clip says
        self._shape = (*shape[1:], kind.channels)
        self._count = shape[0]
        self._path, self._ends_path = folder / f"{kind.name}.f32", folder / f"{kind.name}.json"

    @property
    def is_there(self) -> bool:
        """Whether all maps are in the file."""
        return self._ends_path.exists()

    def fill(self, pieces: Iterable[Float[np.ndarray, "_ H W k"]]) -> Iterator[int]:
        """Writes maps in their order; how many so far."""
        low, high, done = np.inf, -np.inf, 0
        with replacing(self._path, alone=True) as beside, beside.open("wb") as file:
            for piece in pieces:
                np.asarray(piece, np.float32).tofile(file)
                low, high = min(low, float(piece.min())), max(high, float(piece.max()))
                done += len(piece)
                yield done
        if self._has_ends:
            low, high = self._quantiles(low, high, self.kind.quantiles)
        write_text(self._ends_path, json.dumps([low, high]))

    def block(self, start: int, count: int) -> Float[np.ndarray, "n H W k"]:
        """Normalised, degraded maps of frames from `start` on; the clip's last one again where there are no more."""
        there = min(count, self._count - start)
        maps = self._read(start, there)
        maps = np.concatenate([maps, np.repeat(maps[-1:], count - there, axis=0)])
        if self._has_ends:
            low, high = json.loads(self._ends_path.read_text())
            maps = np.asarray(depth_between(jnp.clip(maps[..., 0], low, high), low, high))[..., None]
        elif not self._ready:
            maps = np.asarray(self.kind.normalise(jnp.asarray(maps)))
        return self._reader.degrade(self.kind, maps, self._level)

    def pictures(self) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
        """The maps as pictures, one by one."""
        for start in range(0, self._count, _CHUNK):
            pictures = picture_of_maps(self.kind, self.block(start, _CHUNK))
            yield from pictures[: self._count - start]

    def _read(self, start: int, count: int) -> Float[np.ndarray, "n H W k"]:
        each = int(np.prod(self._shape))
        with self._path.open("rb") as file:
            return np.fromfile(file, np.float32, count * each, offset=4 * start * each).reshape(-1, *self._shape)

    def _quantiles(self, low: float, high: float, quantiles: Quantiles) -> tuple[float, float]:
        """Of all maps, by their histogram; the least and the largest where these are asked for."""
        if quantiles == (0, 1) or high <= low:
            return low, high
        counts, edges = np.zeros(_BINS, np.int64), np.linspace(low, high, _BINS + 1)
        for start in range(0, self._count, _CHUNK):
            maps = self._read(start, min(_CHUNK, self._count - start))
            counts += np.histogram(np.clip(maps, low, high), edges)[0]
        shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        return tuple(float(np.interp(quantile, shares, edges)) for quantile in quantiles)
