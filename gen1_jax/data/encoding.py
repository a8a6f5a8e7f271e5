"""Clips through the networks of a model: latents, structure at the t_s that are held, embeddings, maps of controls.

frames ──┬─► autoencoder ────────────────────────────────────────────────► moments    (T, h, w, 2 c)
         ├─► maps of each kind ──► normalise ──► degrade by t_s ──► encode ─► structure  (levels, T, h, w, c)
         │                  └─► if a control of the model follows them ────► maps       (T, H, W, k)
         └─► CLIP ───────────────────────────────────────────────────────► content    (T, d)
"""

import collections
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, UInt8

from gen1_jax.data.dataset import Example
from gen1_jax.data.latents import TWO, held_levels
from gen1_jax.data.processes import map_ahead
from gen1_jax.models.module import Bound, Params, cast_kernels
from gen1_jax.models.pictures import pixels_to_images
from gen1_jax.models.structure import Depth, EncodeImages, StructureKind
from gen1_jax.models.vae import AutoencoderKL
from gen1_jax.pretrained.folder import ModelSource

_AT_ONCE = {"cpu": (1, 8)}  # clips in a batch, pictures in the autoencoder; on accelerators more

T = TypeVar("T")


class PreparedClip(NamedTuple):
    """A clip before it is encoded.

    Attributes:
        common: what its record says, whatever is encoded.
        frames: of the size that is encoded.
        maps: of the kinds that no network of the model has to estimate, as `StructureKind.normalise` takes them.
    """

    common: Example
    frames: UInt8[np.ndarray, "t h w 3"]
    maps: dict[str, Float32[np.ndarray, "t h w k"]]


class ClipEncoder:
    """The networks on every device of this process; batches of clips of one shape go to the devices in turn.

    Args:
        model: whose networks.
        parts: names of those that are needed.
        levels: the kinds of structure, and how many levels of each are held, see `latents.TWO`; 0 for those whose maps
            are kept instead.
        dtype: of the computation, by default bfloat16 on accelerators, float32 on CPUs.
    """

    def __init__(
        self, model: ModelSource, parts: Sequence[str], levels: Mapping[str, int], dtype: DTypeLike | None = None
    ):
        backend = jax.default_backend()
        dtype = jnp.dtype(dtype or (jnp.float32 if backend == "cpu" else jnp.bfloat16))
        self._config, self._levels = model.config, dict(levels)
        self._clips_at_once, self._frames_at_once = _AT_ONCE.get(backend, (16, 128))
        vae = AutoencoderKL(model.config.vae, dtype=dtype, frames_per_chunk=self._frames_at_once)
        self._networks = {part: vae if part == "vae" else model.config.build(part, dtype) for part in parts}
        self._weights = {part: cast_kernels(model.parameters(part), dtype) for part in parts}
        self._jitted = jax.jit(self._encode)

    @cached_property
    def _replicas(self) -> list[tuple[jax.Device, dict]]:
        return [(device, jax.device_put(self._weights, device)) for device in jax.local_devices()]

    def encode_all(self, clips: Iterator[T], prepare: Callable[[T], PreparedClip]) -> Iterator[Example]:
        """Examples for `write_latents`, in order; a batch for each device is under way at once, and one ahead.

        Args:
            clips: whatever `prepare` takes.
            prepare: run by threads.
        """
        under_way: collections.deque = collections.deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ready = map_ahead(pool, prepare, clips, ahead=4 * self._clips_at_once)
            for turn, batch in enumerate(_of_one_shape(ready, self._clips_at_once)):
                device, weights = self._replicas[turn % len(self._replicas)]
                under_way.append((batch, self._jitted(weights, *jax.device_put(self._stack(batch), device))))
                if len(under_way) > len(self._replicas):
                    yield from _finish(*under_way.popleft())
            while under_way:
                yield from _finish(*under_way.popleft())

    def _stack(self, batch: list[PreparedClip]) -> tuple[np.ndarray, dict[str, np.ndarray], Int[np.ndarray, " n"]]:
        """Frames, maps and the second of two levels, filled up to the number of clips for which there is a program."""
        padded = batch + batch[-1:] * (self._clips_at_once - len(batch))
        maps = {kind: np.stack([clip.maps[kind] for clip in padded]) for kind in batch[0].maps}
        second = np.array([held_levels(TWO, clip.common["id"])[1] for clip in padded], np.int32)
        return np.stack([clip.frames for clip in padded]), maps, second

    def _encode(
        self,
        weights: dict[str, Params],
        frames: UInt8[Array, "n t h w 3"],
        maps: dict[str, Float[Array, "n t h w _"]],
        second: Int[Array, " n"],
    ) -> dict[str, Any]:
        """The arrays of an example, each with n clips; one jitted function a shape."""
        networks = {part: Bound(module, weights[part]) for part, module in self._networks.items()}
        vae = networks["vae"]
        by_clip = partial(rearrange, pattern="(n t) ... -> n t ...", n=len(frames))
        pictures = rearrange(frames, "n t ... -> (n t) ...")
        posterior = vae.encode(pixels_to_images(pictures))
        structure, kept = {}, {}
        for name, count in self._levels.items():
            kind, found = self._config.structure_kind(name), maps.get(name)
            if found is None:
                at_once = self._frames_at_once // 2
                if isinstance(kind, Depth):
                    found = kind.estimate_clips(frames, networks, at_once)
                else:
                    found = by_clip(kind.estimate(pictures, networks, at_once))
            if not count:
                kept[name] = found.astype(jnp.float32)
                continue
            zero = jnp.zeros_like(second)
            levels = jnp.stack([zero, second] if count == TWO else [zero + level for level in range(count)], 1)
            structure[name] = _at_levels(kind, found, levels, vae.images_to_latents)
        arrays = {
            "moments": by_clip(jnp.concatenate([posterior.mean, posterior.log_variance], axis=-1)),
            "structure": structure,
        }
        if clip := networks.get("clip"):
            arrays["content"] = by_clip(clip.encode_image(clip.module.preprocess(pictures)))
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), arrays) | {"maps": kept}


def _at_levels(
    kind: StructureKind, maps: Float[Array, "n t H W k"], levels: Int[Array, "n l"], encode_images: EncodeImages
) -> Float[Array, "n l t h w c"]:
    """Latents of maps as they were estimated, at some t_s of each clip."""
    count = levels.shape[1]
    degraded = kind.degrade(repeat(kind.normalise(maps), "n ... -> (n l) ...", l=count), levels.reshape(-1))
    return rearrange(kind.encode(degraded, encode_images), "(n l) ... -> n l ...", l=count)


def _of_one_shape(clips: Iterator[PreparedClip], count: int) -> Iterator[list[PreparedClip]]:
    """Batches of at most `count` neighbours."""
    for _, same in itertools.groupby(clips, lambda clip: clip.frames.shape):
        while batch := list(itertools.islice(same, count)):
            yield batch


def _finish(batch: list[PreparedClip], arrays: dict[str, Any]) -> Iterator[Example]:
    host = jax.device_get(arrays)
    for index, clip in enumerate(batch):
        yield {**clip.common, **jax.tree.map(lambda x: x[index], host)}  # noqa: B023
