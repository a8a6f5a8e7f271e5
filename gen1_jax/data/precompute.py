"""`gen1 precompute`: clips to what training needs of them, once: latents, structure at every t_s, CLIP embeddings.

record ──► frames ──┬─► autoencoder ──────────────────────────────► moments    (T, h, w, 2 c)
                    ├─► depth ──► normalise ──► blur t_s ──► encode ► structure  (8, T, h, w, c)
                    └─► CLIP ─────────────────────────────────────► content    (T, d)
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import tensorflow_datasets as tfds
from einops import rearrange
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

from gen1_jax.data.codec import VideoFile, cover_size, inverse_depth
from gen1_jax.data.dataset import (
    CLIP_FEATURES,
    Example,
    Features,
    RecordSource,
    WriteSummary,
    missing_shards,
    open_dataset,
    read_recipe,
    write_dataset,
)
from gen1_jax.data.processes import map_ahead
from gen1_jax.errors import UserError
from gen1_jax.models.module import Bound, cast_kernels, flatten
from gen1_jax.models.structure import MAX_STRUCTURE_LEVEL, normalise_depth, structure_images
from gen1_jax.models.vae import AutoencoderKL
from gen1_jax.pretrained.folder import ModelSource

DATASET_NAME = "latent_clips"
_ENCODERS = ("vae", "clip", "depth")
_DECODES = {"vae": ("decoder", "post_quant_conv")}  # what latents do not depend on
_AT_ONCE = {"cpu": (1, 8)}  # clips in a batch, pictures in the autoencoder; on accelerators more
_LEVELS = MAX_STRUCTURE_LEVEL + 1


def _latents(*shape: int | None, doc: str) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=ml_dtypes.bfloat16, encoding="bytes", doc=doc)


LATENT_FEATURES: Features = {
    **{name: feature for name, feature in CLIP_FEATURES.items() if name != "video"},
    "moments": _latents(None, None, None, None, doc="mean and log variance of the autoencoder, unscaled: T h w 2c"),
    "structure": _latents(_LEVELS, None, None, None, None, doc="scaled latents of the depth at each t_s: 8 T h w c"),
    "content": _latents(None, None, doc="CLIP image embedding of each frame, not normalised: T d"),
}
"""What a record of precomputed latents has; `height` and `width` are those of the pictures that were encoded."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecomputeRecipe:
    """What is precomputed.

    Attributes:
        data: folder of a data set of clips.
        split: of it.
        height: of the pictures that are encoded, scaled and cropped; None for the clip's own shape at about the
            model's number of pixels.
        width: see height; both or neither.
        depth: "model", the model's own depth network, as an edit sees it; or "record", the depth that synthetic
            clips carry.
        clips_per_shard: clips in one file, the grain of resuming.
    """

    data: str
    split: str = "train"
    height: int | None = None
    width: int | None = None
    depth: Literal["model", "record"] = "model"
    clips_per_shard: int = 64

    def __post_init__(self):
        if (self.height is None) != (self.width is None):
            raise UserError("give both of height and width, or neither")
        if self.depth not in ("model", "record"):
            raise UserError(f"depth is {self.depth!r}, not model or record")
        if self.clips_per_shard < 1 or (self.height is not None and min(self.height, self.width) < 8):
            raise UserError(f"{self.width}x{self.height}, {self.clips_per_shard} clips a shard: too small")

    def info(self, source: RecordSource, model: ModelSource) -> dict[str, Any]:
        """What the data set's recipe says: where the latents come from, and the contract of their depth."""
        return {
            "description": "latents of clips, precomputed by gen1 precompute",
            "data": {"recipe": _recipe_of(self.data, self.split), "clips": len(source), "split": self.split},
            "size": [self.height, self.width],
            "model": encoder_fingerprints(model),
            "depth": depth_contract(self.depth),
        }


def depth_contract(source: str = "model") -> dict[str, str]:
    """How depth became structure: data made in one way does not fit a model trained in another."""
    return {"source": source, "polarity": "near is large", "normalisation": "clip minimum and maximum to [-1, 1]"}


def encoder_fingerprints(model: ModelSource) -> dict[str, str]:
    """Hashes of the networks that latents depend on; a decoder may be trained further, and they stay what they are."""
    return {component: fingerprint(model, component, _DECODES.get(component, ())) for component in _ENCODERS}


def fingerprint(model: ModelSource, component: str, without: Sequence[str] = ()) -> str:
    """A hash of a network's configuration and weights, all but some of its parts."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(getattr(model.config, component)), sort_keys=True).encode())
    parts = {name: part for name, part in model.parameters(component).items() if name not in without}
    for name, value in sorted(flatten(parts).items()):
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def check_latents(directory: str | os.PathLike[str], split: str, model: ModelSource) -> None:
    """Refuse latents that another model or another depth contract made.

    Raises:
        ValueError: naming what differs.
    """
    info = read_recipe(directory, split)
    made, ours = info.get("model", {}), encoder_fingerprints(model)
    for component in _ENCODERS:
        if made.get(component) != ours[component]:
            raise UserError(
                f"{directory}: its latents were made by another {component} ({made.get(component)}) than that of"
                f" {model.name} ({ours[component]}); run gen1 precompute with this model"
            )
    expected = depth_contract(info.get("depth", {}).get("source", "model"))
    if info.get("depth") != expected:
        raise UserError(f"{directory}: its depth is {info.get('depth')}, not {expected}; run gen1 precompute again")


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
    if recipe.depth == "record" and "depth" not in source.features:
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

    return write_dataset(
        directory,
        name=DATASET_NAME,
        split=recipe.split,
        features=LATENT_FEATURES,
        num_shards=shards,
        examples=examples,
        process_index=process_index,
        process_count=process_count,
        info=recipe.info(source, model),
    )


class _Encoder:
    """The three networks on every device of this process; batches of clips of one shape go to the devices in turn."""

    def __init__(self, model: ModelSource, recipe: PrecomputeRecipe, dtype: DTypeLike | None):
        backend = jax.default_backend()
        dtype = jnp.dtype(dtype or (jnp.float32 if backend == "cpu" else jnp.bfloat16))
        self._config, self._recipe = model.config, recipe
        self._clips_at_once, self._frames_at_once = _AT_ONCE.get(backend, (16, 128))
        vae = AutoencoderKL(model.config.vae, dtype=dtype, frames_per_chunk=self._frames_at_once)
        self._networks = {"vae": vae, **{c: model.config.build(c, dtype) for c in _ENCODERS if c != "vae"}}
        self._weights = {c: cast_kernels(model.parameters(c), dtype) for c in _ENCODERS}
        self._jitted = jax.jit(self._encode)

    @cached_property
    def _replicas(self) -> list[tuple[jax.Device, dict]]:
        return [(device, jax.device_put(self._weights, device)) for device in jax.local_devices()]

    def encode_all(self, records: Iterator[Example]) -> Iterator[Example]:
        """Examples of `LATENT_FEATURES`, in order; a batch for each device is under way at once, and one ahead."""
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
        """Frames and, if the record's own is wanted, depth, scaled to cover the size and cut evenly."""
        with VideoFile(record["video"]) as video:
            count = int(record["frames"])
            size = (self._recipe.height, self._recipe.width)
            if size[0] is None:
                size = self._config.working_size(video.height, video.width)
            cover = cover_size(video.height, video.width, size)
            frames = _centre(video.window(0, count, 1, cover), size)
        common = {**_common(record), "height": frames.shape[1], "width": frames.shape[2]}
        if self._recipe.depth == "model":
            return _Prepared(common, frames, None)
        depth = inverse_depth(record["depth"], (count, record["height"], record["width"]), record["depth_range"])
        depth = np.asarray(jax.image.resize(depth, (count, *cover), "linear"))
        return _Prepared(common, frames, _centre(depth, size))

    def _stack(self, batch: list["_Prepared"]) -> tuple[np.ndarray, np.ndarray | None]:
        """Frames and depth, filled up to the number of clips for which there is a program."""
        padded = batch + batch[-1:] * (self._clips_at_once - len(batch))
        depth = None if batch[0].depth is None else np.stack([clip.depth for clip in padded])
        return np.stack([clip.frames for clip in padded]), depth

    def _encode(self, weights, frames, depth) -> dict[str, Array]:
        """(N, T, h, w, 3) uint8 to the three arrays; one jitted function a shape."""
        vae, clip, estimator = (Bound(self._networks[c], weights[c]) for c in _ENCODERS)
        pictures = rearrange(frames, "n t ... -> (n t) ...")
        images = pictures.astype(jnp.float32) / 127.5 - 1
        posterior = vae.apply(weights["vae"], images, method="encode")
        if depth is None:
            at_once = self._frames_at_once // 2
            estimate = estimator.apply(weights["depth"], images, method="estimate", frames_per_chunk=at_once)
            depth = rearrange(estimate, "(n t) ... -> n t ...", n=len(frames))
        by_clip = {
            "moments": jnp.concatenate([posterior.mean, posterior.log_variance], axis=-1),
            "content": clip.apply(weights["clip"], clip.module.preprocess(pictures), method="encode_image"),
        }
        by_clip = {name: rearrange(x, "(n t) ... -> n t ...", n=len(frames)) for name, x in by_clip.items()}
        structure = vae.apply(weights["vae"], self._structure(depth), method="images_to_latents")
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), by_clip | {"structure": structure})

    def _structure(self, depth: Float[Array, "n t h w"]) -> Float[Array, "n 8 t h w 3"]:
        levels = jnp.arange(_LEVELS)
        of_clip = lambda clip: structure_images(jnp.broadcast_to(clip, (_LEVELS, *clip.shape)), levels)
        return jax.vmap(of_clip)(normalise_depth(depth))


class _Prepared(NamedTuple):
    """A clip before it is encoded."""

    common: Example
    frames: UInt8[np.ndarray, "t h w 3"]
    depth: Float32[np.ndarray, "t h w"] | None


def _of_one_shape(clips: Iterator[_Prepared], count: int) -> Iterator[list[_Prepared]]:
    """Batches of at most `count` neighbours."""
    for _, same in itertools.groupby(clips, lambda clip: clip.frames.shape):
        while batch := list(itertools.islice(same, count)):
            yield batch


def _common(record: Example) -> Example:
    return {name: record[name] for name in ("id", "caption", "frame_rate", "source", "frames")}


def _finish(batch: list[_Prepared], arrays: dict[str, Array]) -> Iterator[Example]:
    host = jax.device_get(arrays)
    for index, clip in enumerate(batch):
        yield {**clip.common, **{name: value[index] for name, value in host.items()}}


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
