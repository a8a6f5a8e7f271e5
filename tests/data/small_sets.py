"""Tiny data sets of clips for tests: what a frame shows tells which clip and frame it is."""

import numpy as np

from gen1_jax.data.codec import encode_depth, encode_video
from gen1_jax.data.dataset import CLIP_FEATURES, write_dataset
from gen1_jax.data.render import SYNTHETIC_FEATURES

HEIGHT, WIDTH = 32, 48


def frames_of(index: int, frames: int = 6, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8 (T, H, W, 3): red tells the clip, green the frame, blue grows to the right."""
    rgb = np.zeros((frames, height, width, 3), np.uint8)
    rgb[..., 0] = 20 + index * 7 % 200
    rgb[..., 1] = 30 + 25 * np.arange(frames)[:, None, None]
    rgb[..., 2] = np.linspace(20, 230, width)
    return rgb


def depth_of(frames: int = 6, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """float32 (T, H, W): inverse depth grows to the right, as blue does."""
    return np.broadcast_to(1 / np.linspace(0.1, 1.0, width, dtype=np.float32), (frames, height, width)).copy()


def clip(index: int, frames: int = 6, height: int = HEIGHT, width: int = WIDTH, depth: bool = False) -> dict:
    record = {
        "id": f"clip_{index}",
        "video": encode_video(frames_of(index, frames, height, width), 8.0, pixel_format="yuv444p"),
        "caption": f"clip number {index}, naïve",
        "frame_rate": 8.0,
        "source": "test",
        "frames": frames,
        "height": height,
        "width": width,
    }
    if depth:
        data, limits = encode_depth(depth_of(frames, height, width))
        record |= {
            "depth": data,
            "depth_range": np.float32(limits),
            "ids": np.zeros((frames, height, width), np.uint8),
            "structure_seed": index,
            "content_seed": index,
        }
    return record


def make_set(directory, count: int = 16, *, shards: int = 3, split: str = "train", depth: bool = False, sizes=None):
    """Writes `count` clips; `sizes` are (height, width) that take turns."""
    sizes = sizes or [(HEIGHT, WIDTH)]

    def examples(shard: int):
        for index in range(shard * count // shards, (shard + 1) * count // shards):
            height, width = sizes[index % len(sizes)]
            yield clip(index, height=height, width=width, depth=depth)

    write_dataset(
        directory,
        name="clips",
        split=split,
        features=SYNTHETIC_FEATURES if depth else CLIP_FEATURES,
        num_shards=shards,
        examples=examples,
        info={"count": count},
    )
    return str(directory)


def damage(directory, shard: int = 0, at: float = 0.5) -> str:
    """Flips a byte in the records of a shard; its name."""
    (path,) = directory.glob(f"*.array_record-{shard:05d}-of-*")
    data = bytearray(path.read_bytes())
    used = len(data.rstrip(b"\0")) if len(data) <= 65536 * 2 else len(data)
    first_block = data[: 65536 if used <= 65536 * 2 else used].rstrip(b"\0")
    data[int(len(first_block) * at)] ^= 0xFF
    path.write_bytes(data)
    return path.name
