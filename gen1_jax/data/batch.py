"""`Batch`: what the pipeline gives and the training step takes, a pytree of arrays of one kind and bucket."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from gen1_jax.data.config import Bucket, Kind

Leaf = Any
"""An array (numpy from the loader, jax in the step), None where the stream has none, or anything jax maps over."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips of T frames, or images (T = 1), all of one size. B is this process's part of the batch.

    Attributes:
        pixels: uint8 (B, T, H, W, 3), sRGB; None for latents.
        depth: float32 (B, T, H, W), inverse depth of any scale, near is large; for `normalise_depth`, or None.
        moments: bfloat16 (B, T, h, w, 2 c), mean and log variance of the autoencoder, or None.
        structure: bfloat16 (B, T, h, w, c), latents of the depth blurred t_s times, or None.
        structure_level: int32 (B,), t_s, drawn at random.
        content: bfloat16 (B, d), CLIP's embedding of the content frame, or None.
        content_index: int32 (B,), which frame is the content, drawn at random; 0 for images.
        caption: uint8 (B, n), UTF-8 padded with zeros; see `captions`.
        record: int32 (B, 2), number of the source in its stream, and of the example in it.
        kind: image or video.
        bucket: height and width of the pictures, in pixels.
    """

    pixels: Leaf = None
    depth: Leaf = None
    moments: Leaf = None
    structure: Leaf = None
    content: Leaf = None
    structure_level: Leaf
    content_index: Leaf
    caption: Leaf
    record: Leaf
    kind: Kind = dataclasses.field(metadata={"static": True})
    bucket: Bucket = dataclasses.field(metadata={"static": True})

    def __len__(self) -> int:
        return len(self.content_index)

    @property
    def content_frame(self) -> Leaf:
        """uint8 (B, H, W, 3): the picture of the content, for CLIP."""
        return self.pixels[np.arange(len(self)), self.content_index]

    @property
    def captions(self) -> list[str]:
        """The captions as text, on the host; empty where there is none."""
        return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in np.asarray(self.caption)]

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def collate(examples: Iterable[Mapping[str, np.ndarray]], size: int) -> dict[str, np.ndarray]:
    """Stacks the arrays of `size` examples, one after another, so that few are held at a time."""
    batch: dict[str, np.ndarray] = {}
    for index, example in enumerate(examples):
        for key, value in example.items():
            if not index:
                batch[key] = np.empty((size, *value.shape), value.dtype)
            batch[key][index] = value
    return batch


def encode_caption(caption: str, size: int) -> np.ndarray:
    """A caption as `Batch.caption` holds it: uint8 (size,), cut between characters."""
    data = caption.encode()[:size].decode(errors="ignore").encode()
    return np.frombuffer(data.ljust(size, b"\0"), np.uint8)
