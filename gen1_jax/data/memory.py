"""A source whose examples are read and decoded once, and kept."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from gen1_jax.data.config import Inputs
from gen1_jax.data.dataset import Example
from gen1_jax.data.latents import Levels
from gen1_jax.data.sources import TRAINING_LIMITS, Source
from gen1_jax.data.world import has_maps, recorded_maps
from gen1_jax.media.windows import open_windows

_LATENTS = ("moments", "content", "levels")
_ABOUT = ("caption", "frames", "height", "width")


class InMemory:
    """A `Source` that keeps what it has given out, decoded: for sets that fit in memory and are read many times.

    Args:
        source: where examples come from.
        inputs: what is wanted of them; nothing else is kept. See `DataConfig`.
        map_kinds: see there.
        structure: kinds.
    """

    def __init__(
        self, source: Source, inputs: Inputs, map_kinds: tuple[str, ...] = (), structure: tuple[str, ...] = ("depth",)
    ) -> None:
        self._source, self._inputs, self._map_kinds, self._structure = source, inputs, map_kinds, structure
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        if index not in self._kept:
            self._kept[index] = self._decoded(self._source[index])
        return self._kept[index]

    def locate(self, index: int) -> str:
        """See `Source`."""
        return self._source.locate(index)

    def sizes(self) -> Int[np.ndarray, "n 2"] | None:
        """See `Source`."""
        return self._source.sizes()

    @property
    def notes(self) -> tuple[str, ...]:
        """See `MediaFiles`."""
        return getattr(self._source, "notes", ())

    def moving(self) -> Bool[np.ndarray, " n"]:
        """See `MediaFiles`."""
        return self._source.moving() if hasattr(self._source, "moving") else np.ones(len(self), bool)

    def __repr__(self) -> str:
        return repr(self._source)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}  # every process keeps its own

    def _decoded(self, record: Example) -> Example:
        kept = {key: record[key] for key in _ABOUT if key in record}
        if self._inputs == "latents":
            kept |= {key: record[key] for key in _LATENTS if key in record}
            levels, maps = record.get("structure", {}), record.get("maps", {})
            kept["structure"] = {kind: _KeptLevels(levels[kind]) for kind in self._structure if kind in levels}
            return kept | {"maps": {kind: maps[kind] for kind in self._structure if kind in maps}}
        if "image" in record:
            return kept | {"image": record["image"]}
        video = record["video"]
        if not isinstance(video, np.ndarray):
            folder = getattr(self._source, "index_folder", None)
            with open_windows(video, limits=TRAINING_LIMITS, folder=folder, frames=record.get("frames")) as file:
                video = file.whole()
        kept["video"] = video
        return kept | {kind: recorded_maps(record, kind) for kind in self._map_kinds if has_maps(record, kind)}


class _KeptLevels:
    """`Levels` that are read once each, when they are first asked for."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, level: int) -> np.ndarray:
        if level not in self._kept:
            self._kept[level] = self._levels[level]
        return self._kept[level]
