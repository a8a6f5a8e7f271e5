"""The joint stream: at each step a batch wholly of images or wholly of videos, of one bucket.

step ──► Schedule ──► (kind, bucket), how often it was drawn before ──► examples of that pipeline ──► Batch
         pure function of the seed: the same on every host           this process's share of them

A pipeline is an endless shuffled list of examples with random access, and the stream's state is the step alone. So
hosts never disagree, and resuming is exact: with other workers, and on another number of processes too.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from absl import flags
from jaxtyping import Int

from gen1_jax.data.batch import Batch, collate
from gen1_jax.data.config import KINDS, Bucket, DataConfig, Kind, SourceConfig, StreamConfig
from gen1_jax.data.dataset import RecordError
from gen1_jax.data.latents import LatentSource
from gen1_jax.data.loading import STEPS, LoadExample
from gen1_jax.data.memory import InMemory
from gen1_jax.data.sources import Source, open_source
from gen1_jax.data.storage import BYTES_READ
from gen1_jax.errors import UserError
from gen1_jax.pretrained.subject import embedding_in

_LAST_STEP = 2**60
_GRAIN_SHUFFLES = 2**16
_log = logging.getLogger(__name__)


class Draw(NamedTuple):
    """What a step is made of."""

    kind: Kind
    bucket: Bucket
    count: int  # earlier steps with this kind and bucket


class Schedule:
    """Which kind and bucket each step has: drawn independently, by a counter of the seed.

    Args:
        probabilities: of every kind and bucket; they sum to 1.
        seed: of the draws.
    """

    def __init__(self, probabilities: Mapping[tuple[Kind, Bucket], float], seed: int) -> None:
        self._keys = [key for key, probability in probabilities.items() if probability > 0]
        self._limits = np.cumsum([probabilities[key] for key in self._keys])
        self._limits[-1] = np.inf  # whatever rounding left
        self._seed = seed
        self._table = self._draw(1 << 12)

    def __getitem__(self, step: int) -> Draw:
        choices, counts = self._table
        if step >= len(choices):
            choices, counts = self._table = self._draw(1 << step.bit_length())
        return Draw(*self._keys[choices[step]], int(counts[step]))

    def _draw(self, steps: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """The first `steps` choices, and how often each was made before; a longer table begins with a shorter one."""
        uniform = np.random.Generator(np.random.Philox(key=[self._seed, 0x5C])).random(steps)
        choices = np.searchsorted(self._limits, uniform, side="right").astype(np.int32)
        counts = np.zeros(steps, np.int64)
        for choice in range(len(self._keys)):
            chosen = choices == choice
            counts[chosen] = np.arange(chosen.sum())
        return choices, counts


class _Share(NamedTuple):
    """The examples of one source that belong to one bucket."""

    number: int
    source: Source
    settings: SourceConfig
    indices: Int[np.ndarray, " n"]
    weight: float


class Mixture:
    """The stream of batches of a `DataConfig`; iterate over it, or call `iterate(step)`.

    Args:
        config: what to mix.
        process_index: this process; by default that of JAX.
        process_count: how many share each batch.

    Attributes:
        notes: what there is to tell about the sources: files left out, captions.

    Raises:
        ValueError: a source cannot be opened, a batch size that the processes cannot share evenly, or no examples.
    """

    def __init__(
        self, config: DataConfig, *, process_index: int | None = None, process_count: int | None = None
    ) -> None:
        self.config = config
        self._process_index = jax.process_index() if process_index is None else process_index
        self._process_count = jax.process_count() if process_count is None else process_count
        shares: dict[tuple[Kind, Bucket], list[_Share]] = {}
        opened = functools.cache(functools.partial(_open, config))  # once, also for both kinds
        for kind, stream in config.streams.items():
            if stream.batch_size % self._process_count:
                raise UserError(f"{kind}: {self._process_count} processes cannot share batches of {stream.batch_size}")
            for bucket, members in _shares(stream, opened).items():
                shares[kind, bucket] = members
            if config.inputs == "latents" and config.structure:
                _compare_windows(stream, opened)
            if not any(shares[kind, bucket] for bucket in stream.buckets):
                raise UserError(f"{kind}: the sources have no examples")
        sources = [opened(s.path, s.split) for stream in config.streams.values() for s in stream.sources]
        self.notes = tuple(dict.fromkeys(note for source in sources for note in getattr(source, "notes", ())))
        self._fingerprint = _fingerprint(config, shares)
        self._pipelines = {key: _pipeline(config, *key, members) for key, members in shares.items() if members}
        self.probabilities = _probabilities(config, shares)
        self._schedule = Schedule(self.probabilities, config.seed)

    def draw(self, step: int) -> Draw:
        """Kind and bucket of a step: the same on every process."""
        return self._schedule[step]

    def load(self, step: int) -> dict[str, Any]:
        """This process's share of a step's batch, as a dict of arrays; what workers do."""
        kind, bucket, count = self._schedule[step]
        size = getattr(self.config, kind).batch_size
        share = size // self._process_count
        first = count * size + self._process_index * share
        skipped, seconds, began, read = [], np.zeros(len(STEPS)), time.perf_counter(), BYTES_READ.count

        def examples() -> Iterator[dict[str, np.ndarray]]:
            for position in range(first, first + share):
                example = self._pipelines[kind, bucket][position]
                skipped.extend(example.pop("skipped"))
                seconds[:-1] += example.pop("seconds")
                yield example

        arrays = collate(examples(), share)
        seconds[-1] = time.perf_counter() - began - seconds.sum()
        return {"arrays": arrays, "seconds": seconds, "skipped": skipped, "read": BYTES_READ.count - read}

    def shapes(self, first: int, end: int) -> tuple[tuple[Kind, Bucket], ...]:
        """Of the batches from step `first` to before `end`, in the order in which they come."""
        return tuple(dict.fromkeys(self.draw(step)[:2] for step in range(first, end)))

    def alike(self, kind: Kind, bucket: Bucket) -> Batch:
        """A batch as they are of this shape: the first example over and over, which takes the memory of one.

        Raises:
            RecordError: it is damaged.
        """
        example = self._pipelines[kind, bucket][0]
        size = getattr(self.config, kind).batch_size // self._process_count
        arrays = {name: value for name, value in example.items() if name not in ("skipped", "seconds")}
        repeated = jax.tree.map(lambda x: np.broadcast_to(x, (size, *np.shape(x))), arrays)
        return Batch(**repeated, kind=kind, bucket=bucket)

    def iterate(self, step: int = 0) -> "BatchIterator":
        """The batches from `step` on."""
        return BatchIterator(self, step)

    __iter__ = iterate


@dataclasses.dataclass
class LoadStats:
    """What loading has cost so far.

    Attributes:
        batches: given out.
        examples: in them.
        nbytes: of their arrays.
        read: bytes of records that were read for them, see `storage.BYTES_READ`.
        seconds: of the workers, for each of `STEPS`, and "wait", of whoever asked for batches.
        skipped: damaged records replaced.
        drawn: batches of each (kind, bucket).
    """

    batches: int = 0
    examples: int = 0
    nbytes: int = 0
    read: int = 0
    seconds: Counter = dataclasses.field(default_factory=Counter)
    skipped: int = 0
    drawn: Counter = dataclasses.field(default_factory=Counter)


class BatchIterator(grain.DatasetIterator):
    """Iterates over a `Mixture`. Its state is JSON, and orbax saves it through `grain.checkpoint`.

    A damaged record that was skipped is logged as a warning and counted in `stats.skipped`.
    """

    def __init__(self, mixture: Mixture, step: int = 0) -> None:
        super().__init__()
        self.stats = LoadStats()
        self._mixture, self._step = mixture, step
        self._loader: grain.DatasetIterator | None = None

    def __next__(self) -> Batch:
        """The next batch, of numpy arrays.

        Raises:
            RecordError: a damaged record, unless they are skipped.
        """
        self._assert_not_closed()
        start = time.perf_counter()
        self.start_prefetch()
        loaded = next(self._loader)
        kind, bucket, _ = self._mixture.draw(self._step)
        batch = Batch(**jax.tree.map(_own, loaded["arrays"]), kind=kind, bucket=bucket)
        self._step += 1
        self._count(batch, loaded, time.perf_counter() - start)
        return batch

    def _count(self, batch: Batch, loaded: dict[str, Any], waited: float) -> None:
        stats = self.stats
        stats.batches += 1
        stats.examples += len(batch)
        stats.nbytes += batch.nbytes
        stats.read += loaded["read"]
        stats.seconds.update(dict(zip(STEPS, loaded["seconds"].tolist(), strict=True)) | {"wait": waited})
        stats.drawn[batch.kind, batch.bucket] += 1
        stats.skipped += len(loaded["skipped"])
        for message in loaded["skipped"]:
            _log.warning("skipped: %s", message)

    def get_state(self) -> dict[str, Any]:
        """The next step, and what the stream is made of."""
        return {"step": self._step, "skipped": self.stats.skipped, "data": self._mixture._fingerprint}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `state` was taken.

        Raises:
            ValueError: it was taken from a stream of other data or another configuration.
        """
        if state["data"] != self._mixture._fingerprint:
            raise UserError("the data have changed since the state was saved: other sources, buckets, sizes or seed")
        self._stop()
        self._step, self.stats.skipped = state["step"], state["skipped"]

    def start_prefetch(self) -> None:
        """Starts loading in the background; the first batch does so too."""
        if self._loader is None:
            self._loader = iter(_loader(self._mixture, self._step))

    def close(self) -> None:
        """Ends the workers."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._loader is not None:
            self._loader.close()
            self._loader = None


def _own(array: np.ndarray) -> np.ndarray:
    """A copy of what lies in memory shared with a worker, which must not outlive the iterator."""
    return array if type(array) is np.ndarray else np.array(array)


def _loader(mixture: Mixture, step: int) -> grain.IterDataset:
    config = mixture.config
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=max(config.prefetch, config.threads))
    loaded = grain.MapDataset.range(step, _LAST_STEP).map(mixture.load).to_iter_dataset(options)
    if not config.workers:
        return loaded
    if not flags.FLAGS.is_parsed():  # Grain's workers read them; they are parsed only inside absl.app
        flags.FLAGS.mark_as_parsed()
    return loaded.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=config.workers, per_worker_buffer_size=config.prefetch)
    )


def _pipeline(config: DataConfig, kind: Kind, bucket: Bucket, members: Sequence[_Share]) -> grain.MapDataset:
    """Endless shuffled examples of one kind and bucket: position ──► example, a pure function."""
    stream: StreamConfig = getattr(config, kind)
    parts = []
    for share in members:
        load = LoadExample(
            source=share.source,
            number=share.number,
            indices=share.indices,
            bucket=bucket,
            frames=stream.frames,
            stride=share.settings.stride,
            subject=embedding_in(share.settings.subject) if share.settings.subject else None,
            inputs=config.inputs,
            map_kinds=config.map_kinds,
            structure=config.structure,
            structure_levels=config.structure_levels,
            flip_probability=config.flip_probability,
            random_crop=config.random_crop,
            caption_bytes=config.caption_bytes,
            skip_errors=config.on_error == "skip",
        )
        # Grain shuffles epoch e by seed + e: the seeds of pipelines must lie far apart.
        name = f"{config.seed} {kind} {bucket} {share.number}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        parts.append(_shuffled(len(share.indices), seed).random_map(load))
    return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, [share.weight for share in members])


def _shuffled(count: int, seed: int) -> grain.MapDataset:
    """0 ... count - 1 in another order each epoch, without end."""
    if count >= _GRAIN_SHUFFLES:
        return grain.MapDataset.range(count).seed(seed).shuffle().repeat()
    return grain.MapDataset.range(_LAST_STEP).seed(seed).map(_SmallShuffle(count=count, seed=seed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SmallShuffle(grain.transforms.Map):
    """Position ──► index. Grain's own shuffle takes milliseconds an example where there are few: it walks through a
    cycle of 65536 until it meets one of them."""

    count: int
    seed: int

    def map(self, element: int) -> int:
        epoch, position = divmod(element, self.count)
        return int(_permutation(self.count, self.seed, epoch)[position])


@functools.lru_cache(maxsize=64)
def _permutation(count: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def _open(config: DataConfig, path: str, split: str) -> Source:
    source = open_source(path, split)
    if config.inputs == "latents" and isinstance(source, LatentSource):
        source.require(config.structure)
    return InMemory(source, config.inputs, config.map_kinds, config.structure) if config.in_memory else source


def _compare_windows(stream: StreamConfig, opened: Callable[[str, str], Source]) -> None:
    """Says where the structure of a window was normalised over more frames than the window has.

    An image of a clip always was: precomputed latents are of clips.
    """
    for settings in stream.sources:
        source = opened(settings.path, settings.split)
        with contextlib.suppress(RecordError):  # a damaged record is told of, or skipped, when it is drawn
            stored = len(source[0].get("moments", ())) if len(source) else 0
            if stored > stream.frames > 1:
                _log.info(
                    "%s: structure was normalised over clips of %d frames, and examples have %d; precompute clips of "
                    "as many frames as examples have, so that training sees what an edit sees",
                    settings.path,
                    stored,
                    stream.frames,
                )


def _shares(stream: StreamConfig, opened: Callable[[str, str], Source]) -> dict[Bucket, list[_Share]]:
    """Deals the examples of all sources over the buckets."""
    shares: dict[Bucket, list[_Share]] = {bucket: [] for bucket in stream.buckets}
    for number, settings in enumerate(stream.sources):
        source = opened(settings.path, settings.split)
        buckets = _nearest(source, stream.buckets)
        if stream.frames > 1 and hasattr(source, "moving"):
            buckets = np.where(source.moving(), buckets, -1)  # pictures are no clips
        for position, bucket in enumerate(stream.buckets):
            indices = np.flatnonzero(buckets == position)
            weight = len(indices) if settings.weight is None else settings.weight * len(indices) / len(source)
            if len(indices):
                shares[bucket].append(_Share(number, source, settings, indices, weight))
    return shares


def _nearest(source: Source, buckets: Sequence[Bucket]) -> Int[np.ndarray, " n"]:
    """The bucket nearest in shape to each example; without known sizes they are dealt out in turn."""
    sizes = source.sizes() if len(buckets) > 1 else None
    if sizes is None:
        return np.arange(len(source)) % len(buckets)
    shapes = np.log(np.maximum(sizes[:, 0], 1) / np.maximum(sizes[:, 1], 1))
    of_buckets, first = np.unique([math.log(height / width) for height, width in buckets], return_index=True)
    return first[np.searchsorted((of_buckets[1:] + of_buckets[:-1]) / 2, shapes)]


def _probabilities(
    config: DataConfig, shares: Mapping[tuple[Kind, Bucket], Sequence[_Share]]
) -> dict[tuple[Kind, Bucket], float]:
    """Of each kind as configured, of each of its buckets by the weight of what is in it."""
    of_kind = dict(zip(KINDS, (config.image_probability, 1 - config.image_probability), strict=True))
    weights = {key: sum(share.weight for share in members) for key, members in shares.items()}
    totals = {kind: sum(w for (k, _), w in weights.items() if k == kind) for kind in of_kind}
    return {key: of_kind[key[0]] * weight / totals[key[0]] for key, weight in weights.items() if weight}


def _fingerprint(config: DataConfig, shares: Mapping[tuple[Kind, Bucket], Sequence[_Share]]) -> str:
    """Of all that a batch depends on, and nothing else: not of where the data lie, nor of workers."""
    ignored = ("in_memory", "workers", "threads", "prefetch", "on_error")
    values = {name: value for name, value in config.to_dict().items() if name not in ignored}
    if values["structure"] == ("depth",):
        del values["structure"]  # as it was before there were other kinds: streams of then go on
    for kind in KINDS:
        values[kind]["sources"] = [source.drawn for source in getattr(config, kind).sources]
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for key, members in sorted(shares.items()):
        for share in members:
            digest.update(f"{key} {share.number} {share.weight} {len(share.source)}".encode())
            digest.update(np.ascontiguousarray(share.indices, np.int64))
    return digest.hexdigest()[:16]
