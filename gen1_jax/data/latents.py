"""Precomputed latents as a data set: a record a clip, and beside them the structure, a record for each clip and t_s.

NAME-SPLIT.array_record-00000-of-00008                moments, content, caption, maps, ... of clips 0, 1, ...
structure_SPLIT/KIND.array_record-00000-of-00008      bfloat16 (T h w c) of clip 0 at each t_s held, of clip 1, ...

An example has one t_s. Read for itself, that is a quarter of the bytes of a record with all of them, as sets were
written before; these are read as well. A kind from which t_s takes nothing has one level. Of the others a set holds all
eight, or two of each clip: 0, and one more by the hash of its id, so that over many clips none is rarer than another.
Structure that a ControlNet of the model follows is not encoded: records have its maps as they were estimated, one for
all t_s.
"""

import contextlib
import dataclasses
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import BFloat16, Int

from gen1_jax.data.codec import decode_maps, encode_maps
from gen1_jax.data.dataset import (
    CLIP_FEATURES,
    Example,
    Features,
    RecordError,
    RecordSource,
    WriteSummary,
    beside_shard,
    read_recipe,
    record_writer,
    shard_path,
    write_dataset,
)
from gen1_jax.data.storage import BYTES_READ, folder, local_folder
from gen1_jax.errors import UserError
from gen1_jax.files import replacing
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, StructureKind, structure_kind

DATASET_NAME = "latent_clips"
LEVELS = MAX_STRUCTURE_LEVEL + 1
TWO = 2
"""Levels that are held of a clip: `LEVELS`, `TWO`, or 1, where t_s takes nothing from a kind."""

_HELD = "levels"  # in the recipe of a set: how many levels it holds, of kinds of which these are not all

_BEFORE = {"polarity": "near is large", "normalisation": "clip minimum and maximum to [-1, 1]"}
"""What sets with all levels in a record say of their depth, besides its source: the contract of `Depth()`."""


def _latents(*shape: int | None, doc: str) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=ml_dtypes.bfloat16, encoding="bytes", doc=doc)


LATENT_FEATURES: Features = {
    **{name: feature for name, feature in CLIP_FEATURES.items() if name != "video"},
    "moments": _latents(None, None, None, None, doc="mean and log variance of the autoencoder, unscaled: T h w 2c"),
    "content": _latents(None, None, doc="CLIP image embedding of each frame, not normalised: T d"),
}
"""What a record of precomputed latents has; `height` and `width` are those of the pictures that were encoded. Of a
model without CLIP it has no content."""


def _maps_of(kind: str) -> str:
    """The feature of a record that has the maps of a kind."""
    return f"maps_{kind}"


@runtime_checkable
class Levels(Protocol):
    """Scaled latents of the structure of a clip at each t_s: an array, or what reads one level at a time."""

    def __getitem__(self, level: int) -> BFloat16[np.ndarray, "t h w c"]: ...


def write_latents(
    directory: str | os.PathLike[str],
    *,
    split: str,
    num_shards: int,
    examples: Callable[[int], Iterable[Example]],
    structure: Mapping[str, Mapping[str, Any]],
    info: Mapping[str, Any],
    maps: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    levels: Mapping[str, int] = MappingProxyType({}),
    has_content: bool = True,
    process_index: int = 0,
    process_count: int = 1,
) -> WriteSummary:
    """`write_dataset` for latents.

    Args:
        directory: and the arguments without a word here: see `write_dataset`.
        split: of the data set.
        num_shards: files of the split.
        examples: of a shard: what `LATENT_FEATURES` names, and "structure", for each kind bfloat16 (levels, T, h, w, c)
            at its `held_levels`, and "maps", for each kind (T, H, W, k), if there are any.
        structure: the kinds that are encoded, and the contract of each: how its maps came about.
        info: what else made the split.
        maps: the kinds whose maps are kept, and the contract of each.
        levels: how many levels of a kind are held, where these are not all eight.
        has_content: whether examples have a content.
        process_index: of this process.
        process_count: how many there are.
    """
    recipe = {"name": DATASET_NAME, "split": split, "num_shards": num_shards}
    features = {name: feature for name, feature in LATENT_FEATURES.items() if has_content or name != "content"}
    features |= {_maps_of(kind): tfds.features.Tensor(shape=(), dtype=np.bytes_) for kind in maps}
    made = {"structure": structure, **({"maps": maps} if maps else {})}
    fewer = {kind: count for kind, count in levels.items() if kind in structure and count != LEVELS}
    counts = {kind: fewer.get(kind, LEVELS) for kind in structure}

    def records(shard: int) -> Iterator[Example]:
        path = shard_path(local_folder(directory), recipe, shard)
        with _structure_writers(path, counts) as write:
            for example in examples(shard):
                write(example["structure"])
                kept = {_maps_of(kind): encode_maps(example["maps"][kind]) for kind in maps}
                yield {name: value for name, value in example.items() if name not in ("structure", "maps")} | kept

    return write_dataset(
        directory,
        **recipe,
        features=features,
        examples=records,
        process_index=process_index,
        process_count=process_count,
        info={
            **info,
            **({_HELD: fewer} if fewer else {}),
            **{form: {kind: dict(it) for kind, it in kinds.items()} for form, kinds in made.items()},
        },
    )


@contextlib.contextmanager
def _structure_writers(shard, counts: Mapping[str, int]) -> Iterator[Callable[[Mapping[str, np.ndarray]], None]]:
    """Files of the structure of a shard, in their place at the end: before the shard, which tells that all is there."""
    with contextlib.ExitStack() as files:
        writers = {}
        for kind in counts:
            path = _structure_path(shard, kind)
            path.parent.mkdir(exist_ok=True)
            writers[kind] = files.enter_context(record_writer(files.enter_context(replacing(path, alone=True))))

        def write(structure: Mapping[str, np.ndarray]) -> None:
            for kind, writer in writers.items():
                assert len(structure[kind]) == counts[kind], (
                    f"{kind} has {len(structure[kind])} levels, not {counts[kind]}"
                )
                for level in structure[kind]:
                    writer.write(np.asarray(level, ml_dtypes.bfloat16).tobytes())

        yield write


def held_levels(count: int, clip: str) -> tuple[int, ...]:
    """The levels of a clip that a set holds.

    Args:
        count: how many, see `TWO`.
        clip: id of the clip, of which the second of two depends.
    """
    if count == TWO:
        return 0, 1 + zlib.crc32(clip.encode()) % MAX_STRUCTURE_LEVEL
    return tuple(range(count))


class LatentSource:
    """A `Source` of precomputed latents: a record of `LATENT_FEATURES`, "structure", for each kind that is encoded its
    `Levels`, and "maps", for each other kind its maps, float32 (T, H, W, k); and where two levels are held of each
    clip, "levels", which they are.

    Args:
        records: a split that `write_latents` wrote, or one of before, with the feature "structure".

    Attributes:
        kinds: of structure that there are.
        map_kinds: those of them whose maps are kept.
    """

    def __init__(self, records: RecordSource) -> None:
        self._records = records
        self._has_all_levels = "structure" in records.features
        info = _info(records)
        encoded, self.map_kinds = tuple(made_structure(info)), tuple(info.get("maps", {}))
        self.kinds = (*encoded, *self.map_kinds)
        self._counts = {kind: info.get(_HELD, {}).get(kind, LEVELS) for kind in encoded}
        self._levels = dict.fromkeys(encoded)
        if not self._has_all_levels:
            self._levels = {kind: _open_levels(records, kind, self._counts[kind]) for kind in encoded}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self._records[index]
        if self._has_all_levels:
            return {**record, "structure": dict.fromkeys(self.kinds, record["structure"])}
        shape = record["moments"].shape[:-1]
        held = {kind: held_levels(count, record["id"]) for kind, count in self._counts.items()}
        levels = {kind: _StoredLevels(self, kind, index, shape, held[kind]) for kind in self._levels}
        if two := [held[kind] for kind, count in self._counts.items() if count == TWO]:
            record["levels"] = two[0]
        size = (len(record["moments"]), record["height"], record["width"])
        maps = {kind: decode_maps(record.pop(_maps_of(kind)), size) for kind in self.map_kinds}
        return {**record, "structure": levels, "maps": maps}

    def require(self, kinds: Iterable[str]) -> None:
        """Raises a ValueError that names a kind of structure that is not there."""
        for kind in kinds:
            if kind not in self.kinds:
                raise UserError(
                    f"{self._records.directory}: has no structure of kind {kind!r}, only {', '.join(self.kinds)};"
                    f" run gen1 precompute with --structure {','.join((*self.kinds, kind))} into another folder"
                )

    def locate(self, index: int) -> str:
        """See `Source`."""
        return self._records.locate(index)

    def sizes(self) -> Int[np.ndarray, "n 2"] | None:
        """See `Source`."""
        return self._records.sizes()

    def __repr__(self) -> str:
        return repr(self._records)

    def __reduce__(self) -> tuple:
        return LatentSource, (self._records,)

    def _level(self, kind: str, index: int, place: int) -> bytes:
        return BYTES_READ.counted(self._levels[kind][index * self._counts[kind] + place])


@dataclasses.dataclass(frozen=True)
class _StoredLevels:
    """`Levels` of a clip, each read when it is asked for."""

    source: LatentSource
    kind: str
    index: int
    shape: tuple[int, int, int]
    held: tuple[int, ...]

    def __getitem__(self, level: int) -> BFloat16[np.ndarray, "t h w c"]:
        try:
            place = 0 if len(self.held) == 1 else self.held.index(level)
            data = self.source._level(self.kind, self.index, place)
        except Exception as error:  # array_record raises RuntimeError for damage, ValueError for what is not there
            reason, place = " ".join(str(error).split()), self.source.locate(self.index)
            raise RecordError(f"{place}: its {self.kind} at t_s {level} cannot be read ({reason})") from error
        return np.frombuffer(data, ml_dtypes.bfloat16).reshape(*self.shape, -1)


def made_structure(info: Mapping[str, Any]) -> dict[str, Any]:
    """The kinds of structure that a set has encoded, and the contract of each, by its recipe, whenever it was made."""
    if "structure" in info:
        return dict(info["structure"])
    said = dict(info.get("depth", {}))
    source = said.pop("source", "model")
    return {"depth": structure_contract(structure_kind("depth"), source) if said == _BEFORE else info.get("depth", {})}


def structure_contract(kind: StructureKind, source: str = "model") -> dict[str, Any]:
    """How maps of a kind become structure, and whether they are the model's or the record's own."""
    return {"source": source, **kind.contract}


def _info(records: RecordSource) -> dict[str, Any]:
    try:
        return read_recipe(records.directory, records.split.split("[")[0])
    except ValueError:  # a set of before that lost its recipe
        return {}


def _structure_path(shard, kind: str):
    return beside_shard(shard, "structure", kind + ".array_record-{}")


def _open_levels(records: RecordSource, kind: str, count: int) -> ArrayRecordDataSource | None:
    parts = [
        dataclasses.replace(
            part,
            filename=os.fspath(_structure_path(folder(part.filename), kind)),
            skip=part.skip * count,
            take=part.take * count,
            examples_in_shard=part.examples_in_shard * count,
        )
        for part in records.parts
    ]
    return ArrayRecordDataSource(parts) if parts else None
