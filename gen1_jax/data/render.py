"""`gen1 render`: synthetic clips as a data set, on one device, on all devices of a host, or by many processes.

seeds ──► structures, contents ──► [ batches on the devices, ahead ] ──► mp4, depth, ids (threads) ──► write_dataset
                                             World                  └──► gen1 precompute --data worlds:N
"""

import collections
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from gen1_jax import synthetic
from gen1_jax.data.codec import encode_depth, encode_video
from gen1_jax.data.dataset import CLIP_FEATURES, Example, Features, WriteSummary, missing_shards, write_dataset
from gen1_jax.data.world import World, check_exact, encode_world, features_of, traced
from gen1_jax.errors import UserError, counted

DATASET_NAME = "synthetic_clips"

SYNTHETIC_FEATURES: Features = {
    **CLIP_FEATURES,
    "depth": tfds.features.Tensor(shape=(), dtype=np.bytes_, doc="inverse depth, see gen1_jax.data.codec"),
    "depth_range": tfds.features.Tensor(shape=(2,), dtype=np.float32, doc="least and largest inverse depth, 1/metre"),
    "ids": tfds.features.Tensor(shape=(None, None, None), dtype=np.uint8, encoding="zlib", doc="see synthetic.Clip"),
    "structure_seed": tfds.features.Scalar(np.int64, doc="of synthetic.sample_structure"),
    "content_seed": tfds.features.Scalar(np.int64, doc="of synthetic.sample_content"),
}

_Rendered = tuple[synthetic.Clip, dict[str, jax.Array], tuple[jax.Array, ...]]
"""What a device gives: a clip, exact maps, pictures in other contents."""

_SAMPLES_IN_FLIGHT = 1 << 24  # rays of one batch on an accelerator


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderRecipe:
    """What is rendered; the same recipe on the same kind of device gives the same bytes, however it is divided.

    Attributes:
        clips: how many.
        frames: of a clip.
        height: pixels.
        width: pixels.
        seed: of the data set; sets of different seeds share no clip.
        split: train, validation or test: disjoint seeds and disjoint combinations of content.
        frame_rate: frames a second.
        supersample: rays along each side of a pixel.
        clips_per_shard: clips in one file, the grain of resuming.
        flow: whether records hold optical flow (large); as "flow" in `maps`.
        maps: further kinds of structure whose exact maps records hold, see `world`.
        change: what differs between a clip and its source, of `synthetic.CHANGES`; None draws it for each.
    """

    clips: int
    frames: int = 8
    height: int = 128
    width: int = 128
    seed: int = 0
    split: str = "train"
    frame_rate: float = 12.0
    supersample: int = 2
    clips_per_shard: int = 16
    flow: bool = False
    maps: tuple[str, ...] = ()
    change: str | None = None

    def __post_init__(self):
        check_exact(self.maps)
        if self.change not in (None, *synthetic.CHANGES):
            raise UserError(f"a source differs in {', '.join(synthetic.CHANGES)}, not in {self.change!r}")
        if self.change and "source" not in self.maps:
            raise UserError(f"clips have no source that could differ in {self.change}: name source among their maps")
        if min(self.clips, self.frames, self.supersample, self.clips_per_shard) < 1 or min(self.height, self.width) < 8:
            raise UserError(
                f"{counted(self.clips, 'clip')} of {counted(self.frames, 'frame')} of {self.width}x{self.height}:"
                " need at least 1 clip, 1 frame, 8 pixels"
            )
        synthetic.clip_seed(self.split, self.clips - 1, self.seed)  # refuses what has no seed

    @property
    def shards(self) -> int:
        """How many files there will be."""
        return -(-self.clips // self.clips_per_shard)

    def shard(self, index: int) -> range:
        """The clips of one file."""
        return range(index * self.clips_per_shard, min((index + 1) * self.clips_per_shard, self.clips))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of structure whose exact maps clips have, beside those that all have."""
        return (*self.maps, *(("flow",) if self.flow and "flow" not in self.maps else ()))

    @property
    def features(self) -> Features:
        """The schema of a record."""
        return {**SYNTHETIC_FEATURES, **features_of(self.kinds)}

    def info(self) -> dict[str, Any]:
        """What the data set's recipe says."""
        said = {
            name: value for name, value in dataclasses.asdict(self).items() if name not in ("maps", "change") or value
        }
        return {"generator": "gen1_jax.synthetic", **said}


def render_dataset(
    directory: str | os.PathLike[str],
    recipe: RenderRecipe,
    *,
    process_index: int = 0,
    process_count: int = 1,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WriteSummary:
    """Renders this process's share of a data set, leaving out the shards that are there.

    Args:
        directory: of the data set; see `write_dataset`.
        recipe: what to render.
        process_index: which of the processes that render into this directory this one is.
        process_count: how many there are.
        batch_size: clips rendered at once on one device; by default 1 on a CPU, and what fills an accelerator.
        progress: called with (clips of this process that are there, all clips of this process).

    Raises:
        ValueError: the directory holds a split made by another recipe.
    """
    write = partial(
        write_dataset,
        directory,
        name=DATASET_NAME,
        split=recipe.split,
        features=recipe.features,
        num_shards=recipe.shards,
        process_index=process_index,
        process_count=process_count,
        info=recipe.info(),
    )
    missing = missing_shards(directory, DATASET_NAME, recipe.split, recipe.shards, process_index, process_count)
    total = sum(len(recipe.shard(shard)) for shard in range(process_index, recipe.shards, process_count))
    wanted = [clip for shard in missing for clip in recipe.shard(shard)]
    done = itertools.count(total - len(wanted) + 1)
    if progress:
        progress(total - len(wanted), total)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        records = WorldRenderer(recipe, batch_size).records(wanted, pool)

        def examples(shard: int) -> Iterator[Example]:
            for record in itertools.islice(records, len(recipe.shard(shard))):
                yield record
                if progress:
                    progress(next(done), total)

        return write(examples=examples)


class WorldRenderer:
    """Renders clips in batches, a few of them ahead on every device of this host.

    Args:
        recipe: what to render.
        batch_size: see `render_dataset`.
    """

    def __init__(self, recipe: RenderRecipe, batch_size: int | None) -> None:
        self._recipe = recipe
        self._devices = jax.local_devices()
        rays = recipe.frames * recipe.height * recipe.width * recipe.supersample**2
        fitting = 1 if self._devices[0].platform == "cpu" else max(1, _SAMPLES_IN_FLIGHT // rays)
        self._batch_size = batch_size or fitting

    @cached_property
    def _render(self) -> Callable[..., _Rendered]:
        recipe = self._recipe
        settings = dict(
            frames=recipe.frames,
            size=(recipe.height, recipe.width),
            fps=recipe.frame_rate,
            supersample=recipe.supersample,
        )
        names = traced(recipe.kinds)

        def render(structure: synthetic.Structure, content: synthetic.Content, *others: synthetic.Content) -> _Rendered:
            if names or others:
                return synthetic.render_with_maps(structure, content, names, others=others, **settings)
            return synthetic.render(structure, content, **settings), {}, ()

        return jax.jit(jax.vmap(render)) if self._batch_size > 1 else _one(render)

    def clips(self, indices: Sequence[int]) -> Iterator[list[tuple["Scene", World]]]:
        """Batches of rendered clips, on the host, in order; the devices work on later ones meanwhile."""
        running: collections.deque = collections.deque()
        devices = itertools.cycle(self._devices)
        for start in range(0, len(indices), self._batch_size):
            scenes = [Scene.draw(self._recipe, index) for index in indices[start : start + self._batch_size]]
            running.append((scenes, self._launch(scenes, next(devices))))
            if len(running) > 2 * len(self._devices):
                yield _fetch(*running.popleft())
        while running:
            yield _fetch(*running.popleft())

    def records(self, indices: Sequence[int], pool: ThreadPoolExecutor) -> Iterator[Example]:
        """The records of clips, in order."""
        for batch in self.clips(indices):
            yield from pool.map(lambda pair: pair[0].record(pair[1]), batch)

    def _launch(self, scenes: list["Scene"], device: jax.Device) -> _Rendered:
        padded = scenes + scenes[-1:] * (self._batch_size - len(scenes))  # one shape, one compilation
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[scene.programs for scene in padded])
        # Arrays that lie on a device are another program, and taking the one clip out of them a program for each.
        return self._render(*(stacked if len(self._devices) == 1 else jax.device_put(stacked, device)))


def _one(render: Callable[..., _Rendered]) -> Callable[..., _Rendered]:
    """A batch of one clip without vmap, which would take branches away."""

    def render_one(*stacked: Any) -> _Rendered:
        return jax.tree.map(lambda x: x[None], render(*jax.tree.map(lambda x: x[0], stacked)))

    return render_one


def _fetch(scenes: list["Scene"], rendered: _Rendered) -> list[tuple["Scene", World]]:
    host = jax.device_get(rendered)
    return [(scene, scene.world(*jax.tree.map(lambda x: x[i], host))) for i, scene in enumerate(scenes)]  # noqa: B023


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """One clip before it is rendered.

    Attributes:
        recipe: of the data set.
        seed: of its structure and its content.
        structure: what is where.
        content: what it looks like.
        source: what it looks like before the edit that makes it `content`, if that is to be rendered.
    """

    recipe: RenderRecipe
    seed: int
    structure: synthetic.Structure
    content: synthetic.Content
    source: synthetic.Content | None

    @classmethod
    def draw(cls, recipe: RenderRecipe, index: int) -> "Scene":
        """Clip `index` of a recipe."""
        seed = synthetic.clip_seed(recipe.split, index, recipe.seed)
        structure = synthetic.sample_structure(seed)
        content = synthetic.sample_content(seed, structure, recipe.split)
        source = None
        if "source" in recipe.kinds:
            source, _ = synthetic.sample_source(seed, structure, content, recipe.split, recipe.change)
        return cls(recipe=recipe, seed=seed, structure=structure, content=content, source=source)

    @property
    def programs(self) -> tuple[synthetic.Structure | synthetic.Content, ...]:
        """What is rendered: a structure, and one or two contents."""
        return (self.structure, self.content, *(() if self.source is None else (self.source,)))

    def world(self, clip: synthetic.Clip, maps: dict[str, np.ndarray], others: tuple[np.ndarray, ...]) -> World:
        """The clip as it was rendered, of numpy arrays."""
        return World(clip, maps, others[0] if others else None, np.asarray(self.structure.shapes), self.seed)

    def about(self) -> Example:
        """What a record says of the clip, whatever form its pictures have."""
        recipe = self.recipe
        return {
            "id": f"{recipe.split}_{self.seed}",
            "caption": synthetic.caption(self.content, self.structure, seed=self.seed),
            "frame_rate": recipe.frame_rate,
            "source": "gen1_jax.synthetic",
            "frames": recipe.frames,
            "height": recipe.height,
            "width": recipe.width,
        }

    def record(self, world: World) -> Example:
        """The clip as a record."""
        recipe, clip = self.recipe, world.clip
        depth, limits = encode_depth(clip.depth)
        return {
            **self.about(),
            # At this size colour at half resolution would show.
            "video": encode_video(clip.rgb, recipe.frame_rate, pixel_format="yuv444p"),
            "depth": depth,
            "depth_range": np.asarray(limits, np.float32),
            "ids": clip.ids.astype(np.uint8),
            "structure_seed": self.seed,
            "content_seed": self.seed,
            **encode_world(world, recipe.kinds, recipe.frame_rate),
        }


def render_sheet(
    *, rows: int = 6, columns: int = 6, size: int = 128, seed: int = 0, split: str = "train"
) -> UInt8[np.ndarray, "h w 3"]:
    """A picture to judge the worlds by: a structure a row, a place, light and style a column, depth first."""
    structures = [synthetic.sample_structure(synthetic.clip_seed(split, row, seed)) for row in range(rows)]
    seeds = [synthetic.clip_seed(split, column, seed) for column in range(columns)]
    contents = [[synthetic.sample_content(s, structure, split) for s in seeds] for structure in structures]
    return synthetic.contact_sheet(structures, contents, size=size)


def bench_render(recipe: RenderRecipe, *, batch_size: int | None = None) -> dict[str, Any]:
    """Times rendering alone, and rendering with the encoding of records; compilation is apart.

    Returns:
        frames a second of both, seconds of the first batch (mostly compilation), bytes of a clip, and what ran.
    """
    renderer = WorldRenderer(recipe, batch_size)
    device = jax.local_devices()[0]
    start = time.perf_counter()
    for _ in renderer.clips(range(1)):
        pass
    first = time.perf_counter() - start

    start = time.perf_counter()
    for _ in renderer.clips(range(recipe.clips)):
        pass
    rendered = time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        records = list(renderer.records(range(recipe.clips), pool))
    encoded = time.perf_counter() - start
    schema = tfds.features.FeaturesDict(dict(recipe.features))
    frames = recipe.clips * recipe.frames
    return {
        "device": f"{jax.local_device_count()} x {device.device_kind}",
        "size": f"{recipe.width}x{recipe.height}",
        "clips": recipe.clips,
        "frames": recipe.frames,
        "batch_size": renderer._batch_size,
        "first_batch_seconds": first,
        "render_frames_per_second": frames / rendered,
        "record_frames_per_second": frames / encoded,
        "bytes_per_clip": sum(len(schema.serialize_example(record)) for record in records) / len(records),
    }
