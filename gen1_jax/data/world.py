"""Exact maps of structure of synthetic clips: as the renderer gives them, and as records keep them, compactly.

| kind         | a record has                                        | `gen1 render --maps` |
|--------------|-----------------------------------------------------|----------------------|
| depth        | "depth": inverse depth in 16 bits                   | always               |
| segmentation | "ids"; colours are drawn at random by the seed      | always               |
| edges        | "edges_bits": a bit a pixel                         | edges                |
| normals      | "normals_xy": left and up in 8 bits                 | normals              |
| flow         | "flow": pixels, 16 bits                             | flow                 |
| pose         | "joints" and "shapes"; skeletons are drawn of these | pose                 |
| source       | "source_video": the clip in another content         | source               |
"""

import zlib
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from einops import rearrange
from jaxtyping import Float32, UInt8

from gen1_jax import synthetic
from gen1_jax.data.codec import encode_video, inverse_depth
from gen1_jax.data.dataset import Example, Features
from gen1_jax.errors import UserError
from gen1_jax.media.windows import open_windows
from gen1_jax.models.structure import Bone, colours_of, draw_bones
from gen1_jax.synthetic.skeletons import MAX_JOINTS

MAPS = Float32[np.ndarray, "t h w k"]

_TRACED = {"edges": "edges", "normals": "normals", "pose": "joints"}
"""Kinds whose maps the renderer makes when it is asked to, and the names that it has for them."""

_ALWAYS = ("depth", "segmentation")


def _bytes(doc: str) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=(), dtype=np.bytes_, doc=doc)


def _packed(shape: tuple[int | None, ...], dtype: Any, doc: str) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=dtype, encoding="zlib", doc=doc)


_FEATURES: Mapping[str, Features] = {
    "edges": {"edges_bits": _bytes("bits of (T, H, W), compressed")},
    "normals": {"normals_xy": _packed((None, None, None, 2), np.int8, "left and up times 127")},
    "flow": {"flow": _packed((None, None, None, 2), np.float16, "pixels")},
    "pose": {
        "joints": _packed((None, None, None, 3), np.float16, "see synthetic.skeletons"),
        "shapes": tfds.features.Tensor(shape=(None,), dtype=np.int8, doc="indices into synthetic.SHAPE_NAMES, or -1"),
    },
    "source": {"source_video": _bytes("the clip in another content, as an mp4 file")},
}
KINDS = (*_ALWAYS, *_FEATURES)
"""Kinds of structure that synthetic clips have exactly."""

_IN_RECORDS = {"depth": "depth", "segmentation": "ids", **{kind: next(iter(it)) for kind, it in _FEATURES.items()}}


class World(NamedTuple):
    """A rendered clip, on the host.

    Attributes:
        clip: of numpy arrays.
        maps: see `synthetic.exact_maps`; those that were asked for.
        source: RGB of the clip in the content before the edit, uint8 (T, H, W, 3), or None.
        shapes: indices into SHAPE_NAMES by slot.
        seed: of the structure.
    """

    clip: synthetic.Clip
    maps: Mapping[str, np.ndarray]
    source: UInt8[np.ndarray, "t h w 3"] | None
    shapes: np.ndarray
    seed: int


def check_exact(kinds: Iterable[str]) -> None:
    """Raises a ValueError that names a kind which synthetic clips do not have exactly."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UserError(f"synthetic clips have no exact {unknown[0]}, only {', '.join(KINDS)}")


def traced(kinds: Iterable[str]) -> tuple[str, ...]:
    """What `synthetic.exact_maps` has to make for these kinds."""
    return tuple(_TRACED[kind] for kind in kinds if kind in _TRACED)


def features_of(kinds: Iterable[str]) -> Features:
    """What records have for the maps of these kinds, beside what all records of `gen1 render` have."""
    return {name: feature for kind in kinds for name, feature in _FEATURES.get(kind, {}).items()}


def world_maps(world: World, kind: str) -> MAPS:
    """Exact maps of a kind, as `StructureKind.normalise` takes them."""
    made = {
        "depth": lambda: 1 / world.clip.depth[..., None],
        "segmentation": lambda: colours_of(world.clip.ids, colour_seed(world.seed)),
        "edges": lambda: world.maps["edges"][..., None],
        "normals": lambda: world.maps["normals"],
        "flow": lambda: world.clip.flow,
        "pose": lambda: _skeletons(world.maps["joints"], world.shapes, world.clip.ids.shape[1:]),
        "source": lambda: world.source / np.float32(255),
    }
    return np.asarray(made[kind](), np.float32)


def encode_world(world: World, kinds: Iterable[str], frame_rate: float) -> Example:
    """What `features_of` names."""
    made = {
        "edges": lambda: {"edges_bits": zlib.compress(np.packbits(world.maps["edges"]).tobytes())},
        "normals": lambda: {"normals_xy": np.rint(world.maps["normals"][..., :2] * 127).astype(np.int8)},
        "flow": lambda: {"flow": world.clip.flow.astype(np.float16)},
        "pose": lambda: {"joints": _half(world.maps["joints"]), "shapes": world.shapes.astype(np.int8)},
        "source": lambda: {"source_video": encode_video(world.source, frame_rate, pixel_format="yuv444p")},
    }
    return {name: value for kind in kinds if kind in made for name, value in made[kind]().items()}


def has_maps(record: Container[str], kind: str) -> bool:
    """Whether a record, or the schema of records, has the maps of a kind."""
    return kind in record or _IN_RECORDS.get(kind) in record


def recorded_maps(record: Mapping[str, Any], kind: str) -> MAPS:
    """The maps of a kind of structure that a record carries: as `encode_world` or `encode_depth` left them, or as an
    array by the name of the kind.

    Raises:
        ValueError: it has none, or they are damaged.
    """
    if not has_maps(record, kind):
        raise UserError(f"it has no {kind}; only records with maps, such as those of gen1 render, have")
    maps = record.get(kind)
    if not isinstance(maps, np.ndarray):
        shape = (record["frames"], record["height"], record["width"])
        maps = _DECODED[kind](record, shape)
    maps = np.asarray(maps, np.float32)
    return maps[..., None] if maps.ndim == 3 else maps


def colour_seed(structure_seed: int) -> int:
    """Of the colours of a clip's segmentation: another stream of chance than those of structure and content."""
    return zlib.crc32(f"segmentation {structure_seed}".encode())


def _edges(record: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    bits = np.frombuffer(zlib.decompress(record["edges_bits"]), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)


def _normals(record: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    left_up = record["normals_xy"].astype(np.float32) / 127
    near = np.sqrt(np.maximum(1 - np.square(left_up).sum(-1, keepdims=True), 0))
    normals = np.concatenate([left_up, near], -1)
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def _source(record: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    with open_windows(record["source_video"], frames=shape[0]) as video:
        return video.whole() / np.float32(255)


_DECODED = {
    "depth": lambda record, shape: inverse_depth(record["depth"], shape, record["depth_range"]),
    "segmentation": lambda record, shape: colours_of(record["ids"], colour_seed(int(record["structure_seed"]))),
    "edges": _edges,
    "normals": _normals,
    "pose": lambda record, shape: _skeletons(record["joints"], record["shapes"], shape[1:]),
    "source": _source,
}


def _skeletons(joints: np.ndarray, shapes: np.ndarray, size: tuple[int, int]) -> MAPS:
    """Pictures of the skeletons of all objects, (T, H, W, 3), of joints (T, slots, joints, 3)."""
    bones = []
    for slot, shape in enumerate(shapes):
        skeleton = synthetic.SKELETONS.get(synthetic.SHAPE_NAMES[shape]) if shape >= 0 else None
        for start, end, limb, side in skeleton.bones if skeleton else ():
            bones.append(Bone(slot * MAX_JOINTS + start, slot * MAX_JOINTS + end, limb, side))
    return draw_bones(rearrange(np.asarray(joints, np.float32), "t s j c -> t (s j) c"), bones, size)


def _half(joints: np.ndarray) -> np.ndarray:
    """In 16 bits, within what these hold."""
    return np.clip(joints, -3e4, 3e4).astype(np.float16)
