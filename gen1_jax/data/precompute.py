"""`gen1 precompute`: clips to what training needs of them, once: latents, structure at every t_s, CLIP embeddings.

record ──► frames ──┬─► autoencoder ───────────────────────────────────────────► moments    (T, h, w, 2 c)
                    ├─► maps of each kind ──► normalise ──► degrade by t_s ──► encode ► structure  (8, T, h, w, c)
                    │                  └─► if a control of the model follows them ────► maps       (T, H, W, k)
                    └─► CLIP ──────────────────────────────────────────────────► content    (T, d)

Maps are normalised over the clip that is stored, and stay so in every window that training draws of it: let clips
have the frames of an example, as `gen1 prepare` and `gen1 render` cut them. Maps of a control are stored as they were
estimated, and normalised in each window.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

from gen1_jax.data.codec import cover_size, recorded_maps
from gen1_jax.data.config import check_kinds
from gen1_jax.data.dataset import Example, RecordSource, WriteSummary, missing_shards, open_dataset, read_recipe
from gen1_jax.data.latents import DATASET_NAME, LEVELS, made_structure, structure_contract, write_latents
from gen1_jax.data.processes import map_ahead
from gen1_jax.errors import UserError
from gen1_jax.media.windows import open_windows
from gen1_jax.models.module import Bound, Params, cast_kernels, flatten
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import Depth, EncodeImages, StructureKind, structure_kind
from gen1_jax.models.vae import AutoencoderKL
from gen1_jax.pretrained.folder import ModelSource

_ENCODERS = ("vae", "clip")  # those that the model has, and the parts of it that kinds of structure need
_DECODES = {"vae": ("decoder", "post_quant_conv")}  # what latents do not depend on
_AT_ONCE = {"cpu": (1, 8)}  # clips in a batch, pictures in the autoencoder; on accelerators more


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecomputeRecipe:
    """What is precomputed.

    Attributes:
        data: folder of a data set of clips.
        split: of it.
        height: of the pictures that are encoded, scaled and cropped; None for the clip's own shape at about the
            model's number of pixels.
        width: see height; both or neither.
        structure: kinds of structure, by name.
        depth: "model", the model's own depth network, as an edit sees it; or "record", the depth that synthetic
            clips carry.
        clips_per_shard: clips in one file, the grain of resuming.
    """

    data: str
    split: str = "train"
    height: int | None = None
    width: int | None = None
    structure: tuple[str, ...] = ("depth",)
    depth: Literal["model", "record"] = "model"
    clips_per_shard: int = 64

    def __post_init__(self):
        if (self.height is None) != (self.width is None):
            raise UserError("give both of height and width, or neither")
        check_kinds(self.structure)
        if self.depth not in ("model", "record"):
            raise UserError(f"depth is {self.depth!r}, not model or record")
        if self.depth == "record" and "depth" not in self.structure:
            raise UserError(f"depth is 'record', but structure is {', '.join(self.structure) or 'none'}")
        if self.clips_per_shard < 1 or (self.height is not None and min(self.height, self.width) < 8):
            raise UserError(f"{self.width}x{self.height}, {self.clips_per_shard} clips a shard: too small")

    @property
    def recorded(self) -> tuple[str, ...]:
        """Kinds whose maps the records have; those of the others are estimated."""
        return ("depth",) if self.depth == "record" else ()

    def contracts(self, model: ModelSource, kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
        """How the maps of some kinds come about."""
        made = {name: "record" if name in self.recorded else "model" for name in kinds}
        return {name: structure_contract(model.config.structure_kind(name), source) for name, source in made.items()}

    def maps(self, model: ModelSource) -> tuple[str, ...]:
        """Kinds whose maps are kept: those that controls of the model follow."""
        unet = model.config.unet
        return tuple(name for name in self.structure if name in unet.kinds and name not in unet.structures)

    def encoded(self, model: ModelSource) -> tuple[str, ...]:
        """Kinds that are encoded: the others."""
        return tuple(name for name in self.structure if name not in self.maps(model))

    def info(self, source: RecordSource, model: ModelSource) -> dict[str, Any]:
        """What the data set's recipe says of where the latents come from."""
        return {
            "description": "latents of clips, precomputed by gen1 precompute",
            "data": {"recipe": _recipe_of(self.data, self.split), "clips": len(source), "split": self.split},
            "size": [self.height, self.width],
            "model": encoder_fingerprints(model, self.structure),
        }


def encoder_fingerprints(model: ModelSource, structure: Iterable[str] = ("depth",)) -> dict[str, str]:
    """Hashes of the networks that latents depend on; a decoder may be trained further, and they stay what they are."""
    return {part: fingerprint(model, part, _DECODES.get(part, ())) for part in _parts(model, structure)}


def _parts(model: ModelSource, structure: Iterable[str]) -> tuple[str, ...]:
    """Parts of the model that encode clips and structure of these kinds.

    Raises:
        UserError: it lacks one.
    """
    encoders = [part for part in _ENCODERS if part in model.config.components]
    parts = {part: kind for kind in structure if (part := structure_kind(kind).part) is not None}
    if missing := [part for part in parts if part not in model.config.components]:
        raise UserError(f"{model.name} has no {missing[0]} to estimate structure {parts[missing[0]]} with")
    return tuple(dict.fromkeys((*encoders, *parts)))


def fingerprint(model: ModelSource, component: str, without: Sequence[str] = ()) -> str:
    """A hash of a network's configuration and weights, all but some of its parts."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(getattr(model.config, component)), sort_keys=True).encode())
    parts = {name: part for name, part in model.parameters(component).items() if name not in without}
    for name, value in sorted(flatten(parts).items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def check_latents(directory: str | os.PathLike[str], split: str, model: ModelSource) -> None:
    """Refuse latents that another model or another contract of structure made.

    Raises:
        ValueError: naming what differs.
    """
    info = read_recipe(directory, split)
    structure = made_structure(info) | info.get("maps", {})
    made, ours = info.get("model", {}), encoder_fingerprints(model, structure)
    for component in ours:
        if made.get(component) != ours[component]:
            raise UserError(
                f"{directory}: its latents were made by another {component} ({made.get(component)}) than that of"
                f" {model.name} ({ours[component]}); run gen1 precompute with this model"
            )
    for kind, contract in structure.items():
        expected = structure_contract(model.config.structure_kind(kind), contract.get("source", "model"))
        if contract != expected:
            raise UserError(f"{directory}: its {kind} is {contract}, not {expected}; run gen1 precompute again")


def precompute_dataset(
    directory: str | os.PathLike[str],
    recipe: PrecomputeRecipe,
    model: ModelSource,
    *,
    dtype: DTypeLike | None = None,
    process_index: int = 0,
    process_count: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> WriteSummary:
    """Encode this process's share of a data set, on all of its devices, leaving out the shards that are there.

    Args:
        directory: of the new data set; see `write_dataset`.
        recipe: what to precompute.
        model: its autoencoder, depth network and CLIP do it.
        dtype: of the computation, by default bfloat16 on accelerators, float32 on CPUs; results are bfloat16.
        process_index: which of the processes that write into this directory this one is.
        process_count: how many there are.
        progress: called with (frames encoded, frames of this process, as far as is known).

    Raises:
        ValueError: no such clips, records without pictures or depth, or a directory made by another recipe.
    """
    source = open_dataset(recipe.data, recipe.split)
    if "video" not in source.features:
        raise UserError(f"{recipe.data}: its records have no video; name a data set of gen1 prepare or gen1 render")
    if "depth" in recipe.recorded and "depth" not in source.features:
        raise UserError(f"{recipe.data}: its records have no depth; use --depth model")
    encoder = _Encoder(model, recipe, dtype)
    shards = max(1, -(-len(source) // recipe.clips_per_shard))
    share = (process_index, process_count)
    missing = missing_shards(directory, DATASET_NAME, recipe.split, shards, *share)
    clips = {s: range(s * recipe.clips_per_shard, min((s + 1) * recipe.clips_per_shard, len(source))) for s in missing}
    encoded = encoder.encode_all(source[i] for shard in missing for i in clips[shard])
    total, done = sum(map(len, clips.values())), 0

    def examples(shard: int) -> Iterator[Example]:
        nonlocal done
        for example in itertools.islice(encoded, len(clips[shard])):
            yield example
            done += 1
            if progress is not None:
                progress(done * example["frames"], total * example["frames"])

    return write_latents(
        directory,
        split=recipe.split,
        num_shards=shards,
        examples=examples,
        structure=recipe.contracts(model, recipe.encoded(model)),
        maps=recipe.contracts(model, recipe.maps(model)),
        has_content="clip" in model.config.components,
        process_index=process_index,
        process_count=process_count,
        info=recipe.info(source, model),
    )


class _Encoder:
    """The networks on every device of this process; batches of clips of one shape go to the devices in turn."""

    def __init__(self, model: ModelSource, recipe: PrecomputeRecipe, dtype: DTypeLike | None):
        backend = jax.default_backend()
        dtype = jnp.dtype(dtype or (jnp.float32 if backend == "cpu" else jnp.bfloat16))
        self._config, self._recipe, self._map_kinds = model.config, recipe, recipe.maps(model)
        self._clips_at_once, self._frames_at_once = _AT_ONCE.get(backend, (16, 128))
        vae = AutoencoderKL(model.config.vae, dtype=dtype, frames_per_chunk=self._frames_at_once)
        parts = _parts(model, (kind for kind in recipe.structure if kind not in recipe.recorded))
        self._networks = {part: vae if part == "vae" else model.config.build(part, dtype) for part in parts}
        self._weights = {part: cast_kernels(model.parameters(part), dtype) for part in parts}
        self._jitted = jax.jit(self._encode)

    @cached_property
    def _replicas(self) -> list[tuple[jax.Device, dict]]:
        return [(device, jax.device_put(self._weights, device)) for device in jax.local_devices()]

    def encode_all(self, records: Iterator[Example]) -> Iterator[Example]:
        """Examples for `write_latents`, in order; a batch for each device is under way at once, and one ahead."""
        under_way: collections.deque = collections.deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ready = map_ahead(pool, self._prepare, records, ahead=4 * self._clips_at_once)
            for turn, batch in enumerate(_of_one_shape(ready, self._clips_at_once)):
                device, weights = self._replicas[turn % len(self._replicas)]
                under_way.append((batch, self._jitted(weights, *jax.device_put(self._stack(batch), device))))
                if len(under_way) > len(self._replicas):
                    yield from _finish(*under_way.popleft())
            while under_way:
                yield from _finish(*under_way.popleft())

    def _prepare(self, record: Example) -> "_Prepared":
        """Frames, and the maps that the record is to give, scaled to cover the size and cut evenly."""
        count = int(record["frames"])
        with open_windows(record["video"], frames=count) as video:
            size = (self._recipe.height, self._recipe.width)
            if size[0] is None:
                size = self._config.working_size(video.height, video.width)
            cover = cover_size(video.height, video.width, size)
            frames = _centre(video.window(0, count, 1, cover), size)
        maps = {kind: _covering(recorded_maps(record, kind), cover, size) for kind in self._recipe.recorded}
        common = {**_common(record), "height": frames.shape[1], "width": frames.shape[2]}
        return _Prepared(common, frames, maps)

    def _stack(self, batch: list["_Prepared"]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Frames and maps, filled up to the number of clips for which there is a program."""
        padded = batch + batch[-1:] * (self._clips_at_once - len(batch))
        maps = {kind: np.stack([clip.maps[kind] for clip in padded]) for kind in batch[0].maps}
        return np.stack([clip.frames for clip in padded]), maps

    def _encode(
        self, weights: dict[str, Params], frames: UInt8[Array, "n t h w 3"], maps: dict[str, Float[Array, "n t h w k"]]
    ) -> dict[str, Any]:
        """The arrays of an example, each with n clips; one jitted function a shape."""
        networks = {part: Bound(module, weights[part]) for part, module in self._networks.items()}
        vae = networks["vae"]
        by_clip = partial(rearrange, pattern="(n t) ... -> n t ...", n=len(frames))
        pictures = rearrange(frames, "n t ... -> (n t) ...")
        posterior = vae.encode(pixels_to_images(pictures))
        structure, kept = {}, {}
        for kind in map(self._config.structure_kind, self._recipe.structure):
            found = maps.get(kind.name)
            if found is None:
                if isinstance(kind, Depth):
                    found = kind.estimate_clips(frames, networks, self._frames_at_once // 2)
                else:
                    found = by_clip(kind.estimate(pictures, networks, self._frames_at_once // 2))
            if kind.name in self._map_kinds:
                kept[kind.name] = found.astype(jnp.float32)
            else:
                structure[kind.name] = _at_each_level(kind, found, vae.images_to_latents)
        arrays = {
            "moments": by_clip(jnp.concatenate([posterior.mean, posterior.log_variance], axis=-1)),
            "structure": structure,
        }
        if clip := networks.get("clip"):
            arrays["content"] = by_clip(clip.encode_image(clip.module.preprocess(pictures)))
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), arrays) | {"maps": kept}


def _at_each_level(
    kind: StructureKind, maps: Float[Array, "n t H W k"], encode_images: EncodeImages
) -> Float[Array, "n 8 t h w c"]:
    """Latents of maps as they were estimated, at every t_s."""
    degraded = kind.degrade(
        repeat(kind.normalise(maps), "n ... -> (n l) ...", l=LEVELS), jnp.tile(jnp.arange(LEVELS), len(maps))
    )
    return rearrange(kind.encode(degraded, encode_images), "(n l) ... -> n l ...", l=LEVELS)


class _Prepared(NamedTuple):
    """A clip before it is encoded."""

    common: Example
    frames: UInt8[np.ndarray, "t h w 3"]
    maps: dict[str, Float32[np.ndarray, "t h w k"]]


def _of_one_shape(clips: Iterator[_Prepared], count: int) -> Iterator[list[_Prepared]]:
    """Batches of at most `count` neighbours."""
    for _, same in itertools.groupby(clips, lambda clip: clip.frames.shape):
        while batch := list(itertools.islice(same, count)):
            yield batch


def _common(record: Example) -> Example:
    return {name: record[name] for name in ("id", "caption", "frame_rate", "source", "frames")}


def _finish(batch: list[_Prepared], arrays: dict[str, Any]) -> Iterator[Example]:
    host = jax.device_get(arrays)
    for index, clip in enumerate(batch):
        yield {**clip.common, **jax.tree.map(lambda x: x[index], host)}  # noqa: B023


def _covering(
    maps: Float32[np.ndarray, "t h w k"], cover: tuple[int, int], size: tuple[int, int]
) -> Float32[np.ndarray, "t i j k"]:
    scaled = jax.image.resize(maps, (len(maps), *cover, maps.shape[-1]), "linear")
    return _centre(np.asarray(scaled), size)


def _centre(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = ((outer - inner) // 2 for outer, inner in zip(frames.shape[1:3], size, strict=True))
    return frames[:, top : top + size[0], left : left + size[1]]


def _recipe_of(directory: str, split: str) -> str:
    """A hash of what made a split; of its name where nothing is known."""
    try:
        made = json.dumps(read_recipe(directory, split.split("[")[0]), sort_keys=True)
    except ValueError:
        made = os.path.basename(os.path.normpath(directory))
    return hashlib.sha256(made.encode()).hexdigest()[:16]
