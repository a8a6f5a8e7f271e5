"""TFDS data sets in array_record format, written shard by shard and opened for random access, without TensorFlow.

examples(0) ──► NAME-SPLIT.array_record-00000-of-00008 ─┐
examples(1) ──► NAME-SPLIT.array_record-00001-of-00008 ─┼─► features.json, dataset_info.json ──► open_dataset
   ...          (each written beside its place, renamed) │    (when a split is whole)
recipe_SPLIT.json: what it is made from ────────────────┤
sizes_SPLIT/: height and width of every record ─────────┘
structure_SPLIT/: of precomputed latents, see latents.py

Written to a folder; read from a folder or from gs://.
"""

import bisect
import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from jaxtyping import Int
from tensorflow_datasets.core import dataset_info as tfds_info
from tensorflow_datasets.core import example_serializer, file_adapters, naming

from gen1_jax.data.storage import BYTES_READ, Folder, folder, local_folder
from gen1_jax.errors import UserError, counted
from gen1_jax.files import replacing, write_text

Example = dict[str, Any]
Features = Mapping[str, Any]
"""TFDS features by name, or what TFDS turns into them, such as `np.int32`."""

CLIP_FEATURES: Features = {
    "id": tfds.features.Text(doc="unique within the data set"),
    "video": tfds.features.Tensor(shape=(), dtype=np.bytes_, doc="the clip as an mp4 file, H.264"),
    "caption": tfds.features.Text(doc="may be empty"),
    "frame_rate": tfds.features.Scalar(np.float32, doc="frames a second"),
    "source": tfds.features.Text(doc="the file it was cut from, or the generator"),
    "frames": tfds.features.Scalar(np.int32),
    "height": tfds.features.Scalar(np.int32, doc="pixels"),
    "width": tfds.features.Scalar(np.int32, doc="pixels"),
}
"""What every record of a set of clips has; one record is one clip, decodable without touching others."""

# One record a chunk: a record is read without its neighbours, and checked by its own hash.
_WRITER_OPTIONS = "group_size:1"
_VERSION = "1.0.0"


class RecordError(UserError):
    """A record cannot be read. The message is one line: the file, the record's index, what is wrong."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriteSummary:
    """What `write_dataset` did.

    Attributes:
        directory: the data set.
        split: the split written.
        written: shards written by this call.
        kept: shards of this process that were there already.
        examples: records in the shards written by this call.
        complete: whether every shard of the split, of all processes, is there, so that it can be opened.
    """

    directory: str
    split: str
    written: int
    kept: int
    examples: int
    complete: bool


def write_dataset(
    directory: str | os.PathLike[str],
    *,
    name: str,
    split: str,
    features: Features,
    num_shards: int,
    examples: Callable[[int], Iterable[Example]],
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int, int], None] | None = None,
    info: Mapping[str, Any],
) -> WriteSummary:
    """Writes one split of a data set; calling it again after any interruption continues where it stopped.

    A shard is written beside its place and renamed, so that only whole shards are ever there. Processes share no
    state but the directory. The same examples give the same bytes. Whoever writes the last shard of the split
    writes the metadata, after which `tfds.builder_from_directory` reads the data set.

    Args:
        directory: of the data set, made if missing; further splits may live in it.
        name: of the data set: small letters, digits and underscores.
        split: name of the split.
        features: the schema of a record, say `CLIP_FEATURES`; the same for all splits.
        num_shards: files of the split, over all processes.
        examples: the records of a shard, in order; may yield none.
        process_index: this process writes the shards s with s % process_count == process_index.
        process_count: how many processes write the split.
        progress: called with (shards of this process that are there, all shards of this process).
        info: the parameters that made the split, as JSON values; kept in the recipe (see `read_recipe`).

    Raises:
        ValueError: the directory holds a split made by another recipe, or an argument is out of range.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or not re.fullmatch(r"\w+", split):
        raise UserError(f"data set {name!r}, split {split!r}: use small letters, digits and underscores")
    if not (num_shards >= 1 and 0 <= process_index < process_count):
        raise UserError(f"{counted(num_shards, 'shard')}, process {process_index} of {process_count}: out of range")
    directory = local_folder(directory)
    directory.mkdir(parents=True, exist_ok=True)
    schema = tfds.features.FeaturesDict(dict(features))
    recipe = {"name": name, "split": split, "num_shards": num_shards, "features": schema.to_json(), "info": dict(info)}
    _claim(directory, recipe)

    mine = range(process_index, num_shards, process_count)
    missing = missing_shards(directory, name, split, num_shards, process_index, process_count)
    count = 0
    for written, shard in enumerate(missing):
        if progress:
            progress(len(mine) - len(missing) + written, len(mine))
        count += _write_shard(shard_path(directory, recipe, shard), schema, examples(shard))
    if progress:
        progress(len(mine), len(mine))
    complete = _is_complete(directory, recipe)
    if complete:
        _write_metadata(directory, schema)
    return WriteSummary(
        directory=str(directory),
        split=split,
        written=len(missing),
        kept=len(mine) - len(missing),
        examples=count,
        complete=complete,
    )


def missing_shards(
    directory: str | os.PathLike[str],
    name: str,
    split: str,
    num_shards: int,
    process_index: int = 0,
    process_count: int = 1,
) -> list[int]:
    """The shards that `write_dataset` would write, in order; `examples` is called with these."""
    recipe = {"name": name, "split": split, "num_shards": num_shards}
    mine = range(process_index, num_shards, process_count)
    return [shard for shard in mine if not shard_path(local_folder(directory), recipe, shard).exists()]


def read_recipe(directory: str | os.PathLike[str], split: str) -> dict[str, Any]:
    """The parameters (`info` of `write_dataset`) that made a split.

    Raises:
        ValueError: there is no such split.
    """
    return _read_json(_recipe_path(folder(directory), split), f"{directory}: has no split {split!r}")["info"]


class RecordSource:
    """Random access to the records of one split; made by `open_dataset`, safe to pickle and to share by threads.

    Attributes:
        directory, split: as they were given.
        features: the schema of a record.
        parts: the shards, or parts of shards, in order, as TFDS's `FileInstruction`.
    """

    def __init__(self, directory: str, split: str) -> None:
        builder = _builder(directory, split)
        self.directory, self.split = directory, split
        self.features: tfds.features.FeaturesDict = builder.info.features
        try:
            self.parts = [part for part in builder.info.splits[split].file_instructions if part.take]
        except (KeyError, ValueError) as error:
            raise UserError(f"{directory}: has no split {split!r} ({error})") from None
        self._ends = list(itertools.accumulate(part.take for part in self.parts))
        self._records = ArrayRecordDataSource(self.parts) if self.parts else None
        self._texts = {key for key, feature in self.features.items() if isinstance(feature, tfds.features.Text)}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: SupportsIndex) -> Example:
        """Record `index`: text as str, bytes as they are, numbers and arrays as numpy holds them.

        Raises:
            IndexError: no such index.
            RecordError: the record is damaged; names its file and index.
        """
        index = index.__index__()
        if not 0 <= index < len(self):
            raise IndexError(f"{self}: no record {index} among {len(self)}")
        try:
            example = self.features.deserialize_example_np(BYTES_READ.counted(self._records[index]))
            return {key: value.decode() if key in self._texts else value for key, value in example.items()}
        except Exception as error:  # array_record raises RuntimeError, protobuf DecodeError, TFDS anything
            reason = " ".join(str(error).split())
            raise RecordError(f"{self.locate(index)} cannot be read ({reason})") from error

    def sizes(self) -> Int[np.ndarray, "n 2"] | None:
        """Height and width of every record, in pixels; None if the records do not say."""
        files = [_sizes_path(folder(part.filename)) for part in self.parts]
        if not all(file.exists() for file in files):
            return None
        sizes = [np.load(io.BytesIO(file.read_bytes())) for file in files]
        parts = [all_of[part.skip :][: part.take] for all_of, part in zip(sizes, self.parts, strict=True)]
        return np.concatenate([np.zeros((0, 2), np.int32), *parts])

    def locate(self, index: int) -> str:
        """Where a record is, for messages: "FILE: record 3 (index 103 of split 'train')"."""
        part = bisect.bisect_right(self._ends, index)
        before = self._ends[part - 1] if part else 0
        within = index - before + self.parts[part].skip
        return f"{self.parts[part].filename}: record {within} (index {index} of split {self.split!r})"

    def __repr__(self) -> str:
        return f"RecordSource({self.directory!r}, {self.split!r})"  # stable: Grain compares it when it resumes

    def __reduce__(self) -> tuple:
        return RecordSource, (self.directory, self.split)


def open_dataset(directory: str | os.PathLike[str], split: str) -> RecordSource:
    """Opens a split, or a part of it in TFDS's notation ("train[:10%]"), of any array_record TFDS data set.

    Raises:
        ValueError: no data set there, no such split, or a split that is not whole yet.
    """
    return RecordSource(os.fspath(directory), split)


def _builder(directory: str, split: str) -> tfds.core.DatasetBuilder:
    recipe = _recipe_path(folder(directory), split.split("[")[0])
    if recipe.exists():
        made = json.loads(recipe.read_text())
        there = {file.name for file in folder(directory).iterdir()}  # one request to a bucket, not one a shard
        shards = sum(shard_path(recipe.parent, made, shard).name in there for shard in range(made["num_shards"]))
        if shards < made["num_shards"]:
            raise UserError(
                f"{directory}: split {split!r} has {shards} of {counted(made['num_shards'], 'shard')}; "
                f"run its command to the end"
            )
    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{directory}: is not a TFDS data set ({reason})") from None


def _write_shard(path: Path, schema: tfds.features.FeaturesDict, examples: Iterable[Example]) -> int:
    serializer = example_serializer.ExampleSerializer(schema.get_serialized_info())
    sizes = []
    with replacing(path, alone=True) as part:
        with record_writer(part) as writer:
            for example in examples:
                encoded = serializer.get_tf_example(schema.encode_example(example))
                writer.write(encoded.SerializeToString(deterministic=True))  # maps have no order of their own
                sizes.append([example.get("height", 0), example.get("width", 0)])
        if schema.keys() >= {"height", "width"}:
            _sizes_path(path).parent.mkdir(exist_ok=True)
            np.save(_sizes_path(path), np.array(sizes, np.int32).reshape(-1, 2))
    return len(sizes)


def record_writer(path: Path) -> contextlib.closing:
    """A writer of array_record, as a context manager; `write` takes bytes."""
    return contextlib.closing(ArrayRecordWriter(str(path), _WRITER_OPTIONS))


def _claim(directory: Path, recipe: dict[str, Any]) -> None:
    """Puts the recipe there, or checks that the one there is the same."""
    recipe = json.loads(json.dumps(recipe))
    path = _recipe_path(directory, recipe["split"])
    if not path.exists():
        write_text(path, json.dumps(recipe, indent=1, sort_keys=True) + "\n")
    for other in _recipes(directory):
        same_split = other["split"] == recipe["split"]
        for key in recipe if same_split else ("name", "features"):
            if other[key] != recipe[key]:
                raise UserError(
                    f"{directory}: split {other['split']!r} was made with another {_difference(key, other, recipe)};"
                    " choose another folder, or remove this one"
                )


def _difference(key: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    if key != "info":
        return key if key == "features" else f"{key}: {old[key]}, not {new[key]}"
    old, new = old[key], new[key]
    differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return ", ".join(f"{name}: {old.get(name)}, not {new.get(name)}" for name in differing)


def _write_metadata(directory: Path, schema: tfds.features.FeaturesDict) -> None:
    """features.json and dataset_info.json of all whole splits.

    Processes may end different splits at one moment; each writes what it sees until what is there is what it sees,
    and so the last one to write has seen all of them.
    """
    while True:
        recipes = [recipe for recipe in _recipes(directory) if _is_complete(directory, recipe)]
        temporary = directory / f".metadata.{os.getpid()}.part"
        temporary.mkdir(exist_ok=True)
        try:
            _dataset_info(directory, schema, recipes).write_to_directory(temporary)
            for file in sorted(temporary.iterdir(), key=lambda file: file.name == "dataset_info.json"):
                file.replace(directory / file.name)
        finally:
            for file in temporary.iterdir():
                file.unlink()
            temporary.rmdir()
        if recipes == [recipe for recipe in _recipes(directory) if _is_complete(directory, recipe)]:
            return


def _dataset_info(
    directory: Path, schema: tfds.features.FeaturesDict, recipes: list[dict[str, Any]]
) -> tfds_info.DatasetInfo:
    name = recipes[0]["name"]
    identity = tfds_info.DatasetIdentity(
        name=name, version=tfds.core.Version(_VERSION), data_dir=str(directory), module_name=""
    )
    info = tfds_info.DatasetInfo(builder=identity, features=schema, description=recipes[0]["info"].get("description"))
    info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
    template = naming.ShardedFileTemplate(
        data_dir=directory, dataset_name=name, filetype_suffix="array_record", template=naming.DEFAULT_FILENAME_TEMPLATE
    )
    splits = []
    for recipe in recipes:
        paths = [shard_path(directory, recipe, shard) for shard in range(recipe["num_shards"])]
        splits.append(
            tfds.core.SplitInfo(
                name=recipe["split"],
                shard_lengths=[count_records(path) for path in paths],
                num_bytes=sum(path.stat().st_size for path in paths),
                filename_template=template.replace(split=recipe["split"]),
            )
        )
    info.set_splits(tfds.core.splits.SplitDict(splits))
    return info


def count_records(path: Path) -> int:
    """How many records an array_record file has; ValueError, naming it, if it is damaged."""
    try:
        with contextlib.closing(ArrayRecordReader(str(path))) as reader:
            return reader.num_records()
    except RuntimeError as error:
        raise UserError(f"{path}: is damaged ({' '.join(str(error).split())}); remove it and make it again") from None


def _is_complete(directory: Path, recipe: dict[str, Any]) -> bool:
    return all(shard_path(directory, recipe, shard).exists() for shard in range(recipe["num_shards"]))


def shard_path(directory: Folder, recipe: Mapping[str, Any], shard: int) -> Folder:
    """The file of a shard, by the recipe's name, split and num_shards."""
    name = f"{recipe['name']}-{recipe['split']}.array_record-{shard:05d}-of-{recipe['num_shards']:05d}"
    return directory / name


def _sizes_path(shard: Folder) -> Folder:
    return beside_shard(shard, "sizes", "{}.npy")


def beside_shard(shard: Folder, what: str, name: str) -> Folder:
    """What else is known of a shard: NAME-SPLIT.array_record-00000-of-00008 ──► WHAT_SPLIT/NAME.

    Args:
        shard: the file with its records.
        what: names the folder.
        name: of the file in it, braces where "00000-of-00008" stands.
    """
    split, numbers = re.fullmatch(r".*-(\w+)\.array_record-(.*)", shard.name).groups()
    return shard.parent / f"{what}_{split}" / name.format(numbers)


def _recipe_path(directory: Folder, split: str) -> Folder:
    return directory / f"recipe_{split}.json"


def _recipes(directory: Path) -> list[dict[str, Any]]:
    return [_read_json(path, str(path)) for path in sorted(directory.glob("recipe_*.json"))]


def _read_json(path: Folder, blame: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(blame) from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); remove it") from None
