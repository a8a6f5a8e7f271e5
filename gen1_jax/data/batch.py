"""`Batch`: what the pipeline gives and the training step takes, a pytree of arrays of one kind and bucket."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from gen1_jax.data.config import Bucket, Kind

Array = np.ndarray | jax.Array
"""NumPy's from the loader, JAX's in a jit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of T frames, or images (T = 1), all of one size. B is this process's part of the batch.

    Attributes:
        pixels: sRGB; None for latents.
        maps: of each kind of structure in the records, as `StructureKind.normalise` takes them; the depth of synthetic
            clips is in 1/metre, near is large.
        moments: bfloat16, mean and log variance of the autoencoder, or None.
        structure: bfloat16, scaled latents of the structure of each kind, degraded t_s times.
        content: bfloat16, CLIP's embedding of the content frame, or None.
        structure_level: t_s, drawn at random; the same for all kinds.
        content_index: which frame is the content, drawn at random; 0 for images.
        caption: UTF-8 padded with zeros; see `captions`.
        record: number of the source in its stream, and of the example in it.
        kind: image or video.
        bucket: height and width of the pictures, in pixels.
    """

    pixels: UInt8[Array, "B T H W 3"] | None = None
    maps: dict[str, Float32[Array, "B T H W _"]] = dataclasses.field(default_factory=dict)
    moments: Float[Array, "B T h w m"] | None = None
    structure: dict[str, Float[Array, "B T h w _"]] = dataclasses.field(default_factory=dict)
    content: Float[Array, "B d"] | None = None
    structure_level: Int32[Array, " B"]
    content_index: Int32[Array, " B"]
    caption: UInt8[Array, "B n"]
    record: Int32[Array, "B 2"]
    kind: Kind
    bucket: Bucket

    def __len__(self) -> int:
        return len(self.content_index)

    @property
    def depth(self) -> Float32[Array, "B T H W"] | None:
        """The maps of depth without their axis of one channel, or None; for `normalise_depth`."""
        return self.maps["depth"][..., 0] if "depth" in self.maps else None

    @property
    def content_frame(self) -> UInt8[Array, "B H W 3"]:
        """The picture of the content, for CLIP."""
        return self.pixels[np.arange(len(self)), self.content_index]

    @property
    def captions(self) -> list[str]:
        """The captions as text, on the host; empty where there is none."""
        return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in np.asarray(self.caption)]

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


_STATIC = ("kind", "bucket")
_LEAVES = tuple(field.name for field in dataclasses.fields(Batch) if field.name not in _STATIC)


def _flatten_with_keys(batch: Batch) -> tuple[list[tuple[Any, Any]], tuple[Kind, Bucket]]:
    leaves = [(jax.tree_util.GetAttrKey(name), getattr(batch, name)) for name in _LEAVES]
    return leaves, (batch.kind, batch.bucket)


def _unflatten(static: tuple[Kind, Bucket], leaves: Iterable[Any]) -> Batch:
    """Without `__init__`, which takes arrays alone: JAX maps over shapes, shardings and much else."""
    batch = object.__new__(Batch)
    batch.__dict__.update(zip(_STATIC, static, strict=True))
    batch.__dict__.update(zip(_LEAVES, leaves, strict=True))
    return batch


jax.tree_util.register_pytree_with_keys(Batch, _flatten_with_keys, _unflatten)


def collate(examples: Iterable[Mapping[str, Any]], size: int) -> dict[str, Any]:
    """Stacks the arrays of `size` examples, (nested) dicts, one after another, so that few are held at a time."""
    for index, example in enumerate(examples):
        leaves, keys = jax.tree.flatten(example)
        if not index:
            stacked = [np.empty((size, *leaf.shape), leaf.dtype) for leaf in leaves]
        for whole, leaf in zip(stacked, leaves, strict=True):
            whole[index] = leaf
    return jax.tree.unflatten(keys, stacked)


def encode_caption(caption: str, size: int) -> np.ndarray:
    """A caption as `Batch.caption` holds it: uint8 (size,), cut between characters."""
    data = caption.encode()[:size].decode(errors="ignore").encode()
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8)
